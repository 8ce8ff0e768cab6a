"""Charts of the distance to one model against that to another.

A student that comes closer to its teacher may at the same time move away from
a third model (Tiapkin et al., arXiv 2502.02671, Figure 4): its path over the
updates then goes left, and up.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import re

from gkd.report import arms
from gkd.report import curves
from gkd.report import formats
from gkd.report import metric_info
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score


def measured(runs: Sequence[arms.Run]) -> list[Score]:
  """The student's distances to other models that belong into a summary."""
  return [
    score
    for score in metric_info.scores(arms.metrics_of(runs))
    if score.compared_with
    and metric_info.is_headline(score)
    and score.direction == "min"  # an agreement is no distance
  ]


def pairs(scores: Sequence[Score]) -> list[tuple[Score, Score]]:
  """Those that are measured to two models, that to the teacher first."""
  return [
    # Training lowers the distance to the teacher.
    tuple(sorted(pair, key=lambda score: score.compared_with != "teacher"))
    for pair in itertools.combinations(scores, 2)
    if _is_same_but_for_the_model(*pair)
  ]


def title(score: Score, scores: Sequence[Score]) -> str:
  """Forward KL to the teacher; with its task where there are several."""
  name = f"{formats.plain(score.metric)} to the {other_model(score, scores)}"
  if len({other.group for other in scores}) > 1:
    return f"{score.group}: {name}"
  return f"{name[:1].upper()}{name[1:]}"


def other_model(score: Score, scores: Sequence[Score]) -> str:
  """Teacher; with its hash where there are several."""
  role = score.compared_with
  models = {other.model for other in scores if other.compared_with == role}
  return f"{role} {score.model}" if len(models) > 1 else role


def charts(runs: Sequence[arms.Run]) -> Iterator[Chart]:
  """A chart for each distance that is measured to two models.

  Args:
    runs: of the report; the place of an arm in it is its colour.
  """
  scores = measured(runs)
  for x, y in pairs(scores):
    paths = [
      path
      for colour, arm in enumerate(arms.by_arm(runs))
      if len((path := _path(arm, colour, x, y)).xs) > 1
    ]
    if not paths:
      continue
    chart = Chart(
      slug=metric_info.slug(
        f"{metric_info.slug(y)}_against_{x.compared_with}_{x.model}"
      ),
      title=f"{title(y, scores)} against that to the {other_model(x, scores)}",
      note="Over the updates, the dot is the end; mean over seeds. Left is"
      f" closer to the {x.compared_with}, down is closer to the"
      f" {y.compared_with}.",
      kind="lines",
      series=[*paths, *curves.references(arms.by_arm(runs), y)],
      x_label=f"distance to the {x.compared_with} ({x.unit})",
      is_path=True,
    )
    yield from by_axis(chart, {run.arm: run.axes for run in runs})


def by_axis(chart: Chart, axes: Mapping[str, Mapping]) -> Iterator[Chart]:
  """The chart, or one for each value of the axis that divides it most evenly.

  Each of them has the other arms in grey, and so the same scales.

  Args:
    chart: of lines.
    axes: of the grid, {line: {axis: value}}; other lines are in all charts.
  """
  own = [
    axes[one.name]
    for one in chart.series
    if one.name in axes and not one.is_reference and len(one.xs) > 1
  ]

  def fullest(axis: str) -> int:
    return max(collections.Counter(of.get(axis) for of in own).values())

  names = sorted({axis for of in own for axis in of})
  axis = min(names, key=fullest, default="")
  are_many = len(own) > arms.MAX_TOGETHER
  chart = dataclasses.replace(chart, has_own_lines=are_many)
  if not are_many or not axis or fullest(axis) == len(own):
    yield chart
    return
  for value in dict.fromkeys(of.get(axis) for of in own):
    others = {name for name, of in axes.items() if of.get(axis) != value}
    series = [
      dataclasses.replace(one, is_context=one.name in others)
      for one in chart.series
      if one.name not in others or not (one.is_reference or len(one.xs) < 2)
    ]
    place = f"without {axis}" if value is None else f"{axis} {value}"
    yield dataclasses.replace(
      chart,
      slug=re.sub(r"[^\w.+-]", "_", f"{chart.slug}_{axis}_{value}"),
      title=f"{chart.title}, {place}",
      note=f"{chart.note} Grey: other values of {axis}.",
      series=sorted(series, key=lambda one: not one.is_context),
    )


def _is_same_but_for_the_model(a: Score, b: Score) -> bool:
  other = {"compared_with": a.compared_with, "model": a.model}
  return (
    a.compared_with != b.compared_with and dataclasses.replace(b, **other) == a
  )


def _path(arm: arms.Arm, colour: int, x: Score, y: Score) -> Series:
  """Means over the seeds of both distances, in the order of the updates."""
  across, up = (
    curves.over_seeds(arm.runs, score, arm.name, colour) for score in (x, y)
  )
  values = dict(zip(across.xs, across.ys, strict=True))
  both = [
    (values[s], v) for s, v in zip(up.xs, up.ys, strict=True) if s in values
  ]
  xs, ys = zip(*both, strict=True) if both else ((), ())
  return Series(arm.name, colour, ys, xs)
