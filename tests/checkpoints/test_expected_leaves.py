"""Every difference from the model that the config describes is listed."""

import dataclasses

import pytest

from gkd.checkpoints import expected_leaves
from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError
from tests import tiny
from tests.checkpoints import tiny_models

KERNEL = "encoder/layers_1/mlp/wo/kernel"


def check(leaves=(), slots=(), **changes):
  """Checks a whole model with other leaves and slots, {name: leaf or None}."""
  made = tiny_models.make(slots=bool(slots), **changes)
  kept = [
    {n: leaf for n, leaf in (saved | dict(other)).items() if leaf is not None}
    for saved, other in ((made.leaves, leaves), (made.slots, slots))
  ]
  expected_leaves.check("a/model", made.config, kept[0], slots=kept[1])


def leaf(*shape, dtype="float32"):
  return Leaf(shape, dtype, lambda: None)


def test_a_whole_model_passes():
  check()
  check(dtype=tiny_models.BFLOAT16)


def test_all_that_is_wrong_is_in_one_line():
  with pytest.raises(UserError) as error:
    check(
      {
        "decoder/decoder_norm/scale": None,
        KERNEL: leaf(16, 24),
        "token_embedder/embedding": leaf(48, 16, dtype="float16"),
        "visual/projection/kernel": leaf(3, 4),
      }
    )
  assert str(error.value) == (
    "a/model is not the T5 that it seems to be:"
    " 1 missing: decoder/decoder_norm/scale (16,);"
    " 1 left over: visual/projection/kernel (3, 4);"
    f" 1 misshapen: {KERNEL} is (16, 24) instead of (24, 16);"
    " 1 of another type: token_embedder/embedding float16, expected float32 or"
    " bfloat16; give a whole checkpoint of one model"
  )


def test_a_decoder_is_named_as_one():
  config = dataclasses.replace(tiny.DECODER, num_layers=1)
  leaves = {"decoder/decoder_norm/scale": leaf(16), "b": leaf(1)}
  with pytest.raises(
    UserError, match=r"is not the decoder-only model that .* 11 missing"
  ):
    expected_leaves.check("a/model", config, leaves)


def test_of_many_the_first_are_listed_and_the_rest_counted():
  names = [f"self_attention/{n}" for n in ("query", "key", "value", "out")]
  names += ["mlp/wi_0", "mlp/wi_1"]
  gone = {f"decoder/layers_2/{name}/kernel": None for name in names}
  with pytest.raises(UserError, match=r"6 missing: .* and 2 more; give") as e:
    check(gone)
  assert str(e.value).count("decoder/layers_2") == 4


def test_absurd_numbers_of_layers_are_refused_at_once():
  made = tiny_models.make()
  config = dataclasses.replace(made.config, num_encoder_layers=10**9)
  with pytest.raises(UserError, match=r"1000000003 layers, but holds \d+ par"):
    expected_leaves.check("a/model", config, made.leaves)


def slots_of(**leaves):
  """Slots of a whole model, some of one parameter (24, 16) replaced."""
  unchanged = {f"m/{KERNEL}": leaf(1)}
  return unchanged | {f"{kind}/{KERNEL}": x for kind, x in leaves.items()}


@pytest.mark.parametrize(
  "slots",
  [
    {},
    {"m": leaf(24, 16)},
    {"v": leaf(1), "v_row": leaf(16), "v_col": leaf(24)},
    {"v": leaf(1), "v_row": leaf(24), "v_col": leaf(16)},
  ],
)
def test_slots_of_adafactor_pass(slots):
  check(slots=slots_of(**slots))


@pytest.mark.parametrize(
  ("slots", "message"),
  [
    (
      {"v": leaf(7, 5)},
      r"1 slots misshapen: v, .* \(24, 16\) are \(7, 5\), \(1",
    ),
    ({"v": leaf(1)}, f"1 slots misshapen: v, v_row and v_col of {KERNEL}"),
    ({"v": leaf(1), "v_row": leaf(16), "v_col": leaf(16)}, "1 slots misshapen"),
    ({"v_row": leaf(16), "v_col": leaf(24)}, "1 slots misshapen"),
    ({"m": leaf(16, 24)}, r"m/enc.* is \(16, 24\) instead of \(24, 16\)"),
    ({"u": leaf(1)}, rf"1 slots left over: u/{KERNEL} \(1,"),
    ({"v_row": None}, rf"1 slots missing: v_row/{KERNEL}"),
    (
      {"m": leaf(1, dtype="float64")},
      "1 slots of another type: m/.* float64, expected float32",
    ),
    (
      {"v": leaf(24, 16, dtype="bfloat16")},
      "1 slots of another type: v/.* bfloat16, expected float32",
    ),
  ],
)
def test_slots_of_something_else_are_listed(slots, message):
  with pytest.raises(UserError, match=message):
    check(slots=slots_of(**slots))
