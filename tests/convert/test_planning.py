"""What will be written: step, slots, types, tokenizer, each said or refused."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from gkd.convert import own
from gkd.convert import planning
from gkd.types import UserError
from tests.convert import test_own
from tests.convert import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Ours, with slots and step 7."""
  folder = tmp_path_factory.mktemp("planning") / "model"
  folder.mkdir()
  own.write(folder, tiny_models.make(slots=True))
  return folder


@pytest.fixture(scope="module")
def stepless(tmp_path_factory):
  folder = tmp_path_factory.mktemp("planning") / "stepless"
  folder.mkdir()
  own.write(folder, dataclasses.replace(tiny_models.make(), step=None))
  return folder


def remarks(planned) -> str:
  return "\n".join(planned.remarks)


def test_as_it_is_unless_asked_otherwise(model):
  planned = planning.plan(model, to="gkd", slots=True)
  made = tiny_models.make(slots=True)
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made.leaves)
  tiny_models.assert_same_arrays(planned.checkpoint.slots, made.slots)
  assert planned.remarks == ("tokenizer: none is beside the source",)


def test_bfloat16_is_rounded_to_nearest_and_said(model):
  planned = planning.plan(model, to="t5x", dtype="bfloat16")
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
  own.write(tmp_path, made)
  planned = planning.plan(tmp_path, to="t5x", dtype="float32")
  for name, leaf in made.leaves.items():
    bits = leaf.read().view(np.uint16).astype(np.uint32) << 16
    found = planned.checkpoint.leaves[name].read()
    np.testing.assert_array_equal(found.view(np.uint32), bits)
  assert "bfloat16 to float32, which is exact" in remarks(planned)
  assert planning.plan(tmp_path, to="t5x", dtype="bfloat16").remarks == ()


def test_slots_are_kept_on_request_and_said_to_be_left_out(model, stepless):
  assert planning.plan(model, to="t5x", slots=True).checkpoint.slots
  planned = planning.plan(model, to="t5x")
  assert planned.checkpoint.slots == {}
  assert "slots are left out; --slots keeps them" in remarks(planned)
  with pytest.raises(UserError, match=r"none to convert \(it has none\)"):
    planning.plan(stepless, to="t5x", slots=True)
  with pytest.raises(UserError, match="a Hugging Face folder holds no optim"):
    planning.plan(model, to="hf", slots=True, tokenizer="none")


def test_slots_of_stacked_layers_are_refused_with_the_reason(t5x_checkpoint):
  folder = t5x_checkpoint("t5_1_1_scan_tiny", "legacy", 0)
  with pytest.raises(UserError, match=r"slots were asked.*stacked layers are"):
    planning.plan(folder, to="gkd", slots=True)


def test_the_step_is_checked_or_told(model, stepless):
  assert planning.plan(model, to="t5x", step=7).checkpoint.step == 7
  with pytest.raises(UserError, match=r"step 8 was given, but .* is of step 7"):
    planning.plan(model, to="t5x", step=8)
  planned = planning.plan(stepless, to="t5x")
  assert planned.checkpoint.step == 0
  assert "step: 0, since the source does not say one" in remarks(planned)
  planned = planning.plan(stepless, to="gkd", step=9)
  assert planned.checkpoint.step == 9
  assert "step: 9, as given" in remarks(planned)


@pytest.mark.parametrize("below", ["", "checkpoints/00000002"])
def test_of_a_run_the_number_of_the_folder_chooses(tmp_path, below):
  """What is written is the absolute step."""
  made = test_own.make_run(tmp_path)
  tiny_models.rewrite_json(tmp_path / "run.json", first_step=1_000_000)
  planned = planning.plan(tmp_path / below, to="t5x", step=2)
  assert planned.checkpoint.step == 1_000_002
  tiny_models.assert_same_arrays(planned.checkpoint.leaves, made[2].leaves)
  with pytest.raises(UserError, match=r"no checkpoint of step 1000002; it has"):
    planning.plan(tmp_path / below, to="t5x", step=1_000_002)


def test_impossible_requests_are_one_line(model):
  with pytest.raises(UserError, match=r"to 'pt'; expected gkd, t5x, hf"):
    planning.plan(model, to="pt")
  with pytest.raises(UserError, match=r"dtype 'float16'; expected float32 or"):
    planning.plan(model, to="gkd", dtype="float16")
  with pytest.raises(UserError, match="tokenizer x has no effect: a T5X check"):
    planning.plan(model, to="t5x", tokenizer="x")
  with pytest.raises(UserError, match=r"no tokenizer is beside .* give toke"):
    planning.plan(model, to="hf")
  assert planning.plan(model, to="hf", tokenizer="none").vocabulary is None
