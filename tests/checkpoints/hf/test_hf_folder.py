"""Hugging Face folders: those of transformers, ours, and broken ones."""

import json
import shutil

import jax
import numpy as np
import pytest

from gkd.checkpoints import source
from gkd.checkpoints import stored_names
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import hf_head
from gkd.checkpoints.hf import safetensors_file
from gkd.models import t5
from gkd.models import t5_params
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models

SAVED = ("t5_1_0", "t5_1_1_bfloat16", "umt5_sharded")


def write(folder, checkpoint, **options):
  folder.mkdir()
  hf_folder.write(folder, checkpoint, **options)
  return folder


def change_config(folder, **changes):
  tiny_models.rewrite_json(folder / "config.json", **changes)


def change_tensors(folder, drop=(), **arrays):
  """Rewrites model.safetensors; "." in names is written "__"."""
  tensors = safetensors_file.open_folder(folder)
  arrays = {name.replace("__", "."): array for name, array in arrays.items()}
  kept = {n: t.read() for n, t in tensors.items() if n not in drop} | arrays
  safetensors_file.write_folder(folder, tiny_models.as_leaves(kept))


@pytest.mark.parametrize("name", SAVED)
def test_logits_equal_those_of_transformers(golden, name):
  config, params = source.read(golden / "hf" / name)
  wanted = np.load(golden / "hf" / f"{name}.npz")
  model = t5.encoder_decoder(config)
  logits = jax.jit(model.logits)(params, wanted["inputs"], wanted["targets"])
  real = wanted["targets"] > 0
  np.testing.assert_allclose(
    np.asarray(logits)[real], wanted["logits"][real], atol=1e-5
  )


@pytest.mark.parametrize("name", SAVED)
def test_there_and_back_is_the_same_folder(golden, tmp_path, name):
  """Each tensor; of a model in one file, the file."""
  source = golden / "hf" / name
  found = hf_folder.open_checkpoint(source, {})
  folder = write(tmp_path / "a", found)
  wanted = safetensors_file.open_folder(source)
  written = safetensors_file.open_folder(folder)
  tiny_models.assert_same_arrays(written, wanted)
  if (source / "model.safetensors").exists():
    content = (source / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == content
  again = hf_folder.open_checkpoint(folder, {})
  assert again.config == found.config
  ours = tiny_models.read_json(folder / "config.json")
  theirs = tiny_models.read_json(source / "config.json")
  assert ours.pop("torch_dtype") == theirs.pop("dtype")
  for only_theirs in (
    "classifier_dropout",
    "is_decoder",
    "transformers_version",
  ):
    theirs.pop(only_theirs)
  assert ours == theirs
  generation = tiny_models.read_json(folder / "generation_config.json")
  assert generation == {
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
  }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("activations", [("relu",), ("silu", "linear")])
def test_ours_there_and_back_is_bit_identical(
  tmp_path, tied, per_layer, activations
):
  made = tiny_models.make(
    logits_via_embedding=tied,
    bias_per_layer=per_layer,
    mlp_activations=activations,
  )
  folder = write(tmp_path / "a", made, shard_bytes=3000)
  assert (folder / "model.safetensors.index.json").exists()
  found = source.open_any(folder)
  tiny_models.assert_same_arrays(found.leaves, made.leaves)
  assert found.config == made.config
  written = safetensors_file.open_folder(folder)
  announced = stored_names.table("hf", made.config)
  assert announced.keys() == made.leaves.keys()
  assert {n: leaf.shape for n, leaf in written.items()} == dict(
    announced.values()
  )


def test_the_tokenizer_tells_the_real_ids_and_the_card_is_there(tmp_path):
  made = tiny_models.make(vocab_size=384)
  words = vocabulary.load("bytes", 61)  # 320 ids
  folder = write(
    tmp_path / "a", made, vocabulary=words, card={"license": "mit"}
  )
  found = hf_folder.open_checkpoint(folder, {})
  assert found.config.vocabulary_size == 320
  assert not any("vocabulary_size" in told for told in found.assumed)
  assert 'license: "mit"' in (folder / "README.md").read_text()
  # Given, it is not asked; without one, the public sizes are assumed.
  asked = hf_folder.open_checkpoint(folder, {"vocabulary_size": 300})
  assert asked.config.vocabulary_size == 300
  (folder / "tokenizer_config.json").unlink()
  found = hf_folder.open_checkpoint(folder, {})
  assert found.config.vocabulary_size == 384
  assert found.assumed[0].startswith("vocabulary_size: 384, for want of a tok")
  hf_folder.hf_tokenizer.write(folder, vocabulary.load("bytes", 200))
  with pytest.raises(UserError, match=r"has more ids than the 384 rows"):
    hf_folder.open_checkpoint(folder, {})


@pytest.fixture
def tied(tmp_path, golden):
  """T5 1.0: the head is the embedding."""
  return shutil.copytree(golden / "hf" / "t5_1_0", tmp_path / "tied")


@pytest.fixture
def untied(tmp_path):
  return write(tmp_path / "untied", tiny_models.make())


def read_now(checkpoint):
  """Its leaves, which do not need the files any more."""
  arrays = {name: leaf.read() for name, leaf in checkpoint.leaves.items()}
  return tiny_models.as_leaves(arrays)


def embedding_of(folder):
  return safetensors_file.open_folder(folder)[t5_params.HF_EMBEDDING].read()


def test_copies_of_the_embedding_must_be_copies(tied):
  table = embedding_of(tied)
  wanted = read_now(hf_folder.open_checkpoint(tied, {}))
  change_tensors(
    tied, encoder__embed_tokens__weight=table, lm_head__weight=table
  )
  found = hf_folder.open_checkpoint(tied, {})
  tiny_models.assert_same_arrays(found.leaves, wanted)
  said = " ".join(found.assumed)
  assert "encoder.embed_tokens.weight equal shared.weight" in said
  assert "lm_head.weight equals shared.weight" in said
  flipped = table.copy()
  flipped[-1, -1] = np.nextafter(flipped[-1, -1], 9, dtype=np.float32)
  change_tensors(tied, lm_head__weight=flipped)
  with pytest.raises(
    UserError, match=r"lm_head.weight differs from .* set tie_word_embeddings"
  ):
    hf_folder.open_checkpoint(tied, {})
  change_tensors(
    tied, ["lm_head.weight"], encoder__embed_tokens__weight=flipped
  )
  with pytest.raises(
    UserError, match=r"encoder.embed_tokens.weight differs fr"
  ):
    hf_folder.open_checkpoint(tied, {})


def test_the_embedding_may_have_the_name_of_its_copy(tied):
  table = embedding_of(tied)
  wanted = read_now(hf_folder.open_checkpoint(tied, {}))
  change_tensors(
    tied, [t5_params.HF_EMBEDDING], decoder__embed_tokens__weight=table
  )
  found = hf_folder.open_checkpoint(tied, {})
  tiny_models.assert_same_arrays(found.leaves, wanted)


def test_a_bias_that_nothing_reads_is_left_out_and_said(tied):
  change_tensors(tied, **{hf_head.UNREAD: np.zeros((32, 3), np.float32)})
  assert any(
    told.startswith("left out: decoder.block.0.layer.1.EncDecAttention")
    for told in hf_folder.open_checkpoint(tied, {}).assumed
  )


@pytest.mark.parametrize(
  ("changes", "via_embedding"),
  [
    ({}, True),  # version 4
    ({"tie_word_embeddings": True, "scale_decoder_outputs": False}, False),
    ({"model_type": "mt5", "transformers_version": "5.0.1"}, False),
    ({"model_type": "mt5", "transformers_version": "4.57.0"}, True),
  ],
)
def test_a_head_without_weights_is_scaled_as_its_class_scales(
  tied, changes, via_embedding
):
  config = tiny_models.read_json(tied / "config.json")
  del config["scale_decoder_outputs"], config["transformers_version"]
  (tied / "config.json").write_text(json.dumps(config | changes))
  found = source.open_any(tied)
  assert found.config.logits_via_embedding == via_embedding
  if not via_embedding:
    head = found.leaves["decoder/logits_dense/kernel"].read()
    np.testing.assert_array_equal(head, embedding_of(tied).T)
    assert any(told.startswith("head: shared.weight") for told in found.assumed)


def test_wrong_tensors_are_listed_by_their_names(untied):
  norm = "encoder.final_layer_norm.weight"
  change_tensors(
    untied,
    ["lm_head.weight"],
    decoder__surplus=np.zeros((2, 2), np.float32),
    **{norm: np.zeros(5, np.float32)},
  )
  with pytest.raises(UserError) as raised:
    hf_folder.open_checkpoint(untied, {})
  assert (
    "1 missing: lm_head.weight (48, 16); 1 left over: decoder.surplus (2, 2);"
    f" 1 misshapen: {norm} is (5,) instead of (16,); give a whole"
    in str(raised.value)
  )


def test_more_layers_than_tensors_are_refused_at_once(untied):
  config = tiny_models.read_json(untied / "config.json")
  config |= {"num_layers": 10**6}
  (untied / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match=r"has 10000\d\d layers but the files"):
    hf_folder.open_checkpoint(untied, {})


def test_a_family_is_told_by_its_stacks(untied):
  names = safetensors_file.open_folder(untied)
  change_tensors(untied, [n for n in names if n.startswith("decoder.")])
  with pytest.raises(
    UserError, match=r"no tensor below decoder.block. .*encoder"
  ):
    hf_folder.open_checkpoint(untied, {})


def test_half_precision_is_refused_by_name(untied):
  file = untied / "model.safetensors"
  file.write_bytes(file.read_bytes().replace(b'"F32"', b'"I32"', 1))
  with pytest.raises(
    UserError,
    match=r"1 tensors are neither F32 nor BF16: .* \(I32\); .*float()",
  ):
    hf_folder.open_checkpoint(untied, {})


@pytest.mark.parametrize(
  ("name", "how"),
  [
    ("pytorch_model.bin", r"can hold code .*save_pretrained"),
    ("pytorch_model.bin.index.json", r"can hold code .*save_pretrained"),
    (
      "flax_model.msgpack",
      r"is not a safetensors file.*from_flax=True\)\.save",
    ),
    ("tf_model.h5", r"is not a safetensors file.*from_tf=True\)\.save"),
  ],
)
def test_other_weights_are_refused_with_the_command_that_converts_them(
  untied, name, how
):
  (untied / "model.safetensors").rename(untied / name)
  with pytest.raises(UserError, match=rf"{name} {how}"):
    hf_folder.open_checkpoint(untied, {})


def test_nothing_is_written_that_transformers_cannot_open(tmp_path):
  made = tiny_models.make()
  characters = vocabulary.load("characters:01")
  with pytest.raises(UserError, match="has no tokenizer in transformers"):
    write(tmp_path / "a", made, vocabulary=characters)
  made = tiny_models.make(mlp_activations=("gelu", "gelu"))
  with pytest.raises(UserError, match=r"no T5 with the activations .*'relu'"):
    write(tmp_path / "b", made)
  assert not any((tmp_path / "a").iterdir())
  assert not any((tmp_path / "b").iterdir())


def test_an_mt5_stays_one_and_a_umt5_is_told_by_its_biases(tmp_path):
  folder = write(tmp_path / "a", tiny_models.make())
  change_config(folder, model_type="mt5")
  again = write(tmp_path / "b", hf_folder.open_checkpoint(folder, {}))
  assert tiny_models.read_json(again / "config.json")["architectures"] == [
    "MT5ForConditionalGeneration"
  ]
  folder = write(tmp_path / "c", tiny_models.make(bias_per_layer=True))
  assert tiny_models.read_json(folder / "config.json")["model_type"] == "umt5"
