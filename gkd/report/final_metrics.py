"""Bars of where runs ended: scores with their spread, and time."""

from collections.abc import Sequence
import math
import re

from gkd.report import charts
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
  arms = by_arm([run for run in runs if math.isfinite(run.last(score))])
  curved = all(
    any(len(run.metrics[score][0]) > 1 for run in members)
    for members in arms.values()
  )
  if len(arms) < 2 or curved:
    return None
  points = [tables.last_values(members, score) for members in arms.values()]
  # The interval over the prompts of a single run; none for several seeds.
  low, high = (
    [
      members[0].last(bound) if len(members) == 1 else math.nan
      for members in arms.values()
    ]
    for bound in score.bounds
  )
  notes = [note]
  if any(map(math.isfinite, low)):
    notes.append("Lines: 95 % interval over the prompts.")
  means = list(map(tables.mean, points))
  name = metric_info.describe(score, [score])
  series = [Series(name, 0, means, (), low, high, points)]
  for name, others in tables.references(runs, [score]).items():
    values = [
      tables.mean(tables.last_values(members, others[score]))
      for members in arms.values()
    ]
    series.append(Series(name, None, values, is_reference=True))
  slug = re.sub(r"\W+", "_", score.slug) + "_end"
  return charts.bars(slug, f"{title} at the end", notes, list(arms), series)


def time_split(runs: Sequence[Run]) -> Chart | None:
  """Where the time of each arm went, on average over its seeds."""
  arms = by_arm([r for r in runs if math.isfinite(tables.total_seconds(r))])
  if not arms:
    return None
  totals = {
    phase: [
      sum(tables.finite(run.total(f"time/{phase}_seconds") for run in members))
      / len(members)
      for members in arms.values()
    ]
    for phase in _PHASES
  }
  several = any(len(members) > 1 for members in arms.values())
  wholes = [
    tables.mean(list(map(tables.total_seconds, members)))
    for members in arms.values()
  ]
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of a whole run" + (", mean over seeds." if several else "."),
    kind="stacked",
    groups=[
      f"{arm} · {formats.duration(whole)}"
      for arm, whole in zip(arms, wholes, strict=True)
    ],
    series=[
      Series(phase, colour, values)
      for colour, (phase, values) in enumerate(totals.items())
      if any(value > 0 for value in values)
    ],
  )
