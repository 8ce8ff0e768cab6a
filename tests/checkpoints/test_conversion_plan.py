"""What will be written: step, slots, types, tokenizer, each said or refused."""

import dataclasses
import re
import shutil

import ml_dtypes
import numpy as np
import pytest

from gkd.checkpoints import conversion
from gkd.checkpoints import conversion_plan
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import convert_command as command
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models
from tests.checkpoints.native import test_native_checkpoint

BARE = {"hf": "none", "t5x": None}  # a model without a tokenizer


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
  planned = conversion_plan.plan(model, to="gkd", slots=True)
  made = tiny_models.make(slots=True)
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made.leaves)
  tiny_models.assert_same_arrays(planned.checkpoint.slots, made.slots)
  assert planned.remarks == ("tokenizer: none is beside the source",)


def test_bfloat16_is_rounded_to_nearest_and_said(model):
  planned = conversion_plan.plan(model, to="t5x", dtype="bfloat16")
  for name, leaf in tiny_models.make().leaves.items():
    bits = leaf.read().view(np.uint32)
    # To nearest, ties to even: what a bfloat16 keeps is the upper half.
    kept = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    found = planned.checkpoint.leaves[name]
    assert found.dtype == "bfloat16"
    np.testing.assert_array_equal(found.read().view(np.uint16), kept)
  assert "float32 to bfloat16, which rounds to 8 of 24 bits" in remarks(planned)


def test_float32_of_bfloat16_is_exact_and_said(tmp_path):
  made = tiny_models.make(dtype=ml_dtypes.bfloat16)
  native_checkpoint.write(tmp_path, made)
  planned = conversion_plan.plan(tmp_path, to="t5x", dtype="float32")
  for name, leaf in made.leaves.items():
    bits = leaf.read().view(np.uint16).astype(np.uint32) << 16
    found = planned.checkpoint.leaves[name].read()
    np.testing.assert_array_equal(found.view(np.uint32), bits)
  assert "bfloat16 to float32, which is exact" in remarks(planned)
  assert (
    conversion_plan.plan(tmp_path, to="t5x", dtype="bfloat16").remarks == ()
  )


def test_slots_are_kept_on_request_and_said_to_be_left_out(model, stepless):
  assert conversion_plan.plan(model, to="t5x", slots=True).checkpoint.slots
  planned = conversion_plan.plan(model, to="t5x")
  assert planned.checkpoint.slots == {}
  assert "slots are left out; --slots keeps them" in remarks(planned)
  with pytest.raises(UserError, match=r"none to convert \(it has none\)"):
    conversion_plan.plan(stepless, to="t5x", slots=True)
  with pytest.raises(UserError, match="a Hugging Face folder holds no optim"):
    conversion_plan.plan(model, to="hf", slots=True, tokenizer="none")


def test_slots_of_stacked_layers_are_refused_with_the_reason(t5x_checkpoint):
  folder = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  with pytest.raises(UserError, match=r"slots were asked.*stacked layers are"):
    conversion_plan.plan(folder, to="gkd", slots=True)


def test_the_step_is_checked_or_told(model, stepless):
  assert conversion_plan.plan(model, to="t5x", step=7).checkpoint.step == 7
  with pytest.raises(UserError, match=r"step 8 was given, but .* is of step 7"):
    conversion_plan.plan(model, to="t5x", step=8)
  planned = conversion_plan.plan(stepless, to="t5x")
  assert planned.checkpoint.step == 0
  assert "step: 0, since the source does not say one" in remarks(planned)
  planned = conversion_plan.plan(stepless, to="gkd", step=9)
  assert planned.checkpoint.step == 9
  assert "step: 9, as given" in remarks(planned)


@pytest.mark.parametrize("below", ["", "checkpoints/00000002"])
def test_of_a_run_the_number_of_the_folder_chooses(tmp_path, below):
  """What is written is the absolute step."""
  made = test_native_checkpoint.make_run(tmp_path)
  tiny_models.rewrite_json(tmp_path / "run.json", first_step=1_000_000)
  planned = conversion_plan.plan(tmp_path / below, to="t5x", step=2)
  assert planned.checkpoint.step == 1_000_002
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made[2].leaves)
  with pytest.raises(UserError, match=r"no checkpoint of step 1000002; it has"):
    conversion_plan.plan(tmp_path / below, to="t5x", step=1_000_002)


@pytest.mark.parametrize(
  ("to", "name", "value"),
  [
    ("hf", "dtype", "bfloat16"),
    ("t5x", "dtype", "bfloat16"),
    ("t5x", "dropout_rate", 0.0),
    ("t5x", "vocabulary_size", 40),
  ],
)
def test_a_field_that_the_format_does_not_keep_is_refused(
  model, to, name, value
):
  with pytest.raises(UserError, match=rf"{name}=.* has no effect: a .* keeps"):
    conversion_plan.plan(model, to=to, given={name: value})
  conversion_plan.plan(model, to=to, given={name: None}, tokenizer=BARE[to])


def test_a_tokenizer_that_t5x_does_not_keep_is_told(tmp_path):
  words = vocabulary.load("characters:0123456789+=abcdef")
  native_checkpoint.write(
    tmp_path, tiny_models.make(vocabulary_size=21), vocabulary=words
  )
  said = rf"tokenizer: T5X keeps none; characters.* stays in {tmp_path}"
  assert re.search(said, remarks(conversion_plan.plan(tmp_path, to="t5x")))


def test_a_plan_refuses_what_its_writer_would(tmp_path):
  """A dry run does not promise it."""
  words = vocabulary.load("characters:0123456789+=abcdef")
  made = tiny_models.make(
    slots=True,
    bias_per_layer=True,
    vocabulary_size=21,
    mlp_activations=("gelu", "gelu"),
  )
  native_checkpoint.write(tmp_path, made, vocabulary=words)
  with pytest.raises(UserError, match="has no tokenizer in transformers"):
    conversion_plan.plan(tmp_path, to="hf")
  with pytest.raises(UserError, match="has no T5 with the activations"):
    conversion_plan.plan(tmp_path, to="hf", tokenizer="none")
  with pytest.raises(UserError, match="which T5X factors differently"):
    conversion_plan.plan(tmp_path, to="t5x", slots=True)


def test_impossible_requests_are_one_line(model):
  with pytest.raises(UserError, match=r"to 'pt'; expected gkd, t5x, hf"):
    conversion_plan.plan(model, to="pt")
  with pytest.raises(UserError, match=r"dtype 'float16'; expected float32 or"):
    conversion_plan.plan(model, to="gkd", dtype="float16")
  with pytest.raises(UserError, match="tokenizer x has no effect: a T5X check"):
    conversion_plan.plan(model, to="t5x", tokenizer="x")
  with pytest.raises(
    UserError, match=r"no tokenizer is beside .* give --tokenizer=PATH"
  ):
    conversion_plan.plan(model, to="hf")
  assert (
    conversion_plan.plan(model, to="hf", tokenizer="none").vocabulary is None
  )


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
  )
  first = conversion.convert(source, tmp_path / "t5x", to="t5x")
  remark = conversion_plan.plan(source, to="t5x").remarks[-1]
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
  plain = conversion_plan.plan(golden / "hf" / "t5_1_0", to="t5x")
  assert "config:" not in remarks(plain)


@pytest.mark.parametrize("step", [-4, 2**31])
def test_a_step_that_t5x_cannot_count_is_refused(stepless, step):
  with pytest.raises(UserError, match=rf"^step {step}.*expected 0 "):
    conversion_plan.plan(stepless, to="t5x", step=step)
