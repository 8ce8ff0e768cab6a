"""Learning rates as pure functions of the step: ours, and T5X's by its words.

Ours is a peak rate with a linear warm-up and a linear cooldown, on the steps of
this run. T5X's is a product of named factors on the absolute step of the
checkpoint; those are here whose numbers need nothing but a rate and a warm-up.

  names = parse("constant * linear_warmup * rsqrt_decay")
  rate = t5x(step, names, learning_rate=1.0, warmup_steps=10_000)

Source: `create_learning_rate_scheduler` of t5x/utils.py at cc342d4.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from gkd.types import Array
from gkd.types import UserError

FACTORS = (
  "constant",
  "linear_warmup",
  "rsqrt_decay",
  "rsqrt_normalized_decay",
)
# Those that T5X has besides; they need arguments of their own.
_T5X_ALONE = ("linear_decay", "decay_every", "cosine_decay")
_USE_STEPS = frozenset(FACTORS) - {"constant"}
# T5X's `min_learning_rate`: no step is without an update.
_LOWEST = 1e-8


def linear_warmup(step: Array | int, warmup_steps: int) -> Array:
  """min(1, step / warmup_steps): 0 at step 0; 1 everywhere without warm-up.

  Args:
    step: int.
    warmup_steps: steps until 1; 0 for none.

  Returns:
    float32.
  """
  if not warmup_steps:
    return jnp.float32(1.0)
  return jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / warmup_steps)


def linear_cooldown(
  step: Array | int, total_steps: int, cooldown_steps: int
) -> Array:
  """From 1 to 0 over the last steps: clip((total - step) / cooldown, 0, 1).

  Args:
    step: int, of this run.
    total_steps: where it is 0.
    cooldown_steps: length of the window; 0 for none.

  Returns:
    float32.
  """
  if not cooldown_steps:
    return jnp.float32(1.0)
  left = (total_steps - jnp.asarray(step, jnp.float32)) / cooldown_steps
  return jnp.clip(left, 0.0, 1.0)


def t5x(
  step: Array | int,
  factors: Sequence[str],
  *,
  learning_rate: float,
  warmup_steps: int,
  step_offset: int = 0,
) -> Array:
  """T5X's product of factors, at least 1e-8 as there.

  With s = max(0, step - step_offset) and w = warmup_steps

    constant                learning_rate
    linear_warmup           min(1, s / w)
    rsqrt_decay             1 / sqrt(max(s, w))
    rsqrt_normalized_decay  sqrt(w) / sqrt(max(s, w))

  Multiplied and divided in T5X's order, so that the floats are T5X's.

  Args:
    step: int, the absolute step.
    factors: of `parse`.
    learning_rate: T5X's `base_learning_rate`.
    warmup_steps: at least 1 where a factor uses it.
    step_offset: T5X's argument of this name, an absolute step.

  Returns:
    float32.
  """
  step = jnp.maximum(0, jnp.asarray(step, jnp.int32) - step_offset)
  rate = jnp.float32(1.0)
  for name in factors:
    if name == "constant":
      rate *= learning_rate
    elif name == "linear_warmup":
      rate *= linear_warmup(step, warmup_steps)
    else:
      if name == "rsqrt_normalized_decay":
        rate *= jnp.sqrt(jnp.float32(warmup_steps))
      later = jnp.maximum(step, warmup_steps).astype(jnp.float32)
      rate /= jnp.sqrt(later)
  return jnp.maximum(rate, _LOWEST)


def parse(text: str) -> tuple[str, ...]:
  """The factors of a T5X string, `"constant * rsqrt_decay"`.

  Raises:
    UserError: a factor that is not among `FACTORS`, or no "constant", without
      which the learning rate would do nothing.
  """
  names = tuple(name.strip() for name in str(text).split("*"))
  for name in names:
    if name in FACTORS:
      continue
    whose = "is T5X's but not ours" if name in _T5X_ALONE else "is unknown"
    raise UserError(
      f"LEARNING_RATE_FACTORS {text!r}: {name!r} {whose}; multiply"
      f" {', '.join(FACTORS)}, and let the rate fall in a straight line with"
      " COOLDOWN_STEPS"
    )
  repeated = sorted({name for name in names if names.count(name) > 1})
  if repeated:
    raise UserError(
      f"LEARNING_RATE_FACTORS {text!r} has {', '.join(repeated)} more than"
      " once; give each factor once"
    )
  if "constant" not in names:
    raise UserError(
      f"LEARNING_RATE_FACTORS {text!r} has no 'constant', so LEARNING_RATE does"
      f" nothing; give 'constant * {' * '.join(names)}' and LEARNING_RATE = 1.0"
    )
  return names


def use_steps(factors: Sequence[str]) -> bool:
  """Whether any of the factors depends on step and warm-up."""
  return not _USE_STEPS.isdisjoint(factors)


def check(
  learning_rate: float,
  factors: str | None,
  *,
  total_steps: int,
  warmup_steps: int,
  cooldown_steps: int,
  step_offset: int | None = None,
) -> None:
  """Raises a UserError if a schedule is impossible or something in it idle.

  Args:
    learning_rate: the peak, or T5X's `base_learning_rate`.
    factors: T5X's string; None for the schedule of our own.
    total_steps: of this run.
    warmup_steps: of this run, or T5X's absolute ones where there are factors.
    cooldown_steps: of this run.
    step_offset: of T5X's schedule.
  """
  if not learning_rate > 0:
    raise UserError(f"LEARNING_RATE is {learning_rate}; give a number above 0")
  uses = factors is not None and use_steps(parse(factors))
  # T5X's warm-up is one of absolute steps, and may be longer than this run.
  ramp = cooldown_steps + (warmup_steps if factors is None else 0)
  if min(warmup_steps, cooldown_steps) < 0 or ramp > total_steps:
    raise UserError(
      f"WARMUP_STEPS {warmup_steps} and COOLDOWN_STEPS {cooldown_steps} do not"
      f" fit into TRAIN_STEPS {total_steps}; shorten them or train longer"
    )
  if uses and not warmup_steps:
    raise UserError(
      f"WARMUP_STEPS is 0, by which LEARNING_RATE_FACTORS {factors!r} divides;"
      " give T5X's warmup_steps, at least 1"
    )
  if factors is not None and not uses and warmup_steps:
    raise UserError(
      f"WARMUP_STEPS is {warmup_steps} but does nothing in"
      f" LEARNING_RATE_FACTORS {factors!r}; set it to 0 or multiply with"
      " linear_warmup"
    )
  if step_offset and not uses:
    raise UserError(
      f"LEARNING_RATE_STEP_OFFSET is {step_offset} but LEARNING_RATE_FACTORS"
      f" {factors!r} has no factor that uses the step; leave it out"
    )
