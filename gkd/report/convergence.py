"""Distances on log-log axes, with the power law that each arm follows.

On fresh data a distance falls along a straight line there; a student that
memorises leaves it upward (Tiapkin et al., arXiv 2502.02671). The law is that
of `gkd.training.departure`, as in the guard: of the evaluations before the
departure, or before the end.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import statistics

import numpy as np

from gkd.report import arms
from gkd.report import curves
from gkd.report import distances
from gkd.report import formats
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score
from gkd.training import departure

# Two evaluations in a row that are so many standard deviations above the law;
# tests/training/test_departure.py has how rarely noise is.
_THRESHOLDS = {"z": 3.0}
_CONSECUTIVE = 2
_NOTE = (
  f"Dashed: the law of up to {departure.WINDOW} evaluations, mean over seeds,"
  " and its exponent ± sample standard deviation over seeds, or of one run its"
  " standard error. Dot: where most seeds leave it upward."
)


def charts(runs: Sequence[arms.Run]) -> Iterator[Chart]:
  """A chart for each distance that a run has enough evaluations of.

  Args:
    runs: of the report; the place of an arm in it is its colour.
  """
  scores = distances.measured(runs)
  runs = [_on_log_axes(run) for run in runs]
  for score in scores:
    title = f"{distances.title(score, scores)}: power laws"
    note = f"{formats.unit_sentence(score.unit)} {_NOTE}"
    chart = curves.chart(runs, score, title, note)
    axes = {run.arm: run.axes for run in runs}
    laws = []
    for colour, arm in enumerate(arms.by_arm(runs)):
      if law := _law_of(arm, score, colour):
        laws.append(law)
        axes[law.name] = axes[arm.name]
    if chart and laws:
      chart = dataclasses.replace(
        chart,
        slug=f"{chart.slug}_power_law",
        series=[*chart.series, *laws],
        x_scale="log",
        y_scale="log",
      )
      yield from distances.by_axis(chart, axes)


def _on_log_axes(run: arms.Run) -> arms.Run:
  """The run with the values of evaluations that have a place there."""
  metrics = {
    metric: {x: y for x, y in curve.items() if x > 0 and y > 0}
    for metric, curve in run.metrics.items()
    if isinstance(metric, Score)
  }
  return dataclasses.replace(run, metrics=metrics)


def _law_of(arm: arms.Arm, score: Score, colour: int) -> Series | None:
  """The mean law of an arm's runs; None where none has one.

  Dashed from the first fitted step to the end of the arm's line, with a dot
  where most runs leave it.
  """
  laws = [law for run in arm.runs if (law := _law(run, score))]
  fits = [fit for fit, _ in laws]
  first = min((fit.logs[0] for fit in fits), default=math.inf)
  line = curves.over_seeds(arm.runs, score, arm.name, colour)
  xs = [x for x in line.xs if math.log(x) >= first]
  if not xs:
    return None
  slopes = [fit.slope for fit in fits]
  several = len(laws) > 1
  error = np.std(slopes, ddof=1) if several else fits[0].slope_error
  name = f"{arm.name}: step^{np.mean(slopes):.3f} ± {error:.3f}"
  expected = np.mean([fit.predict(np.array(xs))[0] for fit in fits], axis=0)
  onsets = [onset for _, onset in laws if onset]
  marked = None
  if onsets:
    onset = statistics.median_low(onsets)
    name += f", left at {onset:,}"
    name += f" in {len(onsets)} of {len(laws)} runs" if several else ""
    if 2 * len(onsets) > len(laws) and onset in xs:
      marked = xs.index(onset)
  return Series(
    *(name, colour, np.exp(expected).tolist(), xs),
    is_reference=True,
    marked=marked,
  )


def _law(
  run: arms.Run, score: Score
) -> tuple[departure.PowerLaw, int | None] | None:
  """The law of one run, and the step from which on the run leaves it.

  None where there are too few evaluations after the warm-up.
  """
  warmup = run.settings.get("optimizer.schedule.warmup_steps") or 0
  warmup = run.about.get("warmup_end", warmup)  # an earlier version has none
  curve = run.metrics.get(score, {})
  steps: list[int] = []
  for step in curve:
    if step >= max([warmup, *(departure.LEAST_RATIO * x for x in steps[-1:])]):
      steps.append(step)
  if len(steps) < departure.MIN_POINTS + _CONSECUTIVE:
    return None
  values = np.array([curve[step] for step in steps])
  z = departure.departures(np.array(steps), values, _CONSECUTIVE)
  raised = departure.alarms({"z": z}, _THRESHOLDS, _CONSECUTIVE)
  last = int(raised.argmax()) if raised.any() else len(steps) - 1
  before = departure.window(last, _CONSECUTIVE)
  fit = departure.fit_power_law(np.array(steps[before]), values[before])
  onset = steps[last + 1 - _CONSECUTIVE] if raised.any() else None
  return fit, onset
