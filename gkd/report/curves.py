"""Curves over the updates: which there are, their bands, and the teacher.

A band is what is known of a line: over several seeds from the lowest to the
highest, for a single run its confidence interval, and where a long curve is
drawn in bins the lowest and highest of each.
"""

from collections.abc import Sequence
import math
import os
import re
import statistics
import tomllib

from gkd.report import downsample
from gkd.report import final_metrics
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import run_status
from gkd.report import tables
from gkd.report.arms import Run
from gkd.report.arms import by_arm
from gkd.report.arms import metrics_of
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.downsample import Line
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

_MORE = "More"
# Values so far above the median press a linear axis flat.
_OUTLYING = 30.0
# Steps 1, 2, 4, … have most of them in the first quarter of a linear axis.
_CROWDED = 0.25
_MIN_LOG_POINTS = 5
# An axis from the lowest to the highest value, with margins, has to be finite.
_LARGEST = 1e300


def sections(runs: Sequence[Run]) -> dict[str, list[Chart]]:
  """{section: charts} in reading order, without those that have no points."""
  found: dict[str, list[Chart | None]] = {}
  metrics = metrics_of(runs)
  scores = metric_info.scores(metrics)
  several = len(metric_info.groups(scores)) > 1
  more = []
  for score in scores:
    beside = [other for other in scores if other.group == score.group]
    note = formats.unit_sentence(score.unit)
    if metric_info.is_headline(score):
      if score.compared_with:
        note += " At temperature 1; less is closer."
      words = metric_info.describe(score, beside)
      what = (runs, score, words[:1].upper() + words[1:], note)
      group = f": {score.group}" if several and score.group else ""
      section = f"Evaluation{group}"
      found.setdefault(section, []).append(chart(*what))
      found[section].append(final_metrics.scores(*what))
    else:
      title = f"Evaluation: {metric_info.describe(score, scores)}"
      more.append(chart(runs, score, title, note))
  path = os.path.join(os.path.dirname(__file__), "training_curves.toml")
  with open(path, "rb") as file:
    training = tomllib.load(file)
  for section, curves in training.items():
    found[section] = [
      chart(runs, name, *words) for name, words in curves.items()
    ]
  found[section].append(final_metrics.time_split(runs))
  known = {name for curves in training.values() for name in curves}
  others = {name for name in metrics if isinstance(name, str)} - known
  more += [
    chart(runs, name, name, "")
    for name in sorted(others)
    if not re.fullmatch(r"time/\w+_seconds", name)
  ]
  found[_MORE] = more
  drawn = {name: list(filter(None, charts)) for name, charts in found.items()}
  return {name: charts for name, charts in drawn.items() if charts}


def legend(runs: Sequence[Run]) -> list[Series]:
  """Names of the arms with curves: one colour each, in all charts."""
  return [
    Series(arm, colour, ())
    for colour, (arm, members) in enumerate(by_arm(runs).items())
    if not all(run.is_evaluation for run in members)
  ]


def chart(
  runs: Sequence[Run], metric: Metric, title: str, note: str
) -> Chart | None:
  """The curves of one metric; None where no run has two points of it.

  Args:
    runs: of the report; the place of an arm in it is its colour.
    metric: which.
    title: of the chart.
    note: how to read it; what a band means is added.
  """
  arms = {
    arm: [run for run in members if not run.is_evaluation]
    for arm, members in by_arm(runs).items()
  }
  lines = {arm: _line(members, metric) for arm, members in arms.items()}
  longest = max((len(line.xs) for line in lines.values()), default=0)
  # A single point says no more than the table does.
  if longest < 2:
    return None
  series = [
    _series(arm, colour, lines[arm], is_broken=_breaks(members, metric))
    for colour, (arm, members) in enumerate(arms.items())
    if lines[arm].xs
  ]
  has_interval = False
  if isinstance(metric, Score):
    series += _references(arms, metric)
    has_interval = any(
      len(members) == 1 and metric.bounds[0] in members[0].metrics
      for members in arms.values()
    )
  values = [y for one in series for y in (*one.ys, *one.low, *one.high)]
  notes = [note]
  if has_interval:
    notes.append("Band: 95 % interval over the prompts.")
  if is_outlying(values):
    notes.append("Logarithmic vertical axis.")
  slug = metric.slug if isinstance(metric, Score) else metric
  steps = sorted({x for line in lines.values() for x in line.xs})
  return Chart(
    slug=re.sub(r"\W+", "_", slug),
    title=title,
    note=" ".join(filter(None, notes)),
    kind="lines",
    series=series,
    x_scale="log" if is_log_spaced(steps) else "linear",
    y_scale="log" if is_outlying(values) else "linear",
    is_downsampled=longest > downsample.MAX_POINTS,
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


def over_seeds(runs: Sequence[Run], metric: Metric) -> Line:
  """Mean, lowest and highest at the steps that all runs report.

  Where they have none in common, at all of them. Values that are not finite
  are left out.
  """
  lines = [line for line in (_points(run, metric) for run in runs) if line]
  if not lines:
    return Line([], [], [], [])
  steps = set(lines[0]).intersection(*lines[1:]) or set().union(*lines)
  columns = [
    [line[step] for line in lines if step in line] for step in sorted(steps)
  ]
  bands = ([f(values) for values in columns] for f in (tables.mean, min, max))
  return Line(sorted(steps), *bands)


def _line(members: Sequence[Run], metric: Metric) -> Line:
  """Over the seeds; of a single run with its confidence interval."""
  line = over_seeds(members, metric)
  if len(members) != 1 or not isinstance(metric, Score):
    return line
  ends = [_points(members[0], bound) for bound in metric.bounds]
  low, high = (
    [end.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)]
    for end in ends
  )
  return line._replace(low=low, high=high)


def _points(run: Run, metric: Metric) -> dict[int, float]:
  """{step: value that can be drawn}; memory in MiB.

  Values that are not finite are left out, and so are those whose distance
  would not be: no axis holds them.
  """
  scale = 2.0**-20 if metric == "memory/peak_bytes" else 1.0
  pairs = zip(*run.metrics.get(metric, ((), ())), strict=True)
  return {step: y * scale for step, y in pairs if abs(y) < _LARGEST}


def _series(arm: str, colour: int, line: Line, *, is_broken: bool) -> Series:
  xs, ys, low, high = downsample.downsample(line)
  if list(low) == list(high):
    low, high = (), ()
  return Series(arm, colour, ys, xs, low, high, is_broken=is_broken)


def _breaks(members: Sequence[Run], metric: Metric) -> bool:
  """Whether a run of the arm ended in values that were not finite."""
  return any(
    run_status.diverged(run) and not math.isfinite(run.last(metric))
    for run in members
  )


def _references(arms: tables.Arms, score: Score) -> list[Series]:
  """The same score of other models.

  Several models of a role are in the colours of the arms that they teach.
  """
  runs = [run for members in arms.values() for run in members]
  found = tables.references(runs, [score])
  series = []
  for name, others in found.items():
    line = over_seeds(runs, others[score])
    colours = [
      colour
      for colour, members in enumerate(arms.values())
      if others[score] in metrics_of(members)
    ]
    colour = colours[0] if len(found) > 1 else None
    if line.xs:
      series.append(Series(name, colour, line.ys, line.xs, is_reference=True))
  return series
