"""Training loss and distances against the passes over the training data.

The panels of Tiapkin et al. (arXiv 2502.02671), Figure 5. With fresh texts a
pass is a visit of each prompt.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools

from gkd.report import arms
from gkd.report import curves
from gkd.report import distances
from gkd.report import formats
from gkd.report.charts import Chart
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

_LOSS = "train/loss"


def charts(runs: Sequence[arms.Run]) -> Iterator[Chart]:
  """The training loss, then each distance that is measured to two models.

  Of the runs that have both distances and say how many rows they train on.

  Args:
    runs: of the report; the place of an arm in it is its colour.
  """
  scores = distances.measured(runs)
  pairs = distances.pairs(scores)
  over_epochs = [_over_epochs(run, pairs) for run in runs]
  panels: list[tuple[Metric, str, str]] = [(_LOSS, "Training loss", "")]
  panels += [
    (score, distances.title(score, scores), formats.unit_sentence(score.unit))
    for score in dict.fromkeys(itertools.chain(*pairs))
  ]
  drawn = [curves.chart(over_epochs, *panel) for panel in panels]
  drawn = [chart for chart in drawn if chart]
  scales = {chart.x_scale for chart in drawn}
  for chart in drawn:
    panel = dataclasses.replace(
      chart,
      slug=f"{chart.slug}_epochs",
      x_label="passes over the data",
      x_scale="log" if "log" in scales else "linear",
    )
    yield from distances.by_axis(panel, {run.arm: run.axes for run in runs})


def _over_epochs(run: arms.Run, pairs: Sequence[tuple]) -> arms.Run:
  """The run with epochs for steps; without metrics where it cannot say."""
  num_rows = run.about.get("num_rows")
  has_both = any(run.metrics.keys() >= {*pair} for pair in pairs)
  if not num_rows or not has_both:
    return dataclasses.replace(run, metrics={})
  samples = run.settings.get("data.samples_per_prompt") or 1
  epochs = run.settings["data.batch_size"] / samples / num_rows
  metrics = {
    metric: {step * epochs: value for step, value in curve.items()}
    for metric, curve in run.metrics.items()
    if metric == _LOSS or isinstance(metric, Score)
  }
  return dataclasses.replace(run, metrics=metrics)
