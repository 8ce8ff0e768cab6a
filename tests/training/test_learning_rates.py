"""T5X's learning rates against its formulas in float64."""

import jax
import numpy as np
import pytest

from gkd.training import learning_rates
from gkd.training.learning_rates import LearningRateSchedule
from gkd.types import UserError

STEPS = [0, 1, 2, 9, 10, 11, 99, 9_999, 10_000, 10_001, 1_000_000, 16_777_217]


def t5x(factors, step, rate, warmup, offset=0):
  """`create_learning_rate_scheduler` of t5x/utils.py, written in float64."""
  step = max(0, step - offset)
  value = np.float64(1.0)
  for name in factors.split("*"):
    match name.strip():
      case "constant":
        value *= rate
      case "linear_warmup":
        value *= min(1.0, step / warmup)
      case "rsqrt_decay":
        value /= np.sqrt(max(step, warmup))
      case "rsqrt_normalized_decay":
        value *= np.sqrt(warmup) / np.sqrt(max(step, warmup))
  return max(value, 1e-8)


@pytest.mark.parametrize(
  ("factors", "rate", "warmup", "offset"),
  [
    ("constant", 1e-3, 0, 0),
    ("constant * linear_warmup", 1e-3, 10, 0),
    ("constant * rsqrt_decay", 1.0, 10_000, 0),  # of T5X's pretraining
    ("constant * linear_warmup * rsqrt_decay", 0.5, 1000, 0),  # its default
    ("constant*linear_warmup*rsqrt_normalized_decay", 0.02, 100, 0),
    ("rsqrt_decay * constant * linear_warmup", 1.0, 10, 1_000_000),
    ("constant * linear_warmup * rsqrt_decay", 1.0, 10, 9_990),
  ],
)
def test_factors_equal_t5x(factors, rate, warmup, offset):
  names = learning_rates.parse(factors)
  of_step = jax.jit(
    lambda step: learning_rates.t5x(
      step, names, learning_rate=rate, warmup_steps=warmup, step_offset=offset
    )
  )
  steps = [*STEPS, offset, offset + 1]
  actual = [of_step(np.int32(step)) for step in steps]
  expected = [t5x(factors, step, rate, warmup, offset) for step in steps]
  assert {value.dtype for value in actual} == {np.dtype(np.float32)}
  np.testing.assert_allclose(actual, expected, rtol=3e-7)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    *(
      (
        f"constant * {name}",
        f"'{name}' is T5X's but not ours; multiply constant, linear_warmup,"
        " rsqrt_decay, rsqrt_normalized_decay, .* COOLDOWN_STEPS",
      )
      for name in ("linear_decay", "decay_every", "cosine_decay")
    ),
    ("constant * linear_warm", "'linear_warm' is unknown; multiply constant"),
    ("", "'' is unknown"),
    ("constant * rsqrt_decay*constant", "has constant more than once; give"),
    (
      "rsqrt_decay",
      "no 'constant', so LEARNING_RATE does nothing; give 'constant"
      r" \* rsqrt_decay' and LEARNING_RATE = 1.0",
    ),
  ],
)
def test_bad_factors_are_refused(text, message):
  with pytest.raises(UserError, match=message) as error:
    learning_rates.parse(text)
  assert "\n" not in str(error.value)


def schedule(**fields):
  return LearningRateSchedule(
    **{"learning_rate": 1e-3, "total_steps": 100} | fields
  )


def test_schedule_is_warmup_then_flat_then_linear_cooldown_to_zero():
  rate = schedule(learning_rate=3e-4, warmup_steps=10, cooldown_steps=25)
  steps = np.arange(101)
  expected = (
    3e-4 * np.minimum(1, steps / 10) * np.clip((100 - steps) / 25, 0, 1)
  )
  actual = [float(rate(step)) for step in steps]
  np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-12)
  assert actual[0] == actual[100] == 0
  constant = schedule(learning_rate=3e-4)
  assert constant(0) == constant(100) == np.float32(3e-4)


FACTORS = "constant * linear_warmup * rsqrt_decay"


def test_t5x_factors_are_of_the_absolute_step_and_the_cooldown_of_this_run():
  rate = schedule(
    learning_rate=0.5,
    factors=FACTORS,
    warmup_steps=1000,  # longer than the run, which T5X's may be
    initial_step=950,
    step_offset=20,
    cooldown_steps=25,
  )
  steps = np.arange(101)
  absolute = steps + 950 - 20
  expected = 0.5 * np.minimum(1, absolute / 1000)
  expected /= np.sqrt(np.maximum(absolute, 1000))
  expected *= np.clip((100 - steps) / 25, 0, 1)
  actual = [rate(step) for step in steps]
  np.testing.assert_allclose(actual, expected, rtol=1e-6)
  assert "from step 930" in rate.describe()


@pytest.mark.parametrize(
  ("fields", "end"),
  [
    ({"initial_step": 5000}, 10),
    ({"initial_step": 95, "step_offset": 90, "factors": FACTORS}, 5),
    ({"initial_step": 5000, "factors": FACTORS}, 0),
    ({"factors": "constant * rsqrt_decay"}, 0),
  ],
)
def test_the_warmup_ends_at_a_step_of_this_run(fields, end):
  assert schedule(warmup_steps=10, **fields).warmup_end == end


def test_without_factors_the_warmup_is_of_this_run():
  rate = schedule(learning_rate=1.0, warmup_steps=10, initial_step=1_000_000)
  np.testing.assert_allclose(rate(5), 0.5)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"learning_rate": 0.0}, "LEARNING_RATE is 0.0; expected a number above 0"),
    ({"learning_rate": float("nan")}, "LEARNING_RATE is nan; expected"),
    ({"learning_rate": float("inf")}, "LEARNING_RATE is inf; expected"),
    # Infinity and 0 in float32.
    ({"learning_rate": 1e39}, r"LEARNING_RATE is 1e\+39; expected"),
    ({"learning_rate": 1e-46}, "LEARNING_RATE is 1e-46; expected"),
    ({"total_steps": 0}, "TRAIN_STEPS is 0; give 1 to 2,147,"),
    ({"warmup_steps": 80, "cooldown_steps": 30}, "do not fit into TRAIN_STEPS"),
    ({"factors": "constant * cosine_decay"}, "'cosine_decay' is"),
    ({"factors": FACTORS}, "WARMUP_STEPS is 0, by which"),
    (
      {"factors": "constant", "warmup_steps": 5},
      "WARMUP_STEPS is 5 but does nothing in",
    ),
    (
      {"factors": "constant", "step_offset": 5},
      "LEARNING_RATE_STEP_OFFSET is 5 but LEARNING_RATE_FACTORS 'constant' has",
    ),
    (
      {"warmup_steps": 3, "step_offset": 5},
      "LEARNING_RATE_STEP_OFFSET is 5 but LEARNING_RATE_FACTORS None has",
    ),
    (
      {"initial_step": -1},
      "INITIAL_STEP is -1; give .* 2,147,483,547, or 'check",
    ),
    ({"initial_step": 1e6}, "INITIAL_STEP is 1000000.0; give a whole number"),
    ({"initial_step": 2**31 - 100}, "INITIAL_STEP is 2147483548; give a whole"),
    ({"initial_step": "latest"}, "INITIAL_STEP is 'latest'; give a whole"),
  ],
)
def test_impossible_schedules_are_refused_in_one_line(fields, message):
  with pytest.raises(UserError, match=message) as error:
    schedule(**fields)
  assert "\n" not in str(error.value)
