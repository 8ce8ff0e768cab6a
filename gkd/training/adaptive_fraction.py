"""The λ of a run whose schedule follows its evaluations, see `Adaptive`.

  fraction = AdaptiveFraction(run.rollout, metric, metadata)
  roll_out(…, plan=fraction.applied(plan))
  fraction.observe(done, evaluated)

Its state is JSON, kept with each checkpoint, so that a run that was killed goes
on with the λ that it had.
"""

from collections.abc import Mapping
import dataclasses
import logging
import math
from typing import Any

from gkd.training.rollout import Rollout
from gkd.training.schedules import Adaptive

log = logging.getLogger("gkd")

_NOTE = "adaptive_fraction"  # in the notes of a checkpoint


class AdaptiveFraction:
  """λ of a run; does nothing where the plan has another schedule.

  Args:
    plan: of the run; None for fixed data alone.
    metric: name of the value that falls.
    noted: notes of the checkpoint that was restored; {} for none.
  """

  def __init__(
    self, plan: Rollout | None, metric: str, noted: Mapping[str, Any]
  ):
    schedule = plan and plan.schedule
    self._schedule = schedule if isinstance(schedule, Adaptive) else None
    self._metric = metric
    self._state = {"step": -1, "lowest": None, "rises": 0}
    self._state |= noted.get(_NOTE, {})

  @property
  def value(self) -> float:
    """λ of the next step."""
    rises = self._state["rises"]
    return min(1.0, self._schedule.start + rises * self._schedule.increment)

  def applied(self, plan: Rollout | None) -> Rollout | None:
    """A plan with the λ of the next step; one of the guard stays."""
    if plan is None or plan.student_fraction is not self._schedule:
      return plan
    return dataclasses.replace(plan, student_fraction=self.value)

  def observe(self, done: int, evaluated: Mapping[str, float]) -> None:
    """Takes in an evaluation after `done` steps, each once."""
    if not self._schedule or self._metric not in evaluated:
      return
    if done <= self._state["step"]:
      return
    loss, lowest = evaluated[self._metric], self._state["lowest"]
    fell = lowest is None or loss < lowest - self._schedule.tolerance
    self._state["step"] = done
    if not fell and self.value < 1:
      self._state["rises"] += 1
      log.info(
        "step %d: %s no longer falls, λ is %g now",
        *(done, self._metric, self.value),
      )
    if math.isfinite(loss) and (lowest is None or loss < lowest):
      self._state["lowest"] = loss

  def notes(self) -> dict[str, Any]:
    """JSON for a checkpoint."""
    return {_NOTE: dict(self._state)} if self._schedule else {}
