"""T5X's slots in optax's state and back, and what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.training import t5x_adafactor_state
from gkd.types import UserError
from tests import tiny

PARAMS = {
  "encoder": {"wide": {"kernel": jnp.ones((24, 40))}},
  "table": jnp.ones((16, 8)),
  "scale": jnp.ones(24),
}


def initial(**fields):
  return tiny.adafactor(**fields).transformation().init(PARAMS)


def t5x_slots_of(min_dim):
  """As T5X makes them: see `init_param_state` of t5x/adafactor.py."""
  random = np.random.default_rng(0)
  slots = {}
  for name, shape in {
    "encoder/wide/kernel": (24, 40),
    "table": (16, 8),
    "scale": (24,),
  }.items():
    kinds = dict.fromkeys(("v_row", "v_col", "v", "m"), (1,))
    if len(shape) == 2 and min(shape) >= min_dim:
      largest, second = np.argmax(shape), np.argmin(shape)
      kinds["v_row"] = tuple(np.delete(shape, largest))
      kinds["v_col"] = tuple(np.delete(shape, second))
    else:
      kinds["v"] = shape
    for kind, size in kinds.items():
      filled = random.random(size, np.float32)
      slots[f"{kind}/{name}"] = np.zeros(1, "f") if size == (1,) else filled
  return slots


def states(**fields):
  """The state of a rule, bare and inside the chain that clips."""
  for clip_norm in (None, 1.0):
    rule = tiny.adafactor(clip_norm=clip_norm, **fields).transformation()
    yield rule.init(PARAMS)


@pytest.mark.parametrize("min_dim", [128, 16, 8])
def test_slots_go_in_and_out_bit_identical(min_dim):
  slots = t5x_slots_of(min_dim)
  kept = {name: slot.copy() for name, slot in slots.items()}
  for state in states(min_dim_size_to_factor=min_dim):
    restored = t5x_adafactor_state.restore(state, PARAMS, slots)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    again = tiny.adafactor_slots(restored)
    assert list(again) == sorted(slots)
    for name, slot in slots.items():
      assert again[name].dtype == np.float32
      np.testing.assert_array_equal(again[name], slot, err_msg=name)
  donate = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
  jax.block_until_ready(donate(restored))
  for name, slot in kept.items():
    np.testing.assert_array_equal(slots[name], slot, err_msg=name)


@pytest.mark.parametrize(
  ("made_with", "ours", "message"),
  [
    (16, 128, "to_factor between 9 and 24, .*kernel.*factor = 24"),
    (8, 16, r"between 1 and 8, but .*\(table\); set .*factor = 8$"),
    (128, 16, "factor of 25 or more, but .*encoder/wide/kernel.*factor = 25"),
  ],
)
def test_another_threshold_of_factoring_is_named(made_with, ours, message):
  state = initial(min_dim_size_to_factor=ours)
  with pytest.raises(UserError, match=message) as error:
    t5x_adafactor_state.restore(state, PARAMS, t5x_slots_of(made_with))
  assert "\n" not in str(error.value)
  number = int(str(error.value).rpartition(" ")[2])
  state = initial(min_dim_size_to_factor=number)
  t5x_adafactor_state.restore(state, PARAMS, t5x_slots_of(made_with))


def test_a_threshold_that_alone_explains_the_slots_is_named():
  """One array of 8 is whole, one of 9 is factored: 9 and no other."""
  rule = tiny.adafactor(min_dim_size_to_factor=9)
  params = {"a": jnp.ones((8, 40)), "b": jnp.ones((9, 40))}
  slots = tiny.adafactor_slots(rule.transformation().init(params))
  state = tiny.adafactor(min_dim_size_to_factor=8).transformation().init(params)
  with pytest.raises(UserError, match=r"between 9 and 9, .*to_factor = 9$"):
    t5x_adafactor_state.restore(state, params, slots)


def without(slots, name):
  return {key: slot for key, slot in slots.items() if key != name}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      lambda s: without(s, "v/scale"),
      r"student: 1 missing: v/scale \(24,\);",
    ),
    (lambda s: without(s, "m/scale"), r"1 missing: m/scale \(1,\); start"),
    (lambda s: s | {"v/bias": s["v/scale"]}, "1 left over: v/bias"),
    (
      lambda s: s | {"v/scale": np.ones(23, "f")},
      r"1 misshapen: v/scale is \(23,\) instead of \(24,\); start from a",
    ),
    (
      lambda s: s | {"v_row/encoder/wide/kernel": np.ones(40, "f")},
      r"v_row/encoder/wide/kernel is \(40,\) instead of \(24,\)",
    ),
    (
      lambda s: s | {"m/table": np.ones((16, 8), "f")},
      r"momentum \(m/table\), as T5X's Adafactor has with beta1",
    ),
    (lambda s: {}, "12 missing: m/encoder/wide/kernel .* and 8 more"),
  ],
)
def test_slots_of_another_model_are_listed(change, message):
  state = initial(min_dim_size_to_factor=16)
  with pytest.raises(UserError, match=message) as error:
    t5x_adafactor_state.restore(state, PARAMS, change(t5x_slots_of(16)))
  assert "\n" not in str(error.value)


def test_another_rule_has_no_such_slots():
  rule = tiny.adamw()
  with pytest.raises(UserError, match="no slots of Adafactor; set OPTIMIZER"):
    t5x_adafactor_state.restore(rule.transformation().init(PARAMS), {}, {})


def test_slots_that_are_not_finite_are_refused():
  slots, state = t5x_slots_of(16), initial(min_dim_size_to_factor=16)
  name = next(name for name in slots if name.startswith("v_row/"))
  slots[name] = np.full_like(slots[name], np.inf)
  with pytest.raises(UserError, match=f"are not finite: {name}; start from"):
    t5x_adafactor_state.restore(state, PARAMS, slots)
