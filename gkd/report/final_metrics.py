"""Bars of where runs ended: scores with their spread, and time."""

from collections.abc import Sequence
import math
import re

from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.arms import Run
from gkd.report.arms import by_arm
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score

_PHASES = ("data", "sample", "update", "evaluate", "checkpoint")


def scores(
  runs: Sequence[Run], score: Score, title: str, note: str
) -> Chart | None:
  """Last values of a score side by side.

  None where there is nothing to compare, or where curves show all of them.
  """
  arms = {
    arm: members
    for arm, members in by_arm(runs).items()
    if tables.last_values(members, score)
  }
  curved = all(
    any(len(run.metrics.get(score, ((),))[0]) > 1 for run in members)
    for members in arms.values()
  )
  if len(arms) < 2 or curved:
    return None
  points = [tables.last_values(members, score) for members in arms.values()]
  ends = [_interval(members, score) for members in arms.values()]
  notes = [note]
  if any(len(values) > 1 for values in points):
    notes.append("Bars are means over seeds, dots single seeds.")
  if any(low < high for low, high in ends):
    notes.append("Lines: 95 % interval over the prompts.")
  own = Series(
    name=metric_info.describe(score, [score]),
    colour=0,
    ys=[tables.mean(values) for values in points],
    points=points,
    low=[low for low, _ in ends],
    high=[high for _, high in ends],
  )
  return Chart(
    slug=re.sub(r"\W+", "_", score.slug) + "_end",
    title=f"{title} at the end",
    note=" ".join(filter(None, notes)),
    kind="bars",
    series=[own, *_references(arms, score)],
    x_label="",
    groups=list(arms),
  )


def time_split(runs: Sequence[Run]) -> Chart | None:
  """Where the time of each arm went, on average over its seeds."""
  timed = [run for run in runs if math.isfinite(tables.total_seconds(run))]
  arms = by_arm(timed)
  if not arms:
    return None
  totals = {
    phase: [
      tables.mean([_seconds(run, phase) for run in members])
      for members in arms.values()
    ]
    for phase in _PHASES
  }
  several = any(len(members) > 1 for members in arms.values())
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of a whole run" + (", mean over seeds." if several else "."),
    kind="stacked",
    x_label="",
    groups=[
      f"{arm} · "
      + formats.duration(tables.mean(list(map(tables.total_seconds, members))))
      for arm, members in arms.items()
    ],
    series=[
      Series(phase, colour, values)
      for colour, (phase, values) in enumerate(totals.items())
      if any(value > 0 for value in values)
    ],
  )


def _references(arms: tables.Arms, score: Score) -> list[Series]:
  """The same score of the model that each arm was compared with."""
  metrics = {
    m for members in arms.values() for run in members for m in run.metrics
  }
  found = metric_info.references(metrics, score)
  roles = dict.fromkeys(other.role for other in found)
  return [
    Series(
      tables.reference_name(role, ""),
      None,
      [
        tables.mean(
          [
            value
            for other in found
            if other.role == role
            for value in tables.last_values(members, other)
          ]
        )
        for members in arms.values()
      ],
      is_reference=True,
    )
    for role in roles
  ]


def _interval(members: Sequence[Run], score: Score) -> tuple[float, float]:
  """Confidence interval of a single run; NaN for several seeds or none."""
  if len(members) > 1:
    return math.nan, math.nan
  low, high = (members[0].last(bound) for bound in score.bounds)
  return low, high


def _seconds(run: Run, phase: str) -> float:
  total = run.total(f"time/{phase}_seconds")
  return total if math.isfinite(total) else 0.0
