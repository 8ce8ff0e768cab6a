"""Curves over the updates: their bands, and the teacher.

A band is what is known of a line: over several seeds from the lowest to the
highest, for a single run its confidence interval, and where a long curve is
drawn in bins the lowest and highest of each.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import itertools
import math
import statistics

from gkd.report import arms
from gkd.report import charts
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

# Values so far above the median press a linear axis flat.
_OUTLYING = 30.0
# Steps 1, 2, 4, … have most of them in the first quarter of a linear axis.
_CROWDED = 0.25
_MIN_LOG_POINTS = 5
# An axis from the lowest to the highest value, with margins, has to be finite.
_LARGEST = 1e300


def legend(runs: Sequence[arms.Run]) -> list[Series]:
  """Names of the arms with curves: one colour each, in all charts."""
  return [
    Series(arm.name, colour, ())
    for colour, arm in enumerate(arms.by_arm(runs))
    if not all(run.is_evaluation for run in arm.runs)
  ]


def chart(
  runs: Sequence[arms.Run], metric: Metric, title: str, note: str
) -> Chart | None:
  """The curves of one metric; None where no run has two points of it.

  Args:
    runs: of the report; the place of an arm in it is its colour.
    metric: which.
    title: of the chart.
    note: how to read it; what a band means is added.
  """
  trained = [
    arms.Arm(arm.name, [run for run in arm.runs if not run.is_evaluation])
    for arm in arms.by_arm(runs)
  ]
  lines = [_line(arm, colour, metric) for colour, arm in enumerate(trained)]
  longest = max((len(line.xs) for line in lines), default=0)
  # A single point says no more than the table does.
  if longest < 2:
    return None
  series = [_downsampled(line) for line in lines if line.xs]
  notes = [note]
  if isinstance(metric, Score):
    series += references(trained, metric)
    single = [arm.runs[0] for arm in trained if len(arm.runs) == 1]
    if metric.bounds[0] in arms.metrics_of(single):
      notes.append("Band: 95 % interval over the prompts.")
  is_log = is_outlying(
    [y for one in series for y in (*one.ys, *one.low, *one.high)]
  )
  if is_log:
    notes.append("Logarithmic vertical axis.")
  steps = sorted({x for line in lines for x in line.xs})
  return Chart(
    slug=metric_info.slug(metric),
    title=title,
    note=" ".join(filter(None, notes)),
    kind="lines",
    series=series,
    x_scale="log" if is_log_spaced(steps) else "linear",
    y_scale="log" if is_log else "linear",
    is_downsampled=longest > charts.MAX_POINTS,
  )


def is_log_spaced(steps: Sequence[int]) -> bool:
  """Whether ascending steps lie so that a linear axis would crowd them."""
  steps = [step for step in steps if step > 0]
  if len(steps) < _MIN_LOG_POINTS:
    return False
  return statistics.median(steps) < _CROWDED * steps[-1]


def is_outlying(values: Sequence[float]) -> bool:
  """Whether positive values differ so much that only a log axis shows them."""
  if not values or min(values) <= 0:
    return False
  return max(values) > _OUTLYING * statistics.median(values)


def _line(arm: arms.Arm, colour: int, metric: Metric) -> Series:
  """Over the seeds; of a single run with its confidence interval."""
  line = over_seeds(arm.runs, metric, arm.name, colour)
  if len(arm.runs) == 1 and isinstance(metric, Score):
    ends = [_points(arm.runs[0], bound) for bound in metric.bounds]
    low, high = (
      [end.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
      for end in ends
    )
    line = dataclasses.replace(line, low=low, high=high)
  is_broken = any(
    run.has_diverged and not math.isfinite(run.last(metric)) for run in arm.runs
  )
  return dataclasses.replace(line, is_broken=is_broken)


def over_seeds(
  runs: Iterable[arms.Run], metric: Metric, name: str, colour: int | None
) -> Series:
  """Mean, lowest and highest at the steps that all runs report.

  Where they have none in common, at all of them.
  """
  curves = [curve for curve in (_points(run, metric) for run in runs) if curve]
  if not curves:
    return Series(name, colour, ())
  steps = set(curves[0]).intersection(*curves[1:]) or set().union(*curves)
  xs = sorted(steps)
  values = [[curve[x] for curve in curves if x in curve] for x in xs]
  ys, low, high = (list(map(f, values)) for f in (arms.mean, min, max))
  return Series(name, colour, ys, xs, low, high)


def _points(run: arms.Run, metric: Metric) -> dict[int, float]:
  """{step: value that can be drawn}; memory in MiB.

  Values that are not finite are left out, and so are those whose distance
  would not be: no axis holds them.
  """
  scale = 2.0**-20 if metric == "memory/peak_bytes" else 1.0
  curve = run.metrics.get(metric, {})
  return {step: y * scale for step, y in curve.items() if abs(y) < _LARGEST}


def references(trained: Sequence[arms.Arm], score: Score) -> list[Series]:
  """The same score of other models.

  Several models of a role are in the colours of the arms that they teach.
  """
  runs = [run for arm in trained for run in arm.runs]
  models = tables.references(runs, [score])
  series = []
  for name, others in models.items():
    colours = [
      colour
      for colour, arm in enumerate(trained)
      if others[score] in arms.metrics_of(arm.runs)
    ]
    colour = colours[0] if len(models) > 1 else None
    line = over_seeds(runs, others[score], name, colour)
    if line.xs:
      series.append(Series(name, colour, line.ys, line.xs, is_reference=True))
  return series


def _downsampled(line: Series) -> Series:
  """A line of at most `MAX_POINTS` points as it is; a longer one in bins.

  Each bin of neighbours becomes one point: their mean, in a band from the
  lowest to the highest, at the last of their steps, so that the line ends where
  the run did. No extreme is lost. A band without width is left out.
  """
  count = len(line.xs)
  if count > charts.MAX_POINTS:
    edges = [
      round(n * count / charts.NUM_BINS) for n in range(charts.NUM_BINS + 1)
    ]
    bins = [slice(*pair) for pair in itertools.pairwise(edges)]
    line = dataclasses.replace(
      line,
      xs=[line.xs[part][-1] for part in bins],
      ys=[math.fsum(line.ys[part]) / len(line.ys[part]) for part in bins],
      low=[min(line.low[part]) for part in bins],
      high=[max(line.high[part]) for part in bins],
    )
  has_band = line.low != line.high
  return line if has_band else dataclasses.replace(line, low=(), high=())
