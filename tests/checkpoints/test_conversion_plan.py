"""What will be written: step, slots, types, tokenizer, each said or refused."""

import dataclasses
import re
import shutil

import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints.conversion_plan import plan
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import convert_command as command
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.checkpoints.native import test_native_checkpoint


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Ours, with slots and step 7."""
  folder = tmp_path_factory.mktemp("planning") / "model"
  folder.mkdir()
  native_checkpoint.write(folder, tiny_models.make(slots=True))
  return folder


@pytest.fixture(scope="module")
def stepless(tmp_path_factory):
  folder = tmp_path_factory.mktemp("planning") / "stepless"
  folder.mkdir()
  native_checkpoint.write(
    folder, dataclasses.replace(tiny_models.make(), step=None)
  )
  return folder


def remarks(planned) -> str:
  return "\n".join(planned.remarks)


def test_as_it_is_unless_asked_otherwise(model):
  planned = plan(model, to="gkd", slots=True)
  made = tiny_models.make(slots=True)
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made.leaves)
  tiny_models.assert_same_arrays(planned.checkpoint.slots, made.slots)
  assert planned.remarks == ("tokenizer: none is beside the source",)


def test_types_are_rounded_to_nearest_or_exact_and_said(model, tmp_path):
  planned = plan(model, to="t5x", dtype="bfloat16")
  for name, leaf in tiny_models.make().leaves.items():
    bits = leaf.read().view(np.uint32)
    # To nearest, ties to even: what a bfloat16 keeps is the upper half.
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    found = planned.checkpoint.leaves[name]
    assert found.dtype == "bfloat16"
    np.testing.assert_array_equal(found.read().view(np.uint16), kept)
  assert "float32 to bfloat16, which rounds to 8 of 24 bits" in remarks(planned)
  made = tiny_models.make(dtype=ml_dtypes.bfloat16)
  native_checkpoint.write(tmp_path, made)
  planned = plan(tmp_path, to="t5x", dtype="float32")
  for name, leaf in made.leaves.items():
    bits = leaf.read().view(np.uint16).astype(np.uint32) << 16
    found = planned.checkpoint.leaves[name].read()
    np.testing.assert_array_equal(found.view(np.uint32), bits)
  assert "bfloat16 to float32, which is exact" in remarks(planned)
  assert plan(tmp_path, to="t5x", dtype="bfloat16").remarks == ()


def test_slots_are_kept_on_request_and_said_to_be_left_out(
  model, stepless, t5x_checkpoint
):
  assert plan(model, to="t5x", slots=True).checkpoint.slots
  planned = plan(model, to="t5x")
  assert planned.checkpoint.slots == {}
  assert "slots are left out; --slots keeps them" in remarks(planned)
  with pytest.raises(UserError, match=r"none to convert \(it has none\)"):
    plan(stepless, to="t5x", slots=True)
  folder = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  with pytest.raises(UserError, match=r"slots were asked.*stacked layers are"):
    plan(folder, to="gkd", slots=True)


def test_the_step_is_checked_or_told(model, stepless):
  assert plan(model, to="t5x", step=7).checkpoint.step == 7
  with pytest.raises(UserError, match=rf"^step {2**31}.*expected 0 "):
    plan(stepless, to="t5x", step=2**31)
  planned = plan(stepless, to="t5x")
  assert planned.checkpoint.step == 0
  assert "step: 0, since the source does not say one" in remarks(planned)
  planned = plan(stepless, to="gkd", step=9)
  assert planned.checkpoint.step == 9
  assert "step: 9, as given" in remarks(planned)


@pytest.mark.parametrize("below", ["", "checkpoints/00000002"])
def test_of_a_run_the_number_of_the_folder_chooses(tmp_path, below):
  """What is written is the absolute step."""
  made = test_native_checkpoint.make_run(tmp_path)
  tiny_models.rewrite_json(tmp_path / "run.json", first_step=1_000_000)
  planned = plan(tmp_path / below, to="t5x", step=2)
  assert planned.checkpoint.step == 1_000_002
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made[2].leaves)
  with pytest.raises(UserError, match=r"no checkpoint of step 1000002; it has"):
    plan(tmp_path / below, to="t5x", step=1_000_002)


def test_a_tokenizer_that_t5x_does_not_keep_and_what_a_writer_would_refuse(
  tmp_path,
):
  """A dry run does not promise it."""
  words = vocabulary.load("characters:0123456789+=abcdef")
  made = tiny_models.make(
    slots=True,
    bias_per_layer=True,
    vocabulary_size=21,
    mlp_activations=("gelu", "gelu"),
  )
  native_checkpoint.write(tmp_path, made, vocabulary=words)
  said = rf"tokenizer: T5X keeps none; characters.* stays in {tmp_path}"
  assert re.search(said, remarks(plan(tmp_path, to="t5x")))
  with pytest.raises(UserError, match="has no tokenizer in transformers"):
    plan(tmp_path, to="hf")
  with pytest.raises(UserError, match="has no T5 with the activations"):
    plan(tmp_path, to="hf", tokenizer="none")
  with pytest.raises(UserError, match="which T5X factors differently"):
    plan(tmp_path, to="t5x", slots=True)


@pytest.mark.parametrize(
  ("to", "options", "message"),
  [
    ("pt", {}, r"to 'pt'; expected gkd, t5x, hf"),
    ("gkd", {"dtype": "float16"}, r"dtype 'float16'; expected float32 or"),
    ("t5x", {"tokenizer": "x"}, "tokenizer x has no effect: a T5X check"),
    ("hf", {}, r"no tokenizer is beside .* give --tokenizer=PATH"),
    ("t5x", {"step": -4}, r"^step -4.*expected 0 "),
    ("t5x", {"step": 8}, r"step 8 was given, but .* is of step 7"),
    ("hf", {"slots": True, "tokenizer": "none"}, "folder holds no optim"),
    ("hf", {"given": {"dtype": "bfloat16"}}, "dtype=.* no effect: a .* keeps"),
    ("t5x", {"given": {"dtype": "bfloat16"}}, "dtype=.* no effect: a .* keeps"),
    ("t5x", {"given": {"dropout_rate": 0.0}}, "dropout_rate=.* has no effect"),
    ("t5x", {"given": {"vocabulary_size": 40}}, "size=40 has no effect: a T5X"),
  ],
)
def test_impossible_requests_are_one_line(model, to, options, message):
  with pytest.raises(UserError, match=message) as error:
    plan(model, to=to, **options)
  assert "\n" not in str(error.value)


def test_a_field_that_is_not_given_and_no_tokenizer_are_no_request(model):
  given = {"dtype": None, "dropout_rate": None}
  assert plan(model, to="t5x", given=given).vocabulary is None
  assert plan(model, to="hf", given=given, tokenizer="none").vocabulary is None


def test_what_t5x_does_not_keep_comes_back_as_it_is_told(golden, tmp_path):
  source = tmp_path / "hf"
  shutil.copytree(golden / "hf" / "t5_1_1_bfloat16", source)
  tiny_models.rewrite_json(
    source / "config.json",
    feed_forward_proj="gated-silu",
    dense_act_fn="silu",
    layer_norm_epsilon=1e-5,
    relative_attention_max_distance=64,
    dropout_rate=0.0,
    eos_token_id=2,
  )
  first = conversion.convert(source, tmp_path / "t5x", to="t5x")
  remark = plan(source, to="t5x").remarks[-1]
  assert remark.startswith("config: T5X keeps none, and this one is not T5's")
  given = command.fields_of(re.findall(r"--set (\S+)", remark))
  assert {"mlp_activations", "layer_norm_epsilon", "dropout_rate"} <= set(given)
  back = tmp_path / "back"
  conversion.convert(
    tmp_path / "t5x", back, to="hf", given=given, tokenizer="none"
  )
  found = hf_folder.open_checkpoint(back, {})
  assert found.config == first.config
  assert (found.config.layer_norm_epsilon, given["dropout_rate"]) == (1e-5, 0.0)
  # T5's own is not told.
  plain = plan(golden / "hf" / "t5_1_0", to="t5x")
  assert "config:" not in remarks(plain)
