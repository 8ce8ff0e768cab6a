"""Tables of how far distances have risen from their lowest value.

A student that moves away from a third model while it comes closer to its
teacher hacks the teacher (Tiapkin et al., arXiv 2502.02671).
"""

from collections.abc import Sequence
import math
from typing import NamedTuple

from gkd.report import arms
from gkd.report import distances
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.metric_info import Score
from gkd.report.tables import Cell
from gkd.report.tables import Table

# Per cent above the lowest value that are more than noise.
_RISE = 5.0


class _Turn(NamedTuple):
  """The lowest value of one run's distance, and what came after it."""

  lowest: float
  step: int
  end: float
  rise: float  # per cent
  meanwhile: float  # change of the distance to the other model, per cent


def run_tables(runs: Sequence[arms.Run]) -> list[Table]:
  """A table for each distance that is measured to two models."""
  scores = distances.measured(runs)
  return [
    _table(runs, near, far, distances.measure(near, scores))
    for near, far in distances.pairs(scores)
  ]


def _table(
  runs: Sequence[arms.Run], near: Score, far: Score, name: str
) -> Table:
  """A row for each arm that was evaluated more than once.

  Args:
    runs: of the report.
    near: the distance that training lowers.
    far: the same to another model.
    name: of the distance.
  """
  decimals = metric_info.DECIMALS.get(far.unit)
  rows = [
    [name, "–", "–", formats.spread(own, decimals), "–", "–", "–"]
    for name, others in tables.references(runs, [far]).items()
    if (own := arms.finite(run.last(others[far]) for run in runs))
  ]
  for arm in arms.by_arm(runs):
    turns = [turn for run in arm.runs if (turn := _turn(run, near, far))]
    if turns:
      lowest, steps, end, rise, meanwhile = zip(*turns, strict=True)
      rows.append(
        [
          arm.name,
          formats.spread(lowest, decimals),
          formats.spread(steps, 0),
          formats.spread(end, decimals),
          formats.spread(rise, 1),
          formats.spread(meanwhile, 1),
          _in_words(turns, near.compared_with, far.compared_with),
        ]
      )
  header = [
    "run",
    f"lowest distance to the {far.compared_with}",
    "at update",
    "at the end",
    "rise (%)",
    f"distance to the {near.compared_with} meanwhile (%)",
    "in words",
  ]
  note = (
    "Meanwhile: from the update of the lowest value to the end. A rise counts"
    f" from {_RISE:g} % on."
  )
  if any("±" in text for row in rows for text in row):
    note += " Mean ± sample standard deviation over the seeds."
  return Table(
    title=f"{name} ({far.unit}): turns of the distance to the"
    f" {far.compared_with}",
    header=header,
    rows=[list(map(Cell, row)) for row in rows],
    note=note,
    numeric=[False, True, True, True, True, True, False],
  )


def _turn(run: arms.Run, near: Score, far: Score) -> _Turn | None:
  """None for a run without two evaluations of both distances."""
  to_far, to_near = (
    {
      step: value
      for step, value in run.metrics.get(score, {}).items()
      if math.isfinite(value)
    }
    for score in (far, near)
  )
  steps = sorted(to_far.keys() & to_near.keys())
  if len(steps) < 2:
    return None
  lowest, last = min(steps, key=to_far.get), steps[-1]
  rise, meanwhile = (
    100 * (curve[last] / curve[lowest] - 1) for curve in (to_far, to_near)
  )
  return _Turn(to_far[lowest], lowest, to_far[last], rise, meanwhile)


def _in_words(turns: Sequence[_Turn], near: str, far: str) -> str:
  """Away from the oracle and closer to the teacher in 2 of 3 seeds."""
  risen = [turn for turn in turns if turn.rise >= _RISE]
  if not risen:
    return f"no rise: stays within {_RISE:g} % of its lowest"
  is_closer = arms.mean([turn.meanwhile for turn in risen]) < 0
  words = f"away from the {far} "
  words += f"and closer to the {near}" if is_closer else f"and from the {near}"
  if len(turns) > 1:
    words += f", in {len(risen)} of {len(turns)} seeds"
  return words
