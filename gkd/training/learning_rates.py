"""Learning rates as functions of the step: ours, and T5X's from its string.

Ours is a peak rate with a linear warm-up and a linear cooldown, on the steps of
this run. T5X's is a product of named factors on the absolute step of the
checkpoint; those are here whose numbers need nothing but a rate and a warm-up.

  schedule = LearningRateSchedule(learning_rate=1e-3, total_steps=1000)
  rate = schedule(step)

Source: `create_learning_rate_scheduler` of t5x/utils.py at cc342d4.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from gkd.errors import check_number
from gkd.structured_settings import setting
from gkd.types import Array
from gkd.types import UserError

FACTORS = ("constant", "linear_warmup", "rsqrt_decay", "rsqrt_normalized_decay")
# `initial_step` of the checkpoint that the run starts from.
OF_CHECKPOINT = "checkpoint"
# Those that T5X has besides; they need arguments of their own.
_T5X_ALONE = ("linear_decay", "decay_every", "cosine_decay")
# T5X's `min_learning_rate`: no step is without an update.
_LOWEST = 1e-8
_STEP_LIMIT = 2**31  # steps are int32


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearningRateSchedule:
  """learning_rate · min(1, step / warmup_steps), with a linear cooldown to 0.

  The cooldown is over the last `cooldown_steps` of `total_steps` (GKD, Tables
  A.2–A.4). With `factors` T5X's product of the absolute step replaces the rest.

  Attributes:
    learning_rate: peak rate; T5X's `base_learning_rate`.
    total_steps: steps of this run; the cooldown ends there.
    warmup_steps: steps of linear warm-up from 0; 0 for none. T5X's argument of
      this name where there are factors.
    cooldown_steps: length of the linear cooldown window; 0 for none.
    factors: T5X's, "constant * linear_warmup * rsqrt_decay", see `FACTORS`.
    step_offset: `step_offset` of T5X's schedule.
    initial_step: absolute step of the first step of this run, for the factors
      and for Adafactor's β₂; None for 0, or for that of the restored slots.
      "checkpoint" is that of the initial checkpoint.
  """

  learning_rate: float = setting("LEARNING_RATE")
  total_steps: int
  warmup_steps: int = setting("WARMUP_STEPS", default=0)
  cooldown_steps: int = setting("COOLDOWN_STEPS", default=0)
  factors: str | None = setting("LEARNING_RATE_FACTORS", default=None)
  step_offset: int = setting("LEARNING_RATE_STEP_OFFSET", default=0)
  initial_step: int | Literal["checkpoint"] | None = setting(
    "INITIAL_STEP", default=None
  )

  def __post_init__(self):
    total = self.total_steps
    warmup, cooldown = self.warmup_steps, self.cooldown_steps
    if not 1 <= total < _STEP_LIMIT:
      raise UserError(f"TRAIN_STEPS is {total}; give 1 to {_STEP_LIMIT - 1:,}")
    check_positive("LEARNING_RATE", self.learning_rate)
    # T5X's warm-up is one of absolute steps, and may be longer than this run.
    ramp = cooldown + (warmup if self.factors is None else 0)
    if min(warmup, cooldown) < 0 or ramp > total:
      raise UserError(
        f"WARMUP_STEPS {warmup} and COOLDOWN_STEPS {cooldown} do not fit into"
        f" TRAIN_STEPS {total}; shorten them or train longer"
      )
    self._check_factors()
    check_steps("LEARNING_RATE_STEP_OFFSET", self.step_offset, total)
    if self.initial_step not in (None, OF_CHECKPOINT):
      check_steps("INITIAL_STEP", self.initial_step, total)

  def __call__(self, step: Array | int) -> Array:
    """Learning rate of a step (int) of this run, float32."""
    if self.factors is None:
      rate = jnp.float32(self.learning_rate)
      rate *= linear_warmup(step, self.warmup_steps)
    else:
      rate = t5x(
        self.begins_at + jnp.asarray(step, jnp.int32),
        parse(self.factors),
        learning_rate=self.learning_rate,
        warmup_steps=self.warmup_steps,
        step_offset=self.step_offset,
      )
    return rate * linear_cooldown(step, self.total_steps, self.cooldown_steps)

  @property
  def begins_at(self) -> int:
    """The absolute step of this run's step 0."""
    assert self.initial_step != OF_CHECKPOINT, "not read from the checkpoint"
    return self.initial_step or 0

  @property
  def warmup_end(self) -> int:
    """Step of this run from which on its linear warm-up is over."""
    if self.factors is None:
      return self.warmup_steps
    if "linear_warmup" not in parse(self.factors):
      return 0
    return max(0, self.step_offset + self.warmup_steps - self.begins_at)

  @property
  def uses_absolute_steps(self) -> bool:
    """Whether a factor depends on the absolute step and the warm-up."""
    return self.factors is not None and parse(self.factors) != ("constant",)

  def describe(self) -> str:
    """The rate in words, for the start-up print."""
    if self.factors is None:
      rise = f"linear warm-up over {self.warmup_steps} steps"
    else:
      rise = f"T5X's {self.factors!r}"
      if self.uses_absolute_steps:
        rise += (
          f" with warmup_steps {self.warmup_steps:,} from step"
          f" {self.begins_at - self.step_offset:,}"
        )
    return (
      f"learning rate {self.learning_rate:g}, {rise}, linear cooldown over the"
      f" last {self.cooldown_steps} of {self.total_steps} steps"
    )

  def _check_factors(self) -> None:
    """Refuses what divides by 0, and what does nothing."""
    factors, uses = self.factors, self.uses_absolute_steps
    if uses and not self.warmup_steps:
      raise UserError(
        f"WARMUP_STEPS is 0, by which LEARNING_RATE_FACTORS {factors!r}"
        " divides; give T5X's warmup_steps, at least 1"
      )
    if factors is not None and not uses and self.warmup_steps:
      raise UserError(
        f"WARMUP_STEPS is {self.warmup_steps} but does nothing in"
        f" LEARNING_RATE_FACTORS {factors!r}; set it to 0 or multiply with"
        " linear_warmup"
      )
    if self.step_offset and not uses:
      raise UserError(
        f"LEARNING_RATE_STEP_OFFSET is {self.step_offset} but"
        f" LEARNING_RATE_FACTORS {factors!r} has no factor that uses the step;"
        " leave it out"
      )


def check_positive(name: str, value: float, more: str = "") -> None:
  """Raises unless a value is above 0, and finite, as a float32 too.

  A smaller one would be 0 in the update, a larger one infinite.
  """
  limits = np.finfo(np.float32)
  smallest, largest = float(limits.tiny), float(limits.max)
  check_number(
    name,
    value,
    lambda x: smallest <= x <= largest,
    f"a number above 0, {smallest:.2g} to {largest:.2g}{more}",
  )


def check_steps(macro: str, value: int, total_steps: int) -> None:
  """Raises unless a value is a number of steps that stays an int32."""
  limit = _STEP_LIMIT - total_steps
  if type(value) is not int or not 0 <= value < limit:
    more = ", or 'checkpoint'" if macro == "INITIAL_STEP" else ""
    raise UserError(
      f"{macro} is {value!r}; give a whole number of steps from 0 to"
      f" {limit - 1:,}{more}"
    )


def linear_warmup(step: Array | int, warmup_steps: int) -> Array:
  """float32 min(1, step / warmup_steps); 1 where there is no warm-up."""
  if not warmup_steps:
    return jnp.float32(1.0)
  return jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / warmup_steps)


def linear_cooldown(
  step: Array | int, total_steps: int, cooldown_steps: int
) -> Array:
  """float32 clip((total - step) / cooldown, 0, 1); 1 without a cooldown."""
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
      rate /= jnp.sqrt(jnp.maximum(step, warmup_steps).astype(jnp.float32))
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
