"""Scores against an axis of a grid whose values are numbers or begin with one.

Such as the number of prompts, or of texts for each (Tiapkin et al., arXiv
2502.02671, Figures 6 and 7), λ, or a learning rate. Numbers are sorted; names
such as 400x4 stay in the order of the grid.
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import math
import re
from typing import Any

from gkd.report import arms
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.metric_info import Score

_BEST = {"min": (min, "lowest"), "max": (max, "highest")}

Place = float | str  # value of an axis
Line = Mapping[Place, Sequence[arms.Run]]


def sections(runs: Sequence[arms.Run]) -> dict[str, list[Chart | None]]:
  """{section: charts of the scores} for each axis."""
  scores = metric_info.scores(arms.metrics_of(runs))
  scores = [score for score in scores if metric_info.is_headline(score)]
  axes = dict.fromkeys(axis for run in runs for axis in run.axes)
  return {
    f"Evaluation: against {axis}": [
      _chart(runs, axis, score, metric_info.describe(score, scores))
      for score in scores
    ]
    for axis in axes
  }


def _chart(
  runs: Sequence[arms.Run], axis: str, score: Score, name: str
) -> Chart | None:
  """A line for each choice of the other axes; None where none has two points.

  Args:
    runs: of the report.
    axis: of the grid.
    score: what is drawn over its values.
    name: of the score.
  """
  lines = _lines(runs, axis, score)
  if not lines:
    return None
  xs = list(dict.fromkeys(run.axes.get(axis) for run in runs))
  xs = [x for x in xs if any(x in line for line in lines.values())]
  if all(map(formats.is_number, xs)):
    xs.sort()
  note = f"{formats.unit_sentence(score.unit)} Solid: at the end of the runs."
  best, word = _BEST.get(score.direction, (None, ""))
  if best:
    note += f" Dashed: the {word} of each run."
  series = []
  for colour, (line, by_x) in enumerate(lines.items()):
    ends = {x: [run.last(score) for run in by_x[x]] for x in by_x}
    series.append(_over_seeds(line or "at the end", colour, xs, ends))
    if best:
      of_runs = {
        x: [best(arms.finite(run.metrics[score].values())) for run in by_x[x]]
        for x in by_x
      }
      name_of_best = f"{line}, {word}" if line else word
      dashed = _over_seeds(name_of_best, colour, xs, of_runs, is_reference=True)
      series.append(dashed)
  series += _references(score, lines.values(), xs)
  return Chart(
    slug=re.sub(r"\W+", "_", f"{metric_info.slug(score)}_against_{axis}"),
    title=f"{name[:1].upper()}{name[1:]}",
    note=note,
    kind="lines",
    series=series,
    x_label=axis,
    x_ticks=[x if isinstance(x, str) else formats.number(x) for x in xs],
    has_own_lines=True,
  )


def _over_seeds(
  name: str,
  colour: int | None,
  xs: Sequence[Place],
  values: Mapping[Place, Sequence[float]],
  **fields,
) -> Series:
  """Mean, lowest and highest of the values at the places of the axis."""
  places = [place for place, x in enumerate(xs) if values.get(x)]
  of_places = [values[xs[place]] for place in places]
  ys, low, high = (list(map(f, of_places)) for f in (arms.mean, min, max))
  return Series(name, colour, ys, places, low, high, **fields)


def _references(
  score: Score, lines: Iterable[Line], xs: Sequence[Place]
) -> Iterator[Series]:
  """The same score of the other models of the runs, for each role."""
  at = {x: [run for line in lines for run in line.get(x, ())] for x in xs}
  runs = [run for x in xs for run in at[x]]
  by_role = collections.defaultdict(set)
  for others in tables.references(runs, [score]).values():
    by_role[others[score].role].add(others[score])
  for role, metrics in by_role.items():
    values = {
      x: arms.finite(run.last(metric) for run in at[x] for metric in metrics)
      for x in xs
    }
    name = f"{role.capitalize()}, same examples"
    yield _over_seeds(name, None, xs, values, is_reference=True)


def _lines(
  runs: Sequence[arms.Run], axis: str, score: Score
) -> dict[str, Line]:
  """By the values of the other axes that differ; none without two points."""
  lines: dict[tuple, dict[Place, list[arms.Run]]] = {}
  for run in runs:
    x = run.axes.get(axis)
    is_ordered = formats.is_number(x) or str(x)[:1].isdigit()
    if is_ordered and math.isfinite(run.last(score)):
      others = tuple(item for item in run.axes.items() if item[0] != axis)
      line = lines.setdefault(others, collections.defaultdict(list))
      line[x].append(run)
  if not any(len(line) > 1 for line in lines.values()):
    return {}
  alike = set.intersection(*map(set, lines))
  return {
    ", ".join(_value(*item) for item in key if item not in alike): line
    for key, line in lines.items()
  }


def _value(axis: str, value: Any) -> str:
  """offline; prompts 500."""
  return f"{axis} {value}" if formats.is_number(value) else str(value)
