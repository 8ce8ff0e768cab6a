"""λ, the fraction of data that the student makes, as a function of the step.

A schedule is a small frozen record. One of your own needs `minimum`, `maximum`,
`describe` and a call from step to λ, a pure function of the step. Where it
has an `end_step` that is TRAIN_STEPS, a run that goes on may move both.
"""

from collections.abc import Sequence
import dataclasses
from typing import Protocol

from gkd.errors import check_number
from gkd.types import UserError


class Schedule(Protocol):
  """λ as a function of the step of this run, a pure one."""

  minimum: float
  maximum: float

  def __call__(self, step: int) -> float:
    """λ at a step."""

  def describe(self) -> str:
    """λ in a few words, for the start-up print."""


@dataclasses.dataclass(frozen=True)
class Constant:
  """The same λ at every step."""

  value: float

  def __post_init__(self):
    check_fraction("student fraction", self.value)

  def __call__(self, step: int) -> float:
    return float(self.value)

  @property
  def minimum(self) -> float:
    return float(self.value)

  maximum = minimum

  def describe(self) -> str:
    return f"{self.value:g}"


@dataclasses.dataclass(frozen=True)
class Linear:
  """From `start` to `end` in a straight line between two steps."""

  start: float
  end: float
  begin_step: int
  end_step: int

  def __post_init__(self):
    check_fraction("start of schedules.Linear", self.start)
    check_fraction("end of schedules.Linear", self.end)
    if not 0 <= self.begin_step < self.end_step:
      raise UserError(
        f"schedules.Linear goes from step {self.begin_step} to"
        f" {self.end_step}; expected 0 <= begin_step < end_step"
      )

  def __call__(self, step: int) -> float:
    share = (step - self.begin_step) / (self.end_step - self.begin_step)
    share = min(max(share, 0.0), 1.0)
    # Not start + share·(end − start): both ends must be exact.
    return float((1.0 - share) * self.start + share * self.end)

  @property
  def minimum(self) -> float:
    return float(min(self.start, self.end))

  @property
  def maximum(self) -> float:
    return float(max(self.start, self.end))

  def describe(self) -> str:
    return (
      f"{self.start:g} → {self.end:g} (steps {self.begin_step}–{self.end_step})"
    )


@dataclasses.dataclass(frozen=True)
class Adaptive:
  """λ that rises when a validation loss stops falling (DistiLLM, 2402.03898).

  At each evaluation that is not below the lowest one before by more than
  `tolerance`. (The authors' code compares with the loss at the last rise, the
  paper with the evaluation before.) `adaptive_fraction` follows it.

  Attributes:
    metric: what falls, such as 'eval/gsm8k/forward_kl_per_token'; "" for the
      first such one.
    start: λ before the first rise.
    increment: of λ at each rise, up to 1.
    tolerance: by how much an evaluation has to be lower, in its unit.
  """

  metric: str = ""
  start: float = 0.0
  increment: float = 0.1
  tolerance: float = 0.0

  def __post_init__(self):
    check_fraction("start of the student fraction", self.start)
    check_fraction("increment of the student fraction", self.increment)
    check_number(
      "tolerance of the student fraction",
      self.tolerance,
      lambda x: 0 <= x < float("inf"),
      "a number from 0 up",
    )

  def __call__(self, step: int) -> float:
    return float(self.start)

  @property
  def minimum(self) -> float:
    return float(self.start)

  maximum = 1.0

  def describe(self) -> str:
    metric = self.metric or "forward_kl_per_token"
    return f"{self.start:g}, +{self.increment:g} when {metric} stops falling"


def check_fraction(name: str, value: float) -> None:
  """Raises unless the value is a number in [0, 1]."""
  check_number(name, value, lambda x: 0 <= x <= 1, "a number from 0 to 1")


def check_followed(
  metric: str, falling: Sequence[str], num_evaluations: int
) -> None:
  """Refuses an `Adaptive` that nothing would ever raise.

  Args:
    metric: that it follows.
    falling: what evaluations report with less as better.
    num_evaluations: before the last step.
  """
  if metric not in falling:
    raise UserError(
      f"the metric of schedules.Adaptive is {metric!r}, which no evaluation of"
      " this run reports with less as better; choose one of"
      f" {', '.join(falling) or 'an evaluated run'}"
    )
  if num_evaluations < 2:
    raise UserError(
      "schedules.Adaptive has fewer than two evaluations to compare before the"
      " last step; set EVAL_PERIOD below half of TRAIN_STEPS"
    )
