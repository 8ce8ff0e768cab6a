"""Bars of where runs ended: scores with their spread, and time."""

from collections.abc import Sequence
import math

from gkd.report import arms
from gkd.report import charts
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score

_PHASES = ("data", "sample", "update", "evaluate", "checkpoint")


def scores(
  runs: Sequence[arms.Run], score: Score, title: str, note: str
) -> Chart | None:
  """Last values of a score side by side.

  None where there is nothing to compare, or where curves show all of them.
  """
  shown = arms.by_arm(run for run in runs if math.isfinite(run.last(score)))
  curved = all(
    any(len(run.metrics[score]) > 1 for run in arm.runs) for arm in shown
  )
  if len(shown) < 2 or curved:
    return None
  # The interval over the prompts of a single run; none for several seeds.
  low, high = (
    [arm.runs[0].last(b) if len(arm.runs) == 1 else math.nan for arm in shown]
    for b in score.bounds
  )
  notes = [note]
  if any(map(math.isfinite, low)):
    notes.append("Lines: 95 % interval over the prompts.")
  name = metric_info.describe(score, [score])
  points = [arm.values(score) for arm in shown]
  series = [
    Series(name, 0, list(map(arms.mean, points)), (), low, high, points)
  ]
  for name, others in tables.references(runs, [score]).items():
    values = [arm.mean(others[score]) for arm in shown]
    series.append(Series(name, None, values, is_reference=True))
  slug = f"{metric_info.slug(score)}_end"
  names = [arm.name for arm in shown]
  return charts.bars(slug, f"{title} at the end", notes, names, series)


def time_split(runs: Sequence[arms.Run]) -> Chart | None:
  """Where the time of each arm went, on average over its seeds."""
  timed = arms.by_arm(run for run in runs if math.isfinite(run.total_seconds))
  if not timed:
    return None
  several = any(len(arm.runs) > 1 for arm in timed)
  groups = []
  for arm in timed:
    whole = arms.mean([run.total_seconds for run in arm.runs])
    groups.append(f"{arm.name} · {formats.duration(whole)}")
  series = []
  for colour, phase in enumerate(_PHASES):
    name = f"time/{phase}_seconds"
    values = [
      sum(arms.finite(run.total(name) for run in arm.runs)) / len(arm.runs)
      for arm in timed
    ]
    if any(values):
      series.append(Series(phase, colour, values))
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of a whole run" + (", mean over seeds." if several else "."),
    kind="stacked",
    groups=groups,
    series=series,
  )
