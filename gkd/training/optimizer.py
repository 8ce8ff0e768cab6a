"""Adafactor and AdamW with T5X's schedules, built on optax.

Steps count from 0 in this run. T5X counts the absolute steps of a checkpoint,
in the factors of its schedules and in Adafactor's decay

  β₂ = 1 - (initial_step + step - step_offset + 1)^-0.8,

so that a student that T5X starts at step 1,000,000 has β₂ ≈ 0.99998. Here
`initial_step` is 0 unless it is given, and β₂ starts at 0 with empty slots.

  optimizer = AdamW(schedule=LearningRateSchedule(…), weight_decay=0.01)
"""

import dataclasses
import numbers
from typing import ClassVar
from typing import Literal
from typing import Protocol
from typing import get_args

import jax
import numpy as np
import optax

from gkd import trees
from gkd.errors import check_number
from gkd.structured_settings import setting
from gkd.training import learning_rates
from gkd.training.learning_rates import OF_CHECKPOINT
from gkd.training.learning_rates import LearningRateSchedule
from gkd.types import Params
from gkd.types import UserError

Name = Literal["adafactor", "adamw"]

# Exponent of T5X's and optax's decay.
_DECAY_RATE = 0.8
_HIGH_DECAY = 0.999  # beyond this no usual run fills empty slots


class Optimizer(Protocol):
  """An update rule with its learning rate; a frozen record.

  Attributes:
    schedule: the learning rate.
    clip_norm: clip gradients to this global norm; None for none. The reported
      gradient norm is the one before clipping.
    restore: whether the run goes on with the slots of its initial checkpoint,
      and so with its step.
  """

  schedule: LearningRateSchedule
  clip_norm: float | None
  restore: bool

  def transformation(self) -> optax.GradientTransformation:
    """The optax transformation; a pure function of the record.

    Its state has to stay finite where parameters and squares of gradients are:
    elsewhere alone the training step looks at it.
    """

  def describe(self) -> str:
    """The rule and its schedule, for the start-up print."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adafactor:
  """Adafactor as T5X has it.

  Attributes:
    schedule: the learning rate, and the absolute step that β₂ starts at.
    clip_norm: see `Optimizer`.
    multiply_by_parameter_scale: relative step sizes.
    min_dim_size_to_factor: factor arrays whose two largest axes reach this.
    step_offset: `step_offset` of T5X's Adafactor, for β₂ alone.
    restore: see `Optimizer`.
  """

  schedule: LearningRateSchedule
  clip_norm: float | None = setting("CLIP_NORM", default=None)
  multiply_by_parameter_scale: bool = True
  min_dim_size_to_factor: int = 128
  step_offset: int = setting("ADAFACTOR_STEP_OFFSET", default=0)
  restore: bool = setting("RESTORE_OPTIMIZER", default=False)

  def __post_init__(self):
    _check_clip_norm(self.clip_norm)
    check_number(
      "min_dim_size_to_factor",
      self.min_dim_size_to_factor,
      lambda x: x >= 1,
      "a whole number, 1 or more",
      numbers.Integral,
    )
    offset, schedule = self.step_offset, self.schedule
    learning_rates.check_steps(
      "ADAFACTOR_STEP_OFFSET", offset, schedule.total_steps
    )
    if starts_at_checkpoint(self):
      return  # the rest once its step is known
    if offset > schedule.begins_at:
      raise UserError(
        f"ADAFACTOR_STEP_OFFSET is {offset} but the run begins at step"
        f" {schedule.begins_at}, and β₂ is not defined before its offset; give"
        " at most INITIAL_STEP"
      )
    if self.restore and offset and offset == schedule.begins_at:
      raise UserError(
        f"RESTORE_OPTIMIZER has no effect with ADAFACTOR_STEP_OFFSET {offset}:"
        " β₂ is 0 at the first step and forgets the slots; leave one of them"
        " out"
      )

  def transformation(self) -> optax.GradientTransformation:
    """See `Optimizer`.

    Its counts are of this run, so optax's `decay_offset`, which it subtracts,
    is T5X's less the first step.
    """
    rule = optax.adafactor(
      self.schedule,
      decay_rate=_DECAY_RATE,
      decay_offset=self.step_offset - self.schedule.begins_at,
      clipping_threshold=1.0,
      multiply_by_parameter_scale=self.multiply_by_parameter_scale,
      min_dim_size_to_factor=self.min_dim_size_to_factor,
    )
    return _clipped(rule, self.clip_norm)

  def describe(self) -> str:
    """See `Optimizer`; β₂ of the first step, and what a high one does."""
    text = f"adafactor, {self.schedule.describe()}{_clip(self.clip_norm)}"
    first, offset = self.schedule.begins_at, self.step_offset
    rest = (first - offset + 1.0) ** -_DECAY_RATE  # 1 - β₂
    shown = f"1 - {rest:.1e}" if rest < 1e-5 else f"{1 - rest:.5g}"
    text += f", β₂ starts at {shown}, as T5X at step {first:,}"
    if offset:
      text += f" with step_offset {offset:,}"
    if self.restore:
      return f"{text}, with the slots of the checkpoint"
    if 1 - rest <= _HIGH_DECAY:
      return text
    return (
      f"{text}; no slots are restored, so they start empty and such a β₂ fills"
      f" them in some {1 / rest:,.0f} steps, until when updates are too large"
      f" and clipped to RMS 1: set ADAFACTOR_STEP_OFFSET to {first} to start β₂"
      " at 0"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
  """AdamW.

  Attributes:
    schedule: the learning rate.
    clip_norm: see `Optimizer`.
    weight_decay: decoupled weight decay.
    b1: decay of the first moment.
    b2: decay of the second moment.
  """

  schedule: LearningRateSchedule
  clip_norm: float | None = setting("CLIP_NORM", default=None)
  weight_decay: float = 0.0
  b1: float = 0.9
  b2: float = 0.999
  restore: ClassVar[bool] = False

  def __post_init__(self):
    _check_clip_norm(self.clip_norm)
    largest = float(np.finfo(np.float32).max)
    check_number(
      "weight_decay",
      self.weight_decay,
      lambda x: 0 <= x <= largest,
      "0 or a number above it that is finite in float32",
    )
    for name in ("b1", "b2"):
      check_number(
        name,
        getattr(self, name),
        lambda x: x >= 0 and np.float32(x) < 1,
        "a number from 0 to below 1, in float32: moments are divided by 1 - it",
      )
    first = self.schedule.initial_step
    if first and not self.schedule.uses_absolute_steps:
      raise UserError(
        f"INITIAL_STEP is {first} but has no effect with adamw and no factor of"
        " LEARNING_RATE_FACTORS that uses the step; leave it out"
      )

  def transformation(self) -> optax.GradientTransformation:
    """See `Optimizer`."""
    rule = optax.adamw(
      self.schedule, weight_decay=self.weight_decay, b1=self.b1, b2=self.b2
    )
    return _clipped(rule, self.clip_norm)

  def describe(self) -> str:
    """See `Optimizer`."""
    return f"adamw, {self.schedule.describe()}{_clip(self.clip_norm)}"


_CLASSES = {"adafactor": Adafactor, "adamw": AdamW}


def build(
  name: Name,
  *,
  schedule: LearningRateSchedule,
  clip_norm: float | None = None,
  multiply_by_parameter_scale: bool | None = None,
  min_dim_size_to_factor: int | None = None,
  step_offset: int | None = None,
  restore: bool | None = None,
  weight_decay: float | None = None,
  b1: float | None = None,
  b2: float | None = None,
) -> Optimizer:
  """The optimizer of a name, as gin files choose it; None: the default.

  Raises:
    UserError: an unknown name, or an option that the optimizer does not have.
  """
  if name not in _CLASSES:
    raise UserError(
      f"optimizer {name!r} is unknown; choose one of {get_args(Name)}"
    )
  options = {
    "multiply_by_parameter_scale": multiply_by_parameter_scale,
    "min_dim_size_to_factor": min_dim_size_to_factor,
    "step_offset": step_offset,
    "restore": restore,
    "weight_decay": weight_decay,
    "b1": b1,
    "b2": b2,
  }
  options = {key: value for key, value in options.items() if value is not None}
  owners = {
    field.name: (owner, field)
    for owner, kind in _CLASSES.items()
    for field in dataclasses.fields(kind)
  }
  own = {field.name for field in dataclasses.fields(_CLASSES[name])}
  for option in sorted(options.keys() - own):
    (owner, field), value = owners[option], options.pop(option)
    if value or field.default:  # an option that is off does no harm
      raise UserError(
        f"{field.metadata.get('macro', option)} is {value} but has no effect"
        f" with {name}; leave it out or choose {owner}"
      )
  return _CLASSES[name](schedule=schedule, clip_norm=clip_norm, **options)


def starts_at_checkpoint(optimizer: Optimizer) -> bool:
  """Whether the initial step is that of a checkpoint and not known yet."""
  initial = optimizer.schedule.initial_step
  return initial == OF_CHECKPOINT or (optimizer.restore and initial is None)


def starting_at(optimizer: Optimizer, step: int) -> Optimizer:
  """The optimizer of a run that begins at an absolute step.

  Raises:
    UserError: another one was given, or an offset is beyond it.
  """
  initial = optimizer.schedule.initial_step
  if initial not in (None, OF_CHECKPOINT, step):
    raise UserError(
      f"INITIAL_STEP is {initial} but the slots that RESTORE_OPTIMIZER takes"
      f" are of step {step}; leave INITIAL_STEP out"
    )
  schedule = dataclasses.replace(optimizer.schedule, initial_step=step)
  return dataclasses.replace(optimizer, schedule=schedule)


def _check_clip_norm(clip_norm: float | None) -> None:
  if clip_norm is not None:
    learning_rates.check_positive("clip_norm", clip_norm, ", or None")


def _clipped(
  rule: optax.GradientTransformation, clip_norm: float | None
) -> optax.GradientTransformation:
  if clip_norm is None:
    return rule

  @jax.custom_batching.custom_vmap
  def clip(gradients: Params) -> Params:
    """As `optax.clip_by_global_norm`, by a norm that does not overflow."""
    norm = trees.global_norm(gradients)
    return jax.tree.map(
      lambda x: jax.lax.select(
        norm < clip_norm, x, x / norm.astype(x.dtype) * clip_norm
      ),
      gradients,
    )

  @clip.def_vmap
  def _(axis_size: int, is_batched: list[Params], gradients: Params):
    """Mapped over layers, by the norm of all of them."""
    del axis_size
    return clip(gradients), is_batched[0]

  return optax.chain(optax.stateless(lambda g, _: clip(g)), rule)


def _clip(clip_norm: float | None) -> str:
  return f", gradient norm at most {clip_norm}" if clip_norm else ""
