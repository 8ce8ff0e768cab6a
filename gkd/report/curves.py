"""Curves over the updates: which there are, their bands, and the teacher.

A band is what is known of a line: over several seeds from the lowest to the
highest, for a single run its confidence interval, and where a long curve is
drawn in bins the lowest and highest of each.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import math
import re
import statistics

from gkd.report import downsample
from gkd.report import final_metrics
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import run_status
from gkd.report import tables
from gkd.report.arms import Run
from gkd.report.arms import by_arm
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.downsample import Line
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

_GENERATED = "Student-generated data"
_RESOURCES = "Time and memory"
_MORE = "More"
# Curves of training in reading order: section, metric, title, note.
_CURVES = (
  (
    "Training",
    "train/loss",
    "Training loss",
    "What each run minimises. Different objectives do not compare.",
  ),
  (
    "Training",
    "train/forward_kl",
    "Forward KL on the batch as trained",
    "KL(teacher ‖ student), nats per token.",
  ),
  (
    "Training",
    "train/reverse_kl",
    "Reverse KL on the batch as trained",
    "KL(student ‖ teacher), nats per token.",
  ),
  (
    "Training",
    "train/agreement",
    "Top-1 agreement with the teacher",
    "Share of positions where both prefer the same token.",
  ),
  (
    "Training",
    "train/student_entropy",
    "Entropy of the student",
    "Nats per token.",
  ),
  (
    "Training",
    "train/teacher_entropy",
    "Entropy of the teacher",
    "Nats per token, on the same positions.",
  ),
  (
    _GENERATED,
    "train/lambda",
    "λ as realised",
    "Share of the batch that the student wrote.",
  ),
  (
    _GENERATED,
    "train/sampled_length",
    "Length of sampled sequences",
    "Tokens, end-of-sequence included.",
  ),
  (
    _GENERATED,
    "train/eos_rate",
    "Samples that end by themselves",
    "Share with an end-of-sequence token.",
  ),
  (
    _GENERATED,
    "train/truncation_rate",
    "Samples cut at the longest length",
    "",
  ),
  ("Optimizer", "train/learning_rate", "Learning rate", ""),
  ("Optimizer", "train/grad_norm", "Gradient norm", "Before clipping."),
  ("Optimizer", "train/param_norm", "Parameter norm", ""),
  (
    _RESOURCES,
    "time/tokens_per_second",
    "Target tokens a second",
    "Data, sampling and update; evaluation not counted.",
  ),
  (_RESOURCES, "memory/peak_bytes", "Peak memory", "MiB."),
)
_ORDER = ("Training", _GENERATED, "Optimizer", _RESOURCES, _MORE)
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

  def add(section: str, *charts: Chart | None) -> None:
    found.setdefault(section, []).extend(charts)

  metrics = {metric for run in runs for metric in run.metrics}
  scores = metric_info.scores(metrics)
  several = len(metric_info.groups(scores)) > 1
  for score in scores:
    beside = [other for other in scores if other.group == score.group]
    title = metric_info.describe(score, beside)
    title = title[:1].upper() + title[1:]
    what = (runs, score, title, _unit_note(score))
    if metric_info.is_headline(score):
      section = f"Evaluation: {score.group}" if several else "Evaluation"
      add(section, chart(*what), final_metrics.scores(*what))
    else:
      title = f"Evaluation: {metric_info.describe(score, scores)}"
      add(_MORE, chart(runs, score, title, _unit_note(score)))
  for section, name, title, note in _CURVES:
    add(section, chart(runs, name, title, note))
  add(_RESOURCES, final_metrics.time_split(runs))
  known = {name for _, name, _, _ in _CURVES}
  for name in sorted(m for m in metrics if isinstance(m, str)):
    if name not in known and not re.fullmatch(r"time/\w+_seconds", name):
      add(_MORE, chart(runs, name, name, ""))
  order = [name for name in found if name not in _ORDER] + [*_ORDER]
  drawn = {name: [c for c in found.get(name, ()) if c] for name in order}
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
  lines = [(arm, _line(members, metric)) for arm, members in arms.items()]
  # A single point says no more than the table does.
  if max((len(line.xs) for _, line in lines), default=0) < 2:
    return None
  series = [
    _series(arm, colour, line, is_broken=_breaks(arms[arm], metric))
    for colour, (arm, line) in enumerate(lines)
    if line.xs
  ]
  series += _references(arms, metric)
  values = [y for one in series for y in (*one.ys, *one.low, *one.high)]
  steps = sorted({x for _, line in lines for x in line.xs})
  notes = [note]
  if any(len(m) == 1 and _has_interval(m[0], metric) for m in arms.values()):
    notes.append("Band: 95 % interval over the prompts.")
  if is_outlying(values):
    notes.append("Logarithmic vertical axis.")
  return Chart(
    slug=slug(metric),
    title=title,
    note=" ".join(filter(None, notes)),
    kind="lines",
    series=series,
    x_scale="log" if is_log_spaced(steps) else "linear",
    y_scale="log" if is_outlying(values) else "linear",
    is_downsampled=any(
      len(line.xs) > downsample.MAX_POINTS for _, line in lines
    ),
  )


def slug(metric: Metric) -> str:
  """Name of a chart's file, without extension."""
  return re.sub(
    r"\W+", "_", metric.slug if isinstance(metric, Score) else metric
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


def over_seeds(runs: Iterable[Run], metric: Metric) -> Line:
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
  return Line(
    sorted(steps),
    [tables.mean(values) for values in columns],
    [min(values) for values in columns],
    [max(values) for values in columns],
  )


def _line(members: Sequence[Run], metric: Metric) -> Line:
  """Over the seeds; of a single run with its confidence interval."""
  line = over_seeds(members, metric)
  if len(members) != 1 or not isinstance(metric, Score):
    return line
  low, high = (_points(members[0], bound) for bound in metric.bounds)
  return line._replace(
    low=[low.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)],
    high=[high.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)],
  )


def _points(run: Run, metric: Metric) -> dict[int, float]:
  """{step: value that can be drawn}; memory in MiB.

  Values that are not finite are left out, and so are those whose distance
  would not be: no axis holds them.
  """
  scale = 2.0**-20 if str(metric).endswith("_bytes") else 1.0
  pairs = zip(*run.metrics.get(metric, ((), ())), strict=True)
  return {step: y * scale for step, y in pairs if abs(y) < _LARGEST}


def _series(arm: str, colour: int, line: Line, *, is_broken: bool) -> Series:
  line = downsample.downsample(line)
  has_band = list(line.low) != list(line.high)
  return Series(
    name=arm,
    colour=colour,
    xs=line.xs,
    ys=line.ys,
    low=line.low if has_band else (),
    high=line.high if has_band else (),
    is_broken=is_broken,
  )


def _breaks(members: Sequence[Run], metric: Metric) -> bool:
  """Whether a run of the arm ended in values that were not finite."""
  return any(
    run_status.diverged(run) and not math.isfinite(run.last(metric))
    for run in members
  )


def _has_interval(run: Run, metric: Metric) -> bool:
  return isinstance(metric, Score) and metric.bounds[0] in run.metrics


def _references(arms: tables.Arms, metric: Metric) -> list[Series]:
  """The same score of other models, one line for each content hash.

  Several models of a role are in the colours of the arms that they teach.
  """
  if not isinstance(metric, Score):
    return []
  metrics = {
    m for members in arms.values() for run in members for m in run.metrics
  }
  found = metric_info.references(metrics, metric)
  roles = [other.role for other in found]
  series = []
  for other in found:
    with_it = [
      (colour, run)
      for colour, members in enumerate(arms.values())
      for run in members
      if other in run.metrics
    ]
    line = over_seeds([run for _, run in with_it], other)
    several = roles.count(other.role) > 1
    if line.xs:
      series.append(
        Series(
          name=tables.reference_name(
            other.role, other.model if several else ""
          ),
          colour=with_it[0][0] if several else None,
          xs=line.xs,
          ys=line.ys,
          is_reference=True,
        )
      )
  return series


def _unit_note(score: Score) -> str:
  notes = [formats.unit_sentence(score.unit)] if score.unit else []
  if score.compared_with:
    notes.append("At temperature 1; less is closer.")
  return " ".join(notes)
