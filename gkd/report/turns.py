"""Tables of how far distances have risen from their lowest value.

A student that moves away from a third model while it comes closer to its
teacher hacks the teacher (Tiapkin et al., arXiv 2502.02671).
"""

import collections
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

# Per cent above the lowest of all evaluations; less may be noise.
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
  of_far = collections.defaultdict(list)
  for near, far in distances.pairs(scores):
    of_far[far, near.compared_with].append(near)
  return [
    _table(runs, nears, far, distances.title(far, scores))
    for (far, _), nears in of_far.items()
  ]


def _table(
  runs: Sequence[arms.Run], nears: Sequence[Score], far: Score, title: str
) -> Table:
  """A row for each arm that was evaluated more than once.

  Args:
    runs: of the report.
    nears: the distance that training lowers, to each of the teachers.
    far: the same to another model.
    title: of the latter.
  """
  role = nears[0].compared_with
  decimals = metric_info.DECIMALS.get(far.unit)
  rows = [
    [name, "–", "–", formats.spread(own, decimals), "–", "–", "–"]
    for name, others in tables.references(runs, [far]).items()
    if (own := arms.seed_means(runs, others[far]))
  ]
  for arm in arms.by_arm(runs):
    turns = [turn for run in arm.runs if (turn := _turn(run, nears, far))]
    if turns:
      lowest, steps, end, rise, meanwhile = zip(*turns, strict=True)
      rows.append(
        [
          arm.name,
          formats.spread(lowest, decimals),
          formats.spread(steps, 0),
          formats.spread(end, decimals),
          formats.spread(arms.finite(rise), 1),
          formats.spread(arms.finite(meanwhile), 1),
          _in_words(turns, role, far.compared_with),
        ]
      )
  header = [
    "run",
    f"lowest distance to the {far.compared_with}",
    "at update",
    "at the end",
    "rise (%)",
    f"distance to the {role} meanwhile (%)",
    "in words",
  ]
  note = (
    f"A student that ends further from the {far.compared_with} than it was, but"
    f" closer to the {role}, has learned the {role}'s mistakes. Meanwhile:"
    " from the update of the lowest value to the end. A rise counts from"
    f" {_RISE:g} % on."
  )
  if any("±" in text for row in rows for text in row):
    note += " Mean ± sample standard deviation over the seeds."
  return Table(
    title=f"{title} ({far.unit}): turns",
    header=header,
    rows=[list(map(Cell, row)) for row in rows],
    note=note,
    numeric=[False, True, True, True, True, True, False],
  )


def _turn(run: arms.Run, nears: Sequence[Score], far: Score) -> _Turn | None:
  """None for a run without two evaluations of both distances."""
  near = next((score for score in nears if score in run.metrics), None)
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
    _change(curve[lowest], curve[last]) for curve in (to_far, to_near)
  )
  return _Turn(to_far[lowest], lowest, to_far[last], rise, meanwhile)


def _change(before: float, after: float) -> float:
  """Per cent; infinite from 0, the distance of a student to its own copy."""
  if before:
    return 100 * (after / before - 1)
  return math.inf if after else 0.0


def _in_words(turns: Sequence[_Turn], near: str, far: str) -> str:
  """Away from the oracle and closer to the teacher in 2 of 3 seeds."""
  risen = [turn for turn in turns if turn.rise >= _RISE]
  if not risen:
    return f"no rise: ends within {_RISE:g} % of its lowest"
  closer = [turn for turn in risen if turn.meanwhile < 0]
  in_seeds = f" in {len(risen)} of {len(turns)} seeds" if len(turns) > 1 else ""
  if len(closer) not in (0, len(risen)):
    return (
      f"away from the {far}{in_seeds}, and closer to the {near} in"
      f" {len(closer)} of these"
    )
  place = f"and closer to the {near}" if closer else f"and from the {near}"
  return f"away from the {far} {place}{in_seeds and ','}{in_seeds}"
