"""Folders of T5Gemma: read, refused, written again."""

import dataclasses
import json

import numpy as np
import pytest

from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_t5gemma_config
from gkd.models.t5gemma import Side
from gkd.models.t5gemma_params import HF_EMBEDDING
from gkd.models.t5gemma_params import HF_HEAD
from gkd.types import UserError
from tests import tiny_t5gemma
from tests.checkpoints import tiny_models


@pytest.fixture
def folder(tmp_path):
  return tiny_t5gemma.save(tmp_path / "saved", "balanced")


def change(folder, side=None, **fields):
  """Other fields in config.json; None removes one."""
  saved = tiny_models.read_json(folder / "config.json")
  place = saved if side is None else saved[side]
  for name, value in fields.items():
    place.pop(name) if value is None else place.update({name: value})
  (folder / "config.json").write_text(json.dumps(saved))


@pytest.mark.parametrize("case", tiny_t5gemma.CASES)
def test_there_and_back_through_our_format_is_the_same(tmp_path, case):
  first, middle, last = (tmp_path / name for name in ("hf", "middle", "back"))
  tiny_t5gemma.save(first, case)
  assert source.open_checkpoint(first).config == tiny_t5gemma.config_of(case)
  tiny_models.convert(first, middle, to="gkd")
  tiny_models.convert(middle, last, to="hf")
  before, after = map(tiny_models.files_of, (first, last))
  del before["README.md"], after["README.md"]  # says where it came from
  assert before == after


def test_what_the_published_files_leave_out_is_transformers_default(folder):
  left_out = dict.fromkeys(
    ("attn_logit_softcapping", "layer_types", "rms_norm_eps", "sliding_window")
  )
  change(folder, "encoder", **left_out, query_pre_attn_scalar=8)
  change(folder, "decoder", final_logit_softcapping=None, eos_token_id=[1, 9])
  change(folder, tie_word_embeddings=None, eos_token_id=None, bos_token_id=None)
  (folder / "generation_config.json").unlink()
  config = source.open_checkpoint(folder).config
  sizes = {n: getattr(tiny_t5gemma.SIDE, n) for n in ("emb_dim", "head_dim")}
  like = dataclasses.replace(tiny_t5gemma.SIDE, query_scale=8**-0.5, **sizes)
  defaults = {"sliding_window": 4096, "norm_epsilon": 1e-6}
  assert config.encoder == dataclasses.replace(like, **defaults)
  assert Side.attention_cap == config.encoder.attention_cap == 50.0
  assert (config.logit_cap, config.logits_via_embedding) == (30.0, True)
  assert (config.eos_ids, config.start_id) == ((1, 9), 2)


@pytest.mark.parametrize("both", [True, False])
def test_a_tied_head_that_was_saved_is_the_embedding_or_refused(both):
  table, tied = np.ones((3, 2), np.float32), {"tie_word_embeddings": True}
  saved = {HF_HEAD: table, **({HF_EMBEDDING: table} if both else {})}
  tensors = tiny_models.as_leaves(saved)
  is_tied, _ = hf_t5gemma_config.take_head("x", tensors, tied)
  assert (is_tied, [*tensors]) == (True, [HF_EMBEDDING])
  tensors = tiny_models.as_leaves({HF_HEAD: table, HF_EMBEDDING: table + 1})
  with pytest.raises(
    UserError, match=r"but config\.json ties them; if the head"
  ):
    hf_t5gemma_config.take_head("x", tensors, tied)


@pytest.mark.parametrize(
  ("side", "fields", "message"),
  [
    (None, {"encoder": None}, "encoder"),
    ("decoder", {"attention_bias": True}, "has attention_bias True, which gkd"),
    ("decoder", {"layer_types": ["full_attention"]}, "of the types"),
    ("decoder", {"hidden_activation": "silu"}, "'gelu_pytorch_tanh' of the en"),
    ("encoder", {"vocab_size": 60}, "vocab_size 60 of the encoder and 61 of"),
    ("encoder", {"sliding_window": "4"}, "sliding_window"),
    (
      "encoder",
      {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
      "expected none that are scaled",
    ),
    ("encoder", {"query_pre_attn_scalar": 0}, "a number above 0"),
  ],
)
def test_what_gkd_would_compute_otherwise_is_refused(
  folder, side, fields, message
):
  change(folder, side, **fields)
  with pytest.raises(UserError, match=message):
    source.open_checkpoint(folder)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"query_scale": 0.3}, r"has no query_scale 0\.3; expected"),
    ({"emb_dim": 20}, "no T5Gemma with 6 heads in the encoder of width 20"),
  ],
)
def test_what_transformers_does_not_have_is_not_written(change, message):
  side = dataclasses.replace(tiny_t5gemma.SIDE, **change)
  config = tiny_t5gemma.config_of("balanced", encoder=side)
  with pytest.raises(UserError, match=message):
    hf_t5gemma_config.as_json(config, "float32")
