"""One chart of curves over the updates, with its bands and the teacher.

A band is what is known of a line: over several seeds from the lowest to the
highest, for a single run its confidence interval, and where a long curve is
drawn in stretches the lowest and highest of each.
"""

from collections.abc import Sequence
import math
import re
import statistics

from gkd.report import measures
from gkd.report import states
from gkd.report import tables
from gkd.report import thinning
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Run
from gkd.report.runs import by_arm
from gkd.report.thinning import Line

# Values so far above the middle one press a linear axis flat.
_OUTLYING = 30.0
# Steps 1, 2, 4, … have most of them in the first quarter of a linear axis.
_CROWDED = 0.25
_MIN_LOG_POINTS = 5
# An axis from the lowest to the highest value, with margins, has to be finite.
_LARGEST = 1e300
_INTERVAL = "Band: 95 % interval over the prompts."
_TEACHER = "teacher, same examples"
_LOG = "Logarithmic vertical axis."


def chart(
  runs: Sequence[Run], name: str, title: str, note: str
) -> Chart | None:
  """The curves of one metric; None where no run has two points of it.

  Args:
    runs: of the report; the place of an arm in it is its colour.
    name: of the metric.
    title: of the chart.
    note: how to read it; what a band means is added.
  """
  whole = {
    (colour, arm): (_line(found, name), _breaks(found, name))
    for colour, (arm, found) in enumerate(_curved(runs).items())
  }
  whole = {key: found for key, found in whole.items() if found[0].xs}
  # A single point says no more than the table does.
  if max((len(line.xs) for line, _ in whole.values()), default=0) < 2:
    return None
  series = [
    _series(arm, colour, line, is_broken=broken)
    for (colour, arm), (line, broken) in whole.items()
  ]
  teachers = _teachers(runs, name)
  values = [
    y for one in (*series, *teachers) for y in (*one.ys, *one.low, *one.high)
  ]
  steps = sorted({x for line, _ in whole.values() for x in line.xs})
  notes = [note]
  notes += [_INTERVAL] * _has_interval(runs, name)
  notes += [_LOG] * is_outlying(values)
  return Chart(
    slug=re.sub(r"\W+", "_", name),
    title=title,
    note=" ".join(filter(None, notes)),
    kind="lines",
    series=[*series, *teachers],
    x_label="updates",
    x_scale="log" if is_log_spaced(steps) else "linear",
    y_scale="log" if is_outlying(values) else "linear",
    is_thinned=any(
      len(line.xs) > thinning.MAX_POINTS for line, _ in whole.values()
    ),
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


def over_seeds(runs: Sequence[Run], name: str) -> Line:
  """Mean, lowest and highest at the steps that all runs report.

  Where they have none in common, at all of them. Values that are not finite
  are left out.
  """
  lines = [_points(run, name) for run in runs]
  lines = [line for line in lines if line]
  if not lines:
    return Line([], [], [], [])
  if len(lines) == 1:
    xs, ys = list(lines[0]), list(lines[0].values())
    return Line(xs, ys, ys, ys)
  steps = set(lines[0]).intersection(*lines[1:]) or set().union(*lines)
  xs, columns = sorted(steps), []
  for step in xs:
    values = [line[step] for line in lines if step in line]
    columns.append((tables.mean(values), min(values), max(values)))
  return Line(xs, *map(list, zip(*columns, strict=True)))


def _curved(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """The arms with those of their runs that trained; all keep their place."""
  return {
    arm: [run for run in found if not run.is_evaluation]
    for arm, found in by_arm(runs).items()
  }


def _line(found: Sequence[Run], name: str) -> Line:
  line = over_seeds(found, name)
  if len(found) != 1 or not line.xs:
    return line
  low, high = (_points(found[0], bound) for bound in measures.bounds(name))
  return line._replace(
    low=[low.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)],
    high=[high.get(x, y) for x, y in zip(line.xs, line.ys, strict=True)],
  )


def _points(run: Run, name: str) -> dict[int, float]:
  """{step: value that can be drawn}; memory in MiB.

  Values that are not finite are left out, and so are those whose distance
  would not be: no axis holds them.
  """
  scale = 2.0**-20 if name.endswith("_bytes") else 1.0
  pairs = zip(*run.metrics.get(name, ((), ())), strict=True)
  return {step: y * scale for step, y in pairs if abs(y) < _LARGEST}


def _series(arm: str, colour: int, line: Line, *, is_broken: bool) -> Series:
  line = thinning.thin(line)
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


def _breaks(found: Sequence[Run], name: str) -> bool:
  """Whether a run of the arm ended in values that were not finite."""
  return any(
    states.diverged(run) and not math.isfinite(run.last(name)) for run in found
  )


def _has_interval(runs: Sequence[Run], name: str) -> bool:
  low, _ = measures.bounds(name)
  return any(
    len(found) == 1 and low in found[0].metrics
    for found in _curved(runs).values()
  )


def _teachers(runs: Sequence[Run], name: str) -> list[Series]:
  """The teacher's scores: one line where all arms have the same teacher."""
  teacher = measures.of_teacher(name)
  found = {
    (colour, arm): over_seeds(members, teacher)
    for colour, (arm, members) in enumerate(_curved(runs).items())
  }
  found = {key: line for key, line in found.items() if line.xs}
  levels = {tuple(sorted(set(line.ys))) for line in found.values()}
  if len(levels) == 1:
    longest = max(found.values(), key=lambda line: line.xs[-1])
    found = {(None, _TEACHER): longest}
  return [
    Series(
      name=arm if colour is None else f"teacher of {arm}",
      colour=colour,
      xs=line.xs,
      ys=line.ys,
      is_reference=True,
    )
    for (colour, arm), line in found.items()
  ]
