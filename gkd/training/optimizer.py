"""Adafactor and AdamW with T5X's schedules, built on optax.

Steps count from 0 in this run, whatever step the initial checkpoint carries.
"""

import dataclasses
from typing import Literal
from typing import get_args

import jax.numpy as jnp
import optax

from gkd.types import Array
from gkd.types import UserError

Name = Literal["adafactor", "adamw"]

# What only one of the rules has, with T5X's and optax's defaults.
_RULE_DEFAULTS = {
  "adafactor": {
    "multiply_by_parameter_scale": True,
    "min_dim_size_to_factor": 128,
  },
  "adamw": {"b1": 0.9, "b2": 0.999},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  """An update rule and its learning-rate schedule.

  The rate is `learning_rate · min(1, step / warmup_steps)`, then falls linearly
  to 0 over the last `cooldown_steps` of `total_steps` (GKD, Table A.2–A.4).

  Attributes:
    name: "adafactor" (as T5X has it) or "adamw".
    learning_rate: peak rate.
    total_steps: steps of this run; the cooldown ends there.
    warmup_steps: steps of linear warm-up from 0; 0 for none.
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
  """

  name: Name
  learning_rate: float
  total_steps: int
  warmup_steps: int = 0
  cooldown_steps: int = 0
  clip_norm: float | None = None
  weight_decay: float = 0.0
  b1: float | None = None
  b2: float | None = None
  multiply_by_parameter_scale: bool | None = None
  min_dim_size_to_factor: int | None = None

  def __post_init__(self):
    if self.name not in get_args(Name):
      raise UserError(
        f"optimizer {self.name!r} is unknown; choose one of {get_args(Name)}"
      )
    if not self.learning_rate > 0:
      raise UserError(
        f"LEARNING_RATE is {self.learning_rate}; give a number above 0"
      )
    if self.total_steps < 1:
      raise UserError(f"TRAIN_STEPS is {self.total_steps}; give at least 1")
    ramp = self.warmup_steps + self.cooldown_steps
    if min(self.warmup_steps, self.cooldown_steps) < 0 or (
      ramp > self.total_steps
    ):
      raise UserError(
        f"WARMUP_STEPS {self.warmup_steps} and COOLDOWN_STEPS"
        f" {self.cooldown_steps} do not fit into TRAIN_STEPS"
        f" {self.total_steps}; shorten them or train longer"
      )
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise UserError(
        f"clip_norm is {self.clip_norm}; give a number above 0, or None"
      )
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

  @property
  def words(self) -> str:
    """The rule and its schedule for the start-up print."""
    clip = f", gradient norm at most {self.clip_norm}" if self.clip_norm else ""
    return (
      f"{self.name}, learning rate {self.learning_rate:g}, linear warm-up over"
      f" {self.warmup_steps} steps, linear cooldown over the last"
      f" {self.cooldown_steps} of {self.total_steps} steps{clip}"
    )

  def schedule(self, step: Array | int) -> Array:
    """Learning rate of a step (int), float32."""
    step = jnp.asarray(step, jnp.float32)
    rate = jnp.float32(self.learning_rate)
    if self.warmup_steps:
      rate *= jnp.minimum(1.0, step / self.warmup_steps)
    if self.cooldown_steps:
      left = (self.total_steps - step) / self.cooldown_steps
      rate *= jnp.clip(left, 0.0, 1.0)
    return rate

  def transformation(self) -> optax.GradientTransformation:
    """The optax transformation; a pure function of the fields above."""
    options = {
      field: default if getattr(self, field) is None else getattr(self, field)
      for field, default in _RULE_DEFAULTS[self.name].items()
    }
    if self.name == "adafactor":
      rule = optax.adafactor(
        self.schedule, decay_rate=0.8, clipping_threshold=1.0, **options
      )
    else:
      rule = optax.adamw(
        self.schedule, weight_decay=self.weight_decay, **options
      )
    if self.clip_norm is None:
      return rule
    return optax.chain(optax.clip_by_global_norm(self.clip_norm), rule)
