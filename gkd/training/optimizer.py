"""Adafactor and AdamW with T5X's schedules, built on optax.

Steps count from 0 in this run. T5X counts the absolute steps of a checkpoint,
in the factors of its schedules and in Adafactor's decay

  β₂ = 1 - (first_step + step - decay_step_offset + 1)^-0.8,

so that a student that T5X starts at step 1,000,000 has β₂ ≈ 0.99998. Here
`first_step` is 0 unless it is given, and β₂ starts at 0 with empty slots.
"""

import dataclasses
from typing import Literal
from typing import get_args

import jax.numpy as jnp
import optax

from gkd.structured_settings import setting
from gkd.training import learning_rates
from gkd.types import Array
from gkd.types import UserError

Name = Literal["adafactor", "adamw"]
# `first_step` of the checkpoint that the run starts from.
OF_CHECKPOINT = "checkpoint"

# What only one of the rules has, with T5X's and optax's defaults.
_RULE_DEFAULTS = {
  "adafactor": {
    "multiply_by_parameter_scale": True,
    "min_dim_size_to_factor": 128,
  },
  "adamw": {"b1": 0.9, "b2": 0.999},
}


# Exponent of T5X's and optax's decay.
_DECAY_RATE = 0.8
_HIGH_DECAY = 0.999  # beyond this no usual run fills empty slots
_STEP_LIMIT = 2**31  # steps are int32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """An update rule and its learning-rate schedule.

  The rate is `learning_rate · min(1, step / warmup_steps)`, then falls linearly
  to 0 over the last `cooldown_steps` of `total_steps` (GKD, Table A.2–A.4).
  With `learning_rate_factors` T5X's factors of the absolute step replace the
  first term.

  Attributes:
    name: "adafactor" (as T5X has it) or "adamw".
    learning_rate: peak rate; T5X's `base_learning_rate`.
    total_steps: steps of this run; the cooldown ends there.
    warmup_steps: steps of linear warm-up from 0; 0 for none. T5X's argument of
      this name where there are factors.
    cooldown_steps: length of the linear cooldown window; 0 for none.
    clip_norm: clip gradients to this global norm; None for none. The reported
      gradient norm is the one before clipping.
    weight_decay: decoupled weight decay; AdamW only.
    b1: decay of the first moment, 0.9 if None; AdamW only.
    b2: decay of the second moment, 0.999 if None; AdamW only.
    multiply_by_parameter_scale: relative step sizes, True if None; Adafactor
      only.
    min_dim_size_to_factor: factor arrays whose two largest axes reach this, 128
      if None; Adafactor only.
    learning_rate_factors: T5X's, "constant * linear_warmup * rsqrt_decay"; see
      `learning_rates.FACTORS`. None for the rate above.
    rate_step_offset: `step_offset` of T5X's schedule; 0 if None.
    first_step: absolute step of the first step of this run, for the factors and
      for β₂; 0 if None. "checkpoint" is that of the initial checkpoint, to be
      put in by `beginning_at`.
    decay_step_offset: `step_offset` of T5X's Adafactor, for β₂ alone; 0 if
      None.
    restore: whether the run goes on with the slots of its initial checkpoint,
      and so with its step; Adafactor only.
  """

  name: Name
  learning_rate: float = setting("LEARNING_RATE")
  total_steps: int
  warmup_steps: int = 0
  cooldown_steps: int = 0
  clip_norm: float | None = None
  weight_decay: float = 0.0
  b1: float | None = None
  b2: float | None = None
  multiply_by_parameter_scale: bool | None = None
  min_dim_size_to_factor: int | None = None
  learning_rate_factors: str | None = None
  rate_step_offset: int | None = None
  first_step: int | Literal["checkpoint"] | None = None
  decay_step_offset: int | None = None
  restore: bool | None = None

  def __post_init__(self):
    if self.name not in get_args(Name):
      raise UserError(
        f"optimizer {self.name!r} is unknown; choose one of {get_args(Name)}"
      )
    if self.total_steps < 1:
      raise UserError(f"TRAIN_STEPS is {self.total_steps}; give at least 1")
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise UserError(
        f"clip_norm is {self.clip_norm}; give a number above 0, or None"
      )
    learning_rates.check(
      self.learning_rate,
      self.learning_rate_factors,
      total_steps=self.total_steps,
      warmup_steps=self.warmup_steps,
      cooldown_steps=self.cooldown_steps,
      step_offset=self.rate_step_offset,
    )
    self._check_rule()
    self._check_steps()

  @property
  def of_checkpoint(self) -> bool:
    """Whether the first step is that of a checkpoint and is not known yet."""
    return self.first_step == OF_CHECKPOINT or bool(
      self.restore and self.first_step is None
    )

  def beginning_at(self, step: int) -> "Optimizer":
    """This one with an absolute first step.

    Raises:
      UserError: another one was given, or an offset is beyond it.
    """
    given = self.first_step
    if given not in (None, OF_CHECKPOINT, step):
      raise UserError(
        f"INITIAL_STEP is {given} but the slots that RESTORE_OPTIMIZER takes"
        f" are of step {step}; leave INITIAL_STEP out"
      )
    return dataclasses.replace(self, first_step=step)

  @property
  def begins_at(self) -> int:
    """The absolute step of this run's step 0."""
    assert not self.of_checkpoint, "`beginning_at` comes first"
    return self.first_step or 0

  def describe(self) -> str:
    """The rule and its schedule for the start-up print."""
    clip = f", gradient norm at most {self.clip_norm}" if self.clip_norm else ""
    if self.learning_rate_factors is None:
      rise = f"linear warm-up over {self.warmup_steps} steps"
    else:
      rise = f"T5X's {self.learning_rate_factors!r}"
      if learning_rates.use_steps(self._factors):
        rise += (
          f" with warmup_steps {self.warmup_steps:,} from step"
          f" {self.begins_at - (self.rate_step_offset or 0):,}"
        )
    decay = "" if self.name != "adafactor" else f", {self._decay_words}"
    return (
      f"{self.name}, learning rate {self.learning_rate:g}, {rise}, linear"
      f" cooldown over the last {self.cooldown_steps} of {self.total_steps}"
      f" steps{clip}{decay}"
    )

  def schedule(self, step: Array | int) -> Array:
    """Learning rate of a step (int) of this run, float32."""
    if self.learning_rate_factors is None:
      rate = jnp.float32(self.learning_rate)
      rate *= learning_rates.linear_warmup(step, self.warmup_steps)
    else:
      rate = learning_rates.t5x(
        self.begins_at + jnp.asarray(step, jnp.int32),
        self._factors,
        learning_rate=self.learning_rate,
        warmup_steps=self.warmup_steps,
        step_offset=self.rate_step_offset or 0,
      )
    return rate * learning_rates.linear_cooldown(
      step, self.total_steps, self.cooldown_steps
    )

  def transformation(self) -> optax.GradientTransformation:
    """The optax transformation; a pure function of the fields above.

    Its counts are of this run, so optax's `decay_offset`, which it subtracts,
    is T5X's less the first step.
    """
    options = {
      field: default if getattr(self, field) is None else getattr(self, field)
      for field, default in _RULE_DEFAULTS[self.name].items()
    }
    if self.name == "adafactor":
      rule = optax.adafactor(
        self.schedule,
        decay_rate=_DECAY_RATE,
        decay_offset=(self.decay_step_offset or 0) - self.begins_at,
        clipping_threshold=1.0,
        **options,
      )
    else:
      rule = optax.adamw(
        self.schedule, weight_decay=self.weight_decay, **options
      )
    if self.clip_norm is None:
      return rule
    return optax.chain(optax.clip_by_global_norm(self.clip_norm), rule)

  @property
  def _factors(self) -> tuple[str, ...]:
    """Those of T5X, none for the rate of our own."""
    given = self.learning_rate_factors
    return () if given is None else learning_rates.parse(given)

  @property
  def _decay_words(self) -> str:
    """β₂ of the first step, and what a high one does to empty slots."""
    first, offset = self.begins_at, self.decay_step_offset or 0
    rest = (first - offset + 1.0) ** -_DECAY_RATE  # 1 - β₂
    shown = f"1 - {rest:.1e}" if rest < 1e-5 else f"{1 - rest:.5g}"
    words = f"β₂ starts at {shown}, as T5X at step {first:,}"
    if offset:
      words += f" with step_offset {offset:,}"
    if self.restore:
      return f"{words}, with the slots of the checkpoint"
    if 1 - rest <= _HIGH_DECAY:
      return words
    return (
      f"{words}; no slots are restored, so they start empty and such a β₂ fills"
      f" them in some {1 / rest:,.0f} steps, until when updates are too large"
      f" and clipped to RMS 1: set ADAFACTOR_STEP_OFFSET to {first} to start β₂"
      " at 0"
    )

  def _check_rule(self) -> None:
    """What only one of the rules has."""
    if self.weight_decay and self.name != "adamw":
      raise UserError(
        f"weight_decay {self.weight_decay} has no effect with {self.name};"
        " set it to 0 or choose adamw"
      )
    for rule, fields in _RULE_DEFAULTS.items():
      for field in fields:
        value = getattr(self, field)
        if value is not None and rule != self.name:
          raise UserError(
            f"{field} is {value} but has no effect with {self.name}; leave it"
            f" out or choose {rule}"
          )
    only_here = {
      "ADAFACTOR_STEP_OFFSET": self.decay_step_offset,
      "RESTORE_OPTIMIZER": self.restore,
    }
    for macro, value in only_here.items():
      if value and self.name != "adafactor":
        raise UserError(
          f"{macro} is {value} but has no effect with {self.name}; leave it out"
          " or choose adafactor"
        )

  def _check_steps(self) -> None:
    """The absolute steps."""
    counts = {
      "INITIAL_STEP": self.first_step,
      "ADAFACTOR_STEP_OFFSET": self.decay_step_offset,
      "LEARNING_RATE_STEP_OFFSET": self.rate_step_offset,
    }
    for macro, value in counts.items():
      if value is None or (macro, value) == ("INITIAL_STEP", OF_CHECKPOINT):
        continue
      limit = _STEP_LIMIT - self.total_steps
      if type(value) is not int or not 0 <= value < limit:
        more = ", or 'checkpoint'" if macro == "INITIAL_STEP" else ""
        raise UserError(
          f"{macro} is {value!r}; give a whole number of steps from 0 to"
          f" {limit - 1:,}{more}"
        )
    uses = learning_rates.use_steps(self._factors)
    if self.first_step and self.name != "adafactor" and not uses:
      raise UserError(
        f"INITIAL_STEP is {self.first_step} but has no effect with {self.name}"
        " and no factor of LEARNING_RATE_FACTORS that uses the step; leave it"
        " out"
      )
    if self.of_checkpoint:
      return  # the rest once it is known
    offset = self.decay_step_offset or 0
    if offset > self.begins_at:
      raise UserError(
        f"ADAFACTOR_STEP_OFFSET is {offset} but the run begins at step"
        f" {self.begins_at}, and β₂ is not defined before its offset; give at"
        " most INITIAL_STEP"
      )
    if self.restore and offset and offset == self.begins_at:
      raise UserError(
        f"RESTORE_OPTIMIZER has no effect with ADAFACTOR_STEP_OFFSET {offset}:"
        " β₂ is 0 at the first step and forgets the slots; leave one of them"
        " out"
      )
