"""Hugging Face folders: those of transformers, ours, and broken ones."""

import shutil

import jax
import numpy as np
import pytest

from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import hf_head
from gkd.checkpoints.hf import hf_tokenizer
from gkd.checkpoints.hf import safetensors_file
from gkd.models import t5
from gkd.models import t5_params
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models

SAVED = ("t5_1_0", "t5_1_1_bfloat16", "umt5_sharded")


def change_tensors(folder, drop=(), **arrays):
  """Rewrites model.safetensors."""
  tensors = safetensors_file.open_folder(folder)
  kept = {n: t.read() for n, t in tensors.items() if n not in drop} | arrays
  safetensors_file.write_folder(folder, tiny_models.as_leaves(kept))


@pytest.mark.parametrize("name", SAVED)
def test_logits_equal_those_of_transformers(golden, name):
  config, params = tiny_models.read(golden / "hf" / name)
  wanted = np.load(golden / "hf" / f"{name}.npz")
  model = t5.encoder_decoder(config)
  logits = jax.jit(model.logits)(params, wanted["inputs"], wanted["targets"])
  real = wanted["targets"] > 0
  np.testing.assert_allclose(
    np.asarray(logits)[real], wanted["logits"][real], atol=1e-5
  )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.model."])
def test_the_prefix_of_a_wrapper_is_left_out(golden, tmp_path, prefix):
  saved = golden / "hf" / "t5_1_0"
  folder = tmp_path / "a"
  shutil.copytree(saved, folder)
  tensors = safetensors_file.open_folder(saved)
  safetensors_file.write_folder(
    folder, {f"{prefix}{name}": leaf for name, leaf in tensors.items()}
  )
  opened, plain = (hf_folder.open_checkpoint(p, {}) for p in (folder, saved))
  assert f"names: {prefix!r} is left out before each" in opened.assumed
  tiny_models.assert_same_arrays(opened.leaves, plain.leaves)


@pytest.mark.parametrize("name", SAVED)
def test_there_and_back_is_the_same_folder(golden, tmp_path, name):
  """Each tensor; of a model in one file, the file."""
  saved = golden / "hf" / name
  opened = hf_folder.open_checkpoint(saved, {})
  folder = tiny_models.save(tmp_path / "a", opened, "hf")
  tiny_models.assert_same_arrays(
    safetensors_file.open_folder(folder), safetensors_file.open_folder(saved)
  )
  if (saved / "model.safetensors").exists():
    content = (saved / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == content
  assert hf_folder.open_checkpoint(folder, {}).config == opened.config
  ours = tiny_models.read_json(folder / "config.json")
  theirs = tiny_models.read_json(saved / "config.json")
  assert ours.pop("torch_dtype") == theirs.pop("dtype")
  for name in ("classifier_dropout", "is_decoder", "transformers_version"):
    theirs.pop(name)
  assert ours == theirs
  generation = tiny_models.read_json(folder / "generation_config.json")
  assert generation.items() <= theirs.items()
  assert len(generation) == 3


def test_the_tokenizer_tells_the_real_ids_and_the_card_is_there(tmp_path):
  made = tiny_models.make(vocab_size=384)
  words = vocabulary.load("bytes", 61)  # 320 ids
  folder = tiny_models.save(
    tmp_path / "a", made, "hf", words, card={"license": "mit"}
  )
  assert 'license: "mit"' in (folder / "README.md").read_text()
  opened = hf_folder.open_checkpoint(folder, {})
  assert opened.config.vocabulary_size == 320
  assert not any("vocabulary_size" in text for text in opened.assumed)
  # Given, it is not asked; without one, the public sizes are assumed.
  opened = hf_folder.open_checkpoint(folder, {"vocabulary_size": 300})
  assert opened.config.vocabulary_size == 300
  (folder / "tokenizer_config.json").unlink()
  opened = hf_folder.open_checkpoint(folder, {})
  assert opened.config.vocabulary_size == 384
  assert opened.assumed[0].startswith("vocabulary_size: 384, for want of a tok")
  hf_tokenizer.write(folder, vocabulary.load("bytes", 200))
  with pytest.raises(UserError, match=r"has more ids than the 384 rows"):
    hf_folder.open_checkpoint(folder, {})


def test_a_head_and_copies_of_the_embedding_in_a_file(golden, tmp_path):
  """T5 1.0; see test_hf_head for what counts as a copy."""
  tied = shutil.copytree(golden / "hf" / "t5_1_0", tmp_path / "tied")
  wanted = hf_folder.open_checkpoint(tied, {}).leaves
  wanted = {name: leaf.read() for name, leaf in wanted.items()}
  table = wanted["token_embedder/embedding"]
  copies = dict.fromkeys((*hf_head.COPIES, t5_params.HF_HEAD), table)
  change_tensors(tied, **copies)
  opened = hf_folder.open_checkpoint(tied, {})
  assert opened.config.logits_via_embedding
  tiny_models.assert_same_arrays(opened.leaves, tiny_models.as_leaves(wanted))
  assert len([text for text in opened.assumed if "copies: " in text]) == 2
  # Tied, but not scaled: a head of its own.
  tiny_models.rewrite_json(tied / "config.json", scale_decoder_outputs=False)
  opened = source.open_checkpoint(tied)
  assert not opened.config.logits_via_embedding
  head = opened.leaves["decoder/logits_dense/kernel"].read()
  np.testing.assert_array_equal(head, table.T)


def _other_tensors(folder):
  arrays = {
    "decoder.surplus": np.zeros((2, 2), np.float32),
    "encoder.final_layer_norm.weight": np.zeros(5, np.float32),
  }
  change_tensors(folder, ["lm_head.weight"], **arrays)


def _more_layers(folder):
  tiny_models.rewrite_json(folder / "config.json", num_layers=10**6)


def _no_decoder(folder):
  names = safetensors_file.open_folder(folder)
  change_tensors(folder, [n for n in names if n.startswith("decoder.")])


def _another_type(folder):
  file = folder / "model.safetensors"
  file.write_bytes(file.read_bytes().replace(b'"F32"', b'"I32"', 1))


def _renamed(name, **config):
  def change(folder):
    (folder / "model.safetensors").rename(folder / name)
    tiny_models.rewrite_json(folder / "config.json", **config)

  return change


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      _other_tensors,
      r"1 missing: lm_head.weight \(48, 16\); 1 left over: decoder.surplus"
      r" \(2, 2\); 1 misshapen: encoder.final_layer_norm.weight is \(5,\)"
      r" instead of \(16,\); give a whole",
    ),
    (_more_layers, r"should have 10000\d\d layers, but holds"),  # and at once
    (_no_decoder, r"\d+ missing: decoder.block.0.layer.0.SelfAttention.k"),
    (_another_type, r"1 of another type: .* I32, expected float32 or bf"),
    # With the command that converts them, unless it is of another family.
    (_renamed("pytorch_model.bin"), "can hold code .*save_pretrain"),
    (_renamed("flax_model.msgpack"), r"msgpack .*from_flax=True\)\.save"),
    (
      _renamed("pytorch_model.bin", model_type="bert"),
      "of a model of type 'bert'",
    ),
  ],
)
def test_what_is_no_whole_t5_is_refused_by_name(tmp_path, change, message):
  folder = tiny_models.save(tmp_path / "untied", tiny_models.make(), "hf")
  change(folder)
  with pytest.raises(UserError, match=message) as error:
    hf_folder.open_checkpoint(folder, {})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("changes", "words", "message"),
  [
    ({}, "characters:01", "has no tokenizer in transformers"),
    (
      {"mlp_activations": ("gelu", "gelu")},
      "bytes",
      r"no T5 with the activations .*'relu'",
    ),
  ],
)
def test_nothing_is_written_that_transformers_cannot_open(
  tmp_path, changes, words, message
):
  with pytest.raises(UserError, match=message):
    hf_folder.write(
      tmp_path, tiny_models.make(**changes), vocabulary=vocabulary.load(words)
    )
  assert not any(tmp_path.iterdir())
