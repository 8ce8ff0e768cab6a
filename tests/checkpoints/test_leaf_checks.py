"""Every difference from the model that the config describes is listed."""

import dataclasses

import ml_dtypes
import pytest

from gkd.checkpoints import leaf_checks
from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError
from tests.checkpoints import tiny_models


def changed(leaves=None, **replaced):
  made = tiny_models.make()
  kept = {**made.leaves, **replaced, **(leaves or {})}
  found = {name: leaf for name, leaf in kept.items() if leaf is not None}
  return dataclasses.replace(made, leaves=dict(sorted(found.items())))


def other(shape, dtype="float32"):
  return Leaf(shape, dtype, lambda: None)


def test_a_whole_model_passes():
  leaf_checks.check_leaves(tiny_models.make())
  leaf_checks.check_leaves(tiny_models.make(dtype=ml_dtypes.bfloat16))


def test_all_that_is_wrong_is_in_one_line():
  leaves = {
    "decoder/decoder_norm/scale": None,
    "encoder/layers_1/mlp/wo/kernel": other((16, 24)),
    "token_embedder/embedding": other((48, 16), "float16"),
    "visual/projection/kernel": other((3, 4)),
  }
  with pytest.raises(UserError) as error:
    leaf_checks.check_leaves(changed(leaves))
  text = str(error.value)
  assert "\n" not in text
  for part in (
    "1 missing: decoder/decoder_norm/scale (16,)",
    "1 left over: visual/projection/kernel (3, 4)",
    "1 misshapen: encoder/layers_1/mlp/wo/kernel is (16, 24) instead of (24, 1",
    "1 of another type: token_embedder/embedding float16, expected float32 or",
  ):
    assert part in text


def test_absurd_numbers_of_layers_are_refused_at_once():
  made = tiny_models.make()
  config = dataclasses.replace(made.config, num_encoder_layers=10**9)
  with pytest.raises(UserError, match=r"1000000003 layers, but holds \d+ par"):
    leaf_checks.check_leaves(dataclasses.replace(made, config=config))


def slots_of(name="encoder/layers_1/mlp/wo/kernel", **shapes):
  """Slots of a whole model, some of one parameter (24, 16) replaced."""
  made = tiny_models.make(slots=True)
  slots = dict(made.slots)
  for kind, leaf in shapes.items():
    slots[f"{kind}/{name}"] = leaf if isinstance(leaf, Leaf) else other(leaf)
  return dataclasses.replace(made, slots=slots)


@pytest.mark.parametrize(
  "shapes",
  [
    {},
    {"m": (24, 16)},
    {"v": (1,), "v_row": (16,), "v_col": (24,)},
    {"v": (1,), "v_row": (24,), "v_col": (16,)},
  ],
)
def test_slots_of_adafactor_pass(shapes):
  leaf_checks.check_leaves(slots_of(**shapes))


@pytest.mark.parametrize(
  ("shapes", "message"),
  [
    ({"v": (7, 5)}, r"1 slots misshapen: v, .* \(24, 16\) are \(7, 5\), \(1"),
    ({"v": (1,)}, "1 slots misshapen: v, v_row and v_col of encoder/layers_1"),
    ({"v": (1,), "v_row": (16,), "v_col": (16,)}, "1 slots misshapen"),
    ({"v_row": (16,), "v_col": (24,)}, "1 slots misshapen"),
    ({"m": (16, 24)}, r"m/enc.* is \(16, 24\) instead of \(24, 16\)"),
    ({"u": (1,)}, r"1 slots left over: u/encoder/layers_1/mlp/wo/kernel \(1,"),
    (
      {"m": other((1,), "float64")},
      "1 slots of another type: m/.* float64, expected float32",
    ),
  ],
)
def test_slots_of_something_else_are_listed(shapes, message):
  with pytest.raises(UserError, match=message):
    leaf_checks.check_leaves(slots_of(**shapes))


def test_missing_slots_are_listed():
  made = slots_of()
  slots = {n: leaf for n, leaf in made.slots.items() if n[:5] != "v_row"}
  with pytest.raises(UserError, match=r"\d+ slots missing: v_row/decoder/dec"):
    leaf_checks.check_leaves(dataclasses.replace(made, slots=slots))


def test_of_many_the_first_are_listed_and_the_rest_counted():
  gone = {f"decoder/layers_2/mlp/{n}/kernel": None for n in ("wi_0", "wi_1")}
  gone |= {
    f"decoder/layers_2/self_attention/{n}/kernel": None
    for n in ("query", "key", "value", "out")
  }
  with pytest.raises(UserError, match=r"6 missing: .* and 2 more; give") as e:
    leaf_checks.check_leaves(changed(gone))
  assert str(e.value).count("decoder/layers_2") == 4
