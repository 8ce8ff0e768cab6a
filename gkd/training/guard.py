"""When the guard raises an alarm, and what a run does then: its settings.

The guard watches every run for teacher hacking, without an oracle: at each
evaluation it follows the distance to the teacher on held-out prompts, the same
on the texts as trained since the evaluation before, and how often each fixed
text was used (`departure`). When all thresholds are reached it says so, and may
end the run or have it go on with fresh texts (GKD, Algorithm 1, with another
λ). `guard_controller` does that.
"""

from collections.abc import Collection
from collections.abc import Iterator
import dataclasses
import math
from typing import Literal
from typing import get_args

from gkd.errors import check_number
from gkd.structured_settings import setting
from gkd.training import departure
from gkd.training import schedules
from gkd.types import UserError

FOLLOWED = "forward_kl"  # where no other metric is given
Mode = Literal["off", "warn", "stop", "go_online"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guard:
  """Settings of the guard; a threshold of None is not asked for.

  Attributes:
    mode: "off"; "warn" only says so; "stop" ends the run; "go_online" trains on
      texts that student and teacher write at each step from then on.
    metric: the distance to the teacher, per token, that is followed; "" for the
      forward KL of the first evaluation that has one.
    memorised: least share of the gain on the trained texts that does not reach
      held-out prompts.
    gap_growth: least growth of held-out over trained distance.
    repeats: least uses of each fixed text.
    z: least standard deviations above the power law.
    delta_bic: least evidence for an upward bend.
    evaluations: how many in a row have to reach all thresholds.
    student_fraction: λ after the alarm, for "go_online"; the teacher writes the
      other texts.
  """

  mode: Mode = setting("GUARD", default="warn")
  metric: str = setting("GUARD_METRIC", default="")
  memorised: float | None = setting("GUARD_MEMORISED", default=0.8)
  gap_growth: float | None = setting("GUARD_GAP_GROWTH", default=None)
  repeats: float | None = setting("GUARD_REPEATS", default=1.0)
  z: float | None = setting("GUARD_Z", default=None)
  delta_bic: float | None = setting("GUARD_DELTA_BIC", default=None)
  evaluations: int = setting("GUARD_EVALUATIONS", default=2)
  student_fraction: float = setting("GUARD_STUDENT_FRACTION", default=1.0)

  def __post_init__(self):
    if self.mode not in get_args(Mode):
      raise UserError(
        f"GUARD is {self.mode!r}; expected one of {get_args(Mode)}"
      )
    for name, value in self.thresholds.items():
      check_number(f"GUARD_{name.upper()}", value, math.isfinite, "a number")
    if not self.thresholds:
      raise UserError(
        "GUARD_MEMORISED, GUARD_GAP_GROWTH, GUARD_REPEATS, GUARD_Z and"
        " GUARD_DELTA_BIC are all None; give one of them, or set GUARD to 'off'"
      )
    if self.evaluations < 1:
      raise UserError(
        f"GUARD_EVALUATIONS is {self.evaluations}; give at least 1"
      )
    schedules.check_fraction("GUARD_STUDENT_FRACTION", self.student_fraction)

  @property
  def thresholds(self) -> dict[str, float]:
    """{score: least value} of those that are asked for."""
    values = {name: getattr(self, name) for name in departure.SCORES}
    return {name: x for name, x in values.items() if x is not None}

  @property
  def needs_trained(self) -> list[str]:
    """The scores asked for that are of the distance on the trained texts."""
    return [n for n in self.thresholds if departure.SCORES[n].needs_trained]

  def check(
    self,
    metric: str,
    distances: Collection[str],
    *,
    has_teacher: bool,
    has_rollout: bool,
    trains_on_distance: bool,
  ) -> None:
    """Refuses a guard that could never act.

    Args:
      metric: that is followed; "" for none.
      distances: to the teacher, per token, that evaluations report.
      has_teacher: whether the run has one that stays as it is.
      has_rollout: whether it can draw fresh texts.
      trains_on_distance: whether the objective compares student and teacher.
    """
    if self.metric and self.metric not in distances:
      raise UserError(
        f"GUARD_METRIC is {self.metric!r}, which is no distance to the teacher"
        " per token that an evaluation of this run reports; choose one of"
        f" {', '.join(distances) or 'a run with a teacher'}"
      )
    if self.mode in ("off", "warn"):
      return
    online = self.mode == "go_online"
    reason = ""
    if not (has_teacher and metric):
      reason = (
        "no evaluation measures forward_kl, the distance to a teacher that"
        " stays as it is"
      )
    elif online and not has_rollout:
      reason = "the run has no rollout to draw fresh texts with"
    elif self.needs_trained and not trains_on_distance:
      reason = (
        "the objective does not compare student and teacher on the texts as"
        f" trained, as {' and '.join(self.needs_trained)} of GUARD needs"
      )
    elif online and self.student_fraction and not trains_on_distance:
      reason = "cross-entropy learns nothing from the student's own texts"
    if reason:
      raise UserError(
        f"GUARD is {self.mode!r} but {reason}; change that, or set GUARD to"
        " 'warn' or 'off'"
      )

  def idle(
    self, distances: Collection[str], no_teacher: str
  ) -> Iterator[tuple[list[str], str]]:
    """Macros that have no effect, and why.

    Args:
      distances: to the teacher, that are evaluated.
      no_teacher: why there is none whose distance says anything; "" for one.
    """
    macros = [field.metadata["macro"] for field in dataclasses.fields(self)]
    if self.mode == "off":
      yield macros[1:], "GUARD is 'off'"
    elif no_teacher:
      yield macros, no_teacher
    elif not (self.metric or FOLLOWED in distances):
      why = (
        f"no evaluation measures {FOLLOWED}, and GUARD_METRIC names no other"
      )
      yield macros, why
    elif self.mode != "go_online":
      yield macros[-1:], f"GUARD is {self.mode!r}, not 'go_online'"

  def describe(self) -> str:
    """One sentence for the start-up print."""
    asked = " and ".join(f"{n} ≥ {x:g}" for n, x in self.thresholds.items())
    return f"{self.mode} after {self.evaluations} evaluations with {asked}"
