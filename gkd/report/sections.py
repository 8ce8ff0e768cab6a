"""The charts of runs, section by section in reading order."""

import collections
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import os
import tomllib

from gkd.report import arms
from gkd.report import convergence
from gkd.report import curves
from gkd.report import distances
from gkd.report import epochs
from gkd.report import final_metrics
from gkd.report import formats
from gkd.report import grid_axes
from gkd.report import metric_info
from gkd.report.charts import Chart
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

PATHS = "Evaluation: one distance against another"
_EPOCHS = "Evaluation: over epochs"
_LAWS = "Evaluation: power laws"
_MORE = "More"
_DETAILS = {"Student-generated data", "Optimizer", "Time and memory"}


def sections(runs: Sequence[arms.Run]) -> dict[str, list[Chart]]:
  """{section: charts} in reading order, without those that have no points.

  Of many arms the first distance is above the fold, and how training went.
  """
  folded = {_MORE}
  further: set[Metric] = set()
  if arms.are_many(runs):
    folded |= _DETAILS
    first = [score.metric for score in distances.measured(runs)][:1]
    further = {
      metric
      for metric in arms.metrics_of(runs)
      if isinstance(metric, Score)
      and metric.compared_with
      and metric_info.is_headline(metric)
      and metric.metric not in first
    }
  drawn = _sections(
    [_restricted(run, run.metrics.keys() - further) for run in runs]
  )
  for name in drawn.keys() & folded:
    drawn[name] = _folded(drawn[name])
  below = _sections([_restricted(run, further) for run in runs])
  below.pop(_EPOCHS, None)  # the same curves on another axis
  for name, charts in below.items():
    drawn.setdefault(name, []).extend(_folded(charts))
  return drawn


def _restricted(run: arms.Run, metrics: Collection[Metric]) -> arms.Run:
  chosen = {name: run.metrics[name] for name in run.metrics if name in metrics}
  return dataclasses.replace(run, metrics=chosen)


def _folded(charts: Iterable[Chart]) -> list[Chart]:
  return [dataclasses.replace(chart, is_folded=True) for chart in charts]


def _sections(runs: Sequence[arms.Run]) -> dict[str, list[Chart]]:
  drawn: dict[str, list[Chart | None]] = collections.defaultdict(list)
  more = []
  metrics = arms.metrics_of(runs)
  scores = metric_info.scores(metrics)
  several = len({score.group for score in scores}) > 1
  for score in scores:
    beside = [other for other in scores if other.group == score.group]
    note = formats.unit_sentence(score.unit)
    if metric_info.is_headline(score):
      if score.compared_with:
        closer = "less" if score.direction == "min" else "more"
        note += f" At temperature 1; {closer} is closer."
      title = metric_info.describe(score, beside)
      title = title[:1].upper() + title[1:]
      group = f": {score.group}" if several and score.group else ""
      drawn[f"Evaluation{group}"] += [
        curves.chart(runs, score, title, note),
        final_metrics.scores(runs, score, title, note),
      ]
    else:
      title = f"Evaluation: {metric_info.describe(score, scores)}"
      more.append(curves.chart(runs, score, title, note))
  drawn[PATHS] += distances.charts(runs)
  drawn[_EPOCHS] += epochs.charts(runs)
  drawn[_LAWS] += convergence.charts(runs)
  drawn |= grid_axes.sections(runs)
  path = os.path.join(os.path.dirname(__file__), "training_curves.toml")
  with open(path, "rb") as file:
    training = tomllib.load(file)
  others = {name for name in metrics if isinstance(name, str)}
  for section, named in training.items():
    drawn[section] = [
      curves.chart(runs, name, *text) for name, text in named.items()
    ]
    others -= named.keys()
  drawn[section].append(final_metrics.time_split(runs))
  drawn[_MORE] = more + [
    curves.chart(runs, name, name, "")
    for name in sorted(others)
    if not arms.is_seconds(name)
  ]
  return {
    name: [chart for chart in section_charts if chart is not None]
    for name, section_charts in drawn.items()
    if any(section_charts)
  }
