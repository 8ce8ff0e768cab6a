"""Charts of the distance to one model against that to another.

A student that comes closer to its teacher may at the same time move away from
a third model (Tiapkin et al., arXiv 2502.02671, Figure 4): its path over the
updates then goes left, and up.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools

from gkd.report import arms
from gkd.report import curves
from gkd.report import metric_info
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score


def charts(runs: Sequence[arms.Run]) -> Iterator[Chart]:
  """A chart for each distance that is measured to two models.

  Args:
    runs: of the report; the place of an arm in it is its colour.
  """
  distances = [
    score
    for score in metric_info.scores(arms.metrics_of(runs))
    if score.compared_with and metric_info.is_headline(score)
  ]
  for a, b in itertools.combinations(distances, 2):
    if not _is_same_but_for_the_model(a, b):
      continue
    # The distance to the teacher, which training lowers, is horizontal.
    x, y = sorted((a, b), key=lambda score: score.compared_with != "teacher")
    paths = [
      path
      for colour, arm in enumerate(arms.by_arm(runs))
      if len((path := _path(arm, colour, x, y)).xs) > 1
    ]
    if not paths:
      continue
    name = metric_info.describe(x, [x])
    yield Chart(
      slug=f"{metric_info.slug(y)}_against_{x.compared_with}_{x.model}",
      title=f"{name[:1].upper()}{name[1:]}: to the {y.compared_with} against"
      f" to the {x.compared_with}",
      note="Over the updates, the dot is the end; mean over seeds. Left is"
      f" closer to the {x.compared_with}, down is closer to the"
      f" {y.compared_with}.",
      kind="lines",
      series=[*paths, *curves.references(arms.by_arm(runs), y)],
      x_label=f"distance to the {x.compared_with} ({x.unit})",
      is_path=True,
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
