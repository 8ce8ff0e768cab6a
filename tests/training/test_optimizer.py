import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd.training.optimizer import Adafactor
from gkd.training.optimizer import AdamW
from gkd.training.optimizer import build
from gkd.training.optimizer import starting_at
from gkd.training.optimizer import starts_at_checkpoint
from gkd.types import UserError
from tests import tiny

adafactor = functools.partial(tiny.adafactor, learning_rate=1.0, total_steps=10)


@pytest.mark.parametrize(
  ("first", "offset"), [(0, 0), (10, 0), (10, 4), (10, 10), (1_000_000, 0)]
)
def test_decay_is_t5x_of_the_absolute_step(first, offset):
  """Slots after two steps of gradients 1 and 2, by the formula in float64."""
  rule = adafactor(initial_step=first, step_offset=offset).transformation()
  params = {"a": jnp.ones(3)}
  state = rule.init(params)
  value = 0.0
  for step, gradient in enumerate([1.0, 2.0]):
    _, state = rule.update({"a": jnp.full(3, gradient)}, state, params)
    decay = 1 - (first + step - offset + 1.0) ** -0.8
    value = decay * value + (1 - decay) * (gradient**2 + 1e-30)
  # T5X's too: 1 - β₂ of step 1,000,000 is 1.6e-5, a difference of float32s
  # near 1 that are 6e-8 apart.
  rtol = 4e-3 if first > 1000 else 1e-6
  np.testing.assert_allclose(state[0].v["a"], value, rtol=rtol)


@pytest.mark.parametrize(
  "step", [0, 1, 10, 1_000_000, 1_198_000, 16_777_215, 2**31 - 20]
)
def test_float32_decay_is_the_float64_one_to_a_rounding(step):
  rule = adafactor(initial_step=step).transformation()
  state = rule.init({"a": jnp.ones(1)})
  # v' = β₂ v for a gradient of 0.
  state = (state[0]._replace(v={"a": jnp.ones(1)}), *state[1:])
  _, state = rule.update({"a": jnp.zeros(1)}, state, {"a": jnp.ones(1)})
  expected = 1 - np.float64(step + 1) ** -0.8
  np.testing.assert_allclose(state[0].v["a"][0], expected, rtol=0, atol=9e-8)


def test_words_say_what_the_decay_is_at_first():
  words = adafactor().describe()
  assert words.endswith("β₂ starts at 0, as T5X at step 0")
  words = adafactor(initial_step=10).describe()
  assert words.endswith("β₂ starts at 0.85315, as T5X at step 10")
  words = adafactor(initial_step=1_000_000).describe()
  assert "β₂ starts at 0.99998, as T5X at step 1,000,000; no slots" in words
  assert "fills them in some 63,096 steps" in words
  assert "set ADAFACTOR_STEP_OFFSET to 1000000 to start β₂ at 0" in words
  words = adafactor(initial_step=1_000_000, step_offset=1_000_000).describe()
  assert words.endswith("at step 1,000,000 with step_offset 1,000,000")
  words = starting_at(adafactor(restore=True), 1_000_000).describe()
  assert words.endswith("1,000,000, with the slots of the checkpoint")
  assert (
    "β₂ starts at 1 - 2.5e-06," in adafactor(initial_step=10_000_000).describe()
  )


def test_updates_are_clipped_while_a_high_decay_fills_empty_slots():
  """What the words warn of: a gradient a tenth as long, no shorter update."""
  sizes = {}
  for first in (0, 1_000_000):
    rule = adafactor(initial_step=first).transformation()
    params = {"a": jnp.ones(4)}
    state = rule.init(params)
    for gradient in [1.0] * 50 + [0.1]:
      updates, state = rule.update({"a": jnp.full(4, gradient)}, state, params)
    sizes[first] = float(jnp.abs(updates["a"]).max())
  assert sizes[0] < 0.2
  assert sizes[1_000_000] == pytest.approx(1.0, rel=1e-5)


def test_the_step_of_a_checkpoint_is_put_in():
  rule = adafactor(initial_step="checkpoint")
  assert starts_at_checkpoint(rule)
  assert starts_at_checkpoint(adafactor(restore=True))
  assert not starts_at_checkpoint(adafactor(restore=True, initial_step=10))
  assert starting_at(rule, 10) == adafactor(initial_step=10)
  with pytest.raises(
    UserError, match=r"INITIAL_STEP is 5 but .* are of step 10"
  ):
    starting_at(adafactor(restore=True, initial_step=5), 10)
  with pytest.raises(UserError, match="OFFSET is 11 but the run begins at"):
    starting_at(adafactor(restore=True, step_offset=11), 10)
  with pytest.raises(UserError, match="no effect with ADAFACTOR_STEP_OFFSET 7"):
    starting_at(adafactor(restore=True, step_offset=7), 7)


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("sgd", {}, "'sgd' is unknown; choose one of"),
    ("adafactor", {"weight_decay": 0.1}, "weight_decay is 0.1 but has no effe"),
    ("adafactor", {"b1": 0.9}, "b1 is 0.9 but has no effect with adafactor;"),
    ("adafactor", {"b2": 0.5}, "b2 is 0.5 .* leave it out or choose adamw"),
    (
      "adamw",
      {"multiply_by_parameter_scale": False},
      "multiply_by_parameter_scale is False but has no effect with adamw",
    ),
    ("adamw", {"min_dim_size_to_factor": 128}, "_to_factor is 128 but has no"),
    ("adamw", {"step_offset": 5}, "ADAFACTOR_STEP_OFFSET is 5 but has no ef"),
    ("adamw", {"restore": True}, "RESTORE_OPTIMIZER is True but has no effect"),
  ],
)
def test_an_option_of_another_rule_is_refused(name, fields, message):
  schedule = tiny.adamw().schedule
  with pytest.raises(UserError, match=message) as error:
    build(name, schedule=schedule, **fields)
  assert "\n" not in str(error.value)


def test_options_that_are_off_and_not_given_are_ignored():
  schedule = tiny.adamw().schedule
  off = {"restore": False, "step_offset": 0, "b1": None}
  assert build("adamw", schedule=schedule, **off) == AdamW(schedule=schedule)
  factored = Adafactor(schedule=schedule, min_dim_size_to_factor=8)
  assert factored == build(
    "adafactor", schedule=schedule, min_dim_size_to_factor=8, weight_decay=0.0
  )


@pytest.mark.parametrize(
  ("make", "fields", "message"),
  [
    (tiny.adamw, {"clip_norm": -1.0}, "clip_norm is -1.0"),
    (tiny.adafactor, {"clip_norm": 0.0}, "clip_norm is 0.0; .*, or None"),
    (tiny.adamw, {"clip_norm": math.inf}, "clip_norm is inf; expected"),
    (tiny.adamw, {"clip_norm": 1e-46}, "clip_norm is 1e-46; expected"),
    (tiny.adafactor, {"min_dim_size_to_factor": 0}, "to_factor is 0; expected"),
    (tiny.adamw, {"weight_decay": -0.1}, "weight_decay is -0.1; expected 0"),
    (tiny.adamw, {"weight_decay": 1e39}, r"weight_decay is 1e\+39; expected 0"),
    (tiny.adamw, {"b1": -0.1}, "b1 is -0.1; expected a number from 0 to"),
    (tiny.adamw, {"b2": 1.0}, "b2 is 1.0; expected a number from 0 to below 1"),
    # 1 in float32.
    (tiny.adamw, {"b2": 0.99999999}, "b2 is 0.99999999; expected"),
    (tiny.adamw, {"b2": math.nan}, "b2 is nan; expected"),
    (tiny.adamw, {"initial_step": 5}, "INITIAL_STEP is 5 but has no effect"),
    (adafactor, {"step_offset": "checkpoint"}, "ADAFACTOR_STEP_OFFSET is 'ch"),
    (adafactor, {"step_offset": 5}, "OFFSET is 5 but the run begins at step 0"),
  ],
)
def test_bad_settings_are_refused_in_one_line(make, fields, message):
  with pytest.raises(UserError, match=message) as error:
    make(**fields)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_clipping_of_ordinary_gradients_is_optax_s_to_the_bit(limit):
  ours = tiny.adamw(clip_norm=limit).transformation()
  theirs = optax.chain(
    optax.clip_by_global_norm(limit), tiny.adamw().transformation()
  )
  draws = np.random.default_rng(0).normal(size=(2, 30))
  params = {n: jnp.float32(x) for n, x in zip("ab", draws, strict=True)}
  tiny.assert_identical(ours.init(params), theirs.init(params))
  outcomes = [
    jax.jit(rule.update)(params, rule.init(params), params)
    for rule in (ours, theirs)
  ]
  tiny.assert_identical(*outcomes)


def test_words_say_each_setting_once():
  words = tiny.adamw(clip_norm=0.5).describe()
  assert words.count("0.5") == 1
  assert words.count("norm") == 1


@pytest.mark.parametrize("momenta", [{}, {"b1": 0.8, "b2": 0.95}])
def test_adamw_with_clipping_equals_numpy(momenta):
  """Loshchilov & Hutter, arXiv:1711.05101, Algorithm 2, in float64."""
  optimizer = tiny.adamw(
    learning_rate=0.1,
    total_steps=8,
    warmup_steps=2,
    cooldown_steps=4,
    clip_norm=2.0,
    weight_decay=0.2,
    **momenta,
  )
  b1, b2 = momenta.get("b1", 0.9), momenta.get("b2", 0.999)
  random = np.random.default_rng(0)
  params = {"a": random.normal(size=(3, 4)), "b": random.normal(size=5)}
  rule = optimizer.transformation()
  ours = jax.tree.map(jnp.float32, params)
  state = rule.init(ours)
  first = {name: np.zeros_like(x) for name, x in params.items()}
  second = {name: np.zeros_like(x) for name, x in params.items()}
  norms = []
  for step in range(8):
    scale = 0.1 if step % 2 else 3.0  # some below the limit, some above
    gradients = {
      name: scale * random.normal(size=x.shape) for name, x in params.items()
    }
    updates, state = rule.update(
      jax.tree.map(jnp.float32, gradients), state, ours
    )
    ours = optax.apply_updates(ours, updates)

    norm = np.sqrt(sum(np.sum(g**2) for g in gradients.values()))
    norms.append(norm)
    rate = 0.1 * min(1, step / 2) * min(1, (8 - step) / 4)
    for name, gradient in gradients.items():
      gradient = gradient * min(1, 2.0 / norm)
      first[name] = b1 * first[name] + (1 - b1) * gradient
      second[name] = b2 * second[name] + (1 - b2) * gradient**2
      mean = first[name] / (1 - b1 ** (step + 1))
      square = second[name] / (1 - b2 ** (step + 1))
      direction = mean / (np.sqrt(square) + 1e-8) + 0.2 * params[name]
      params[name] = params[name] - rate * direction
  assert min(norms) < 2.0 < max(norms)
  for name, expected in params.items():
    np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=2e-6)
