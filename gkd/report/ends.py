"""Bars of where runs ended: scores with their spread, and time."""

from collections.abc import Sequence
import math
import re

from gkd.report import formats
from gkd.report import measures
from gkd.report import tables
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Run
from gkd.report.runs import by_arm

_PHASES = ("data", "sample", "update", "evaluate", "checkpoint")


def scores(
  runs: Sequence[Run], name: str, title: str, note: str
) -> Chart | None:
  """Last values of a score side by side.

  None where there is nothing to compare, or where curves show all of them.
  """
  arms = {
    arm: found
    for arm, found in by_arm(runs).items()
    if tables.finite([run.last(name) for run in found])
  }
  curved = all(
    any(len(run.metrics.get(name, ((),))[0]) > 1 for run in found)
    for found in arms.values()
  )
  if len(arms) < 2 or curved:
    return None
  points = [_finite(found, name) for found in arms.values()]
  ends = [_interval(found, name) for found in arms.values()]
  notes = [note]
  if any(len(values) > 1 for values in points):
    notes.append("Bars are means over seeds, dots single seeds.")
  if any(low < high for low, high in ends):
    notes.append("Lines: 95 % interval over the prompts.")
  series = [
    Series(
      name=measures.words(name, [name]),
      colour=0,
      ys=[tables.mean(values) for values in points],
      points=points,
      low=[low for low, _ in ends],
      high=[high for _, high in ends],
    )
  ]
  teacher = measures.of_teacher(name)
  levels = [tables.mean(_finite(found, teacher)) for found in arms.values()]
  if tables.finite(levels):
    series.append(
      Series("teacher, same examples", None, levels, is_reference=True)
    )
  return Chart(
    slug=re.sub(r"\W+", "_", name) + "_end",
    title=f"{title} at the end",
    note=" ".join(filter(None, notes)),
    kind="bars",
    series=series,
    x_label="",
    groups=list(arms),
  )


def time_split(runs: Sequence[Run]) -> Chart | None:
  """Where the time of each arm went, on average over its seeds."""
  arms = {}
  for arm, found in by_arm(runs).items():
    timed = [run for run in found if math.isfinite(tables.total_seconds(run))]
    if timed:
      arms[arm] = timed
  if not arms:
    return None
  totals = {
    phase: [
      tables.mean([_seconds(run, phase) for run in found])
      for found in arms.values()
    ]
    for phase in _PHASES
  }
  several = any(len(found) > 1 for found in arms.values())
  whole = [
    tables.mean([tables.total_seconds(run) for run in found])
    for found in arms.values()
  ]
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of a whole run" + (", mean over seeds." if several else "."),
    kind="stacked",
    x_label="",
    groups=[
      f"{arm} · {formats.duration(total)}"
      for arm, total in zip(arms, whole, strict=True)
    ],
    series=[
      Series(phase, colour, values)
      for colour, (phase, values) in enumerate(totals.items())
      if any(value > 0 for value in values)
    ],
  )


def _finite(found: Sequence[Run], name: str) -> list[float]:
  return tables.finite([run.last(name) for run in found])


def _interval(found: Sequence[Run], name: str) -> tuple[float, float]:
  """Confidence interval of a single run; NaN for several seeds or none."""
  if len(found) > 1:
    return math.nan, math.nan
  low, high = (found[0].last(bound) for bound in measures.bounds(name))
  return low, high


def _seconds(run: Run, phase: str) -> float:
  total = run.total(f"time/{phase}_seconds")
  return total if math.isfinite(total) else 0.0
