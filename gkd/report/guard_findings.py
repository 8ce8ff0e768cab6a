"""What the guard of each run found, in words and on log-log axes.

There the distance to the teacher falls along a straight line on fresh data;
`guard.json` of a run has that line, the sentence and the evaluations.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import math

from gkd.report import arms
from gkd.report import formats
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.tables import Cell
from gkd.report.tables import Table

# Of guard.json; null or absent where there is none.
TYPES = {
  "alarm": {"onset": int},
  "metric": str,
  "power_law": {"intercept": float, "slope": float, "steps": [int]},
  "series": {"steps": [int], "held_out": list, "trained": list},
  "words": str,
}
# Colours of the palette.
_HELD_OUT, _TRAINED, _ONSET = 0, 1, 4


def charts(runs: Iterable[arms.Run]) -> tuple[list[Chart], list[Chart]]:
  """Charts of the runs with an alarm, and of those without a sign."""
  guarded = [run for run in runs if run.guard.get("series")]
  alarmed = [_chart(run) for run in guarded if run.guard.get("alarm")]
  return alarmed, [_chart(x) for x in guarded if not x.guard.get("alarm")]


def table(runs: Iterable[arms.Run]) -> Table | None:
  """A row for each arm with a guard: alarms, onsets, and words."""
  rows = []
  for arm in arms.by_arm(run for run in runs if run.guard.get("series")):
    alarmed = [run for run in arm.runs if run.guard.get("alarm")]
    onsets = [run.guard["alarm"]["onset"] for run in alarmed]
    example = (alarmed or arm.runs)[0]
    rows.append(
      [
        arm.name,
        f"{len(alarmed)} of {len(arm.runs)}",
        formats.spread(onsets, 0),
        example.guard.get("words") or "",
      ]
    )
  if not rows:
    return None
  return Table(
    title="Alarms of the guard",
    header=[
      "run",
      "seeds with an alarm",
      "suspected from update",
      "in words, one seed",
    ],
    rows=[list(map(Cell, row)) for row in rows],
    numeric=[False, False, True, False],
  )


def _chart(run: arms.Run) -> Chart:
  """Distances on held-out prompts and as trained, the power law, the onset."""
  found = run.guard
  steps, held_out, trained = (
    found["series"][name] for name in ("steps", "held_out", "trained")
  )
  series = [
    _line("on held-out prompts", _HELD_OUT, steps, held_out),
    _line("on the texts as trained", _TRAINED, steps, trained),
  ]
  if law := found.get("power_law"):
    first, last = law["steps"]
    xs = [step for step in steps if step >= first]
    ys = [math.exp(law["intercept"]) * x ** law["slope"] for x in xs]
    name = f"power law of the updates {first:,} to {last:,}"
    series.append(Series(name, None, ys, xs, is_reference=True))
  if alarm := found.get("alarm"):
    ends = [f(y for one in series for y in one.ys) for f in (min, max)]
    xs = [alarm["onset"]] * 2
    series.append(Series("onset", _ONSET, ends, xs, is_reference=True))
  return Chart(
    slug=f"guard_{run.name}",
    title=f"{run.title}: {found.get('metric')}",
    note=found.get("words") or "",
    kind="lines",
    series=[one for one in series if one.xs],
    x_scale="log",
    y_scale="log",
    has_own_lines=True,
  )


def _line(
  name: str,
  colour: int,
  steps: Sequence[int],
  values: Sequence[float | None],
) -> Series:
  """Of the values that have a logarithm."""
  points = [(x, y) for x, y in zip(steps, values, strict=False) if y and y > 0]
  return Series(name, colour, [y for _, y in points], [x for x, _ in points])
