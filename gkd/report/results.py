"""The table of results and its charts: rows of results.json, over seeds.

The experiment that wrote the file describes its columns there: title, unit,
direction, and the chart that a column is drawn in.
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
import re
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError
from gkd.report import formats
from gkd.report import metric_info
from gkd.report import result_files
from gkd.report import tables
from gkd.report.arms import Arm
from gkd.report.arms import Run
from gkd.report.arms import mean
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.charts import bars
from gkd.report.tables import Cell
from gkd.report.tables import Table

# What tells the arms of a table apart, besides their names.
_SETTINGS = {
  "lambda": "λ",
  "divergence": "divergence",
  "labels": "labels",
  "threads": "threads",
}


class Results(NamedTuple):
  """A table of results."""

  rows: Sequence[Mapping[str, Any]] = ()  # one object per method and seed
  meta: Mapping[str, Any] = {}  # how the table was made
  # {name: {"title", "unit", "direction", "chart"}} of its numbers
  columns: Mapping[str, Mapping[str, str]] = {}
  # {name of a run's folder: label of its arm}, in reading order
  labels: Mapping[str, str] = {}
  # {name of a run's folder: {axis of its grid: value}}
  axes: Mapping[str, Mapping[str, Any]] = {}

  def joined(self, other: "Results") -> "Results":
    others = zip(self[1:], other[1:], strict=True)
    return Results([*self.rows, *other.rows], *({**a, **b} for a, b in others))


def read(folder: str) -> Results:
  """The results.json of a folder; without rows if there is none."""
  path = os.path.join(folder, "results.json")
  types = {"rows": list, "meta": dict, "columns": dict, "labels": dict}
  types["axes"] = {str: dict}
  content = result_files.json_object(path, types)
  rows = content.get("rows") or ()
  if content and not (
    "rows" in content and all(isinstance(row, dict) for row in rows)
  ):
    raise UserError(
      f'{path} cannot be read as results; expected an object with "rows", a'
      " list of objects; make it again or move it away"
    )
  if not rows:
    return Results()
  return Results(*(content.get(name) or {} for name in types))


class Column(NamedTuple):
  """Numbers of a results table, as the experiment describes them."""

  name: str
  title: str
  unit: str = ""
  direction: str = ""
  chart: str = ""

  @property
  def header(self) -> str:
    return f"{self.title} ({self.unit})" if self.unit else self.title


def groups(results: Results) -> list[Arm]:
  """Rows of one run (or method) and settings, in the order of the table."""
  rows = collections.defaultdict(list)
  for row in results.rows:
    name = str(row.get("run") or row.get("method") or "?")
    rows[name, *_settings(row)].append(row)
  arms = []
  for key, members in rows.items():
    label = results.labels.get(key[0], formats.plain(key[0]))
    label += _details(key, [other for other in rows if other[0] == key[0]])
    arms.append(Arm(label, [_run(row) for row in members]))
  return arms


def _settings(row: Mapping[str, Any]) -> list[Any]:
  return [row.get(name) for name in _SETTINGS]


def _run(row: Mapping[str, Any]) -> Run:
  """A row as a run whose metrics have a single value."""
  numbers = {n: {0: v} for n, v in row.items() if formats.is_number(v)}
  return Run(name="", path="", metrics=numbers, about=row)


def table(results: Results) -> Table:
  """One row per arm: mean and spread over the seeds, then settings."""
  arms = groups(results)
  rows = [arm.runs[0].about for arm in arms]
  columns = [("method", [Cell(arm.name) for arm in arms], False)]
  for column in _columns(results, arms):
    decimals = metric_info.DECIMALS.get(column.unit)
    cells = tables.best_cells(
      [formats.spread(arm.values(column.name), decimals) for arm in arms],
      [
        math.nan if row.get("method") == "teacher" else arm.mean(column.name)
        for arm, row in zip(arms, rows, strict=True)
      ],
      column.direction,
    )
    columns.append((column.header, cells, True))
  for name, title in _SETTINGS.items():
    texts = [formats.setting(row.get(name)) for row in rows]
    if {*texts} != {"–"}:
      columns.append((title, list(map(Cell, texts)), name == "lambda"))
  header, cells, numeric = zip(*columns, strict=True)
  num_seeds = max(len(arm.runs) for arm in arms)
  note = (
    f"Mean ± sample standard deviation over {num_seeds} seeds."
    if num_seeds > 1
    else "One seed: differences of a few points may be chance."
  )
  if any(cell.is_best for column in cells for cell in column):
    note += " The best student of a column is bold."
  return Table("Results", header, list(zip(*cells, strict=True)), note, numeric)


def charts(results: Results) -> list[Chart]:
  """Bars for each chart that columns name, and the dependence on λ."""
  arms = groups(results)
  by_chart: dict[str, list[Column]] = {}
  for column in _columns(results, arms):
    by_chart.setdefault(column.chart, []).append(column)
  by_chart.pop("", None)
  drawn = [_bars(arms, title, chosen) for title, chosen in by_chart.items()]
  first = next(iter(by_chart.values()), [])[:1]
  drawn += [_lambda_chart(arms, column) for column in first]
  return [chart for chart in drawn if chart is not None]


def _columns(results: Results, arms: Iterable[Arm]) -> list[Column]:
  """Those that the experiment describes; without any, all with numbers."""
  names = {n for row in results.rows for n in row} - {*_SETTINGS, "seed"}
  described = results.columns or {name: {} for name in sorted(names)}
  columns = []
  for name, about in described.items():
    title = str(about.get("title") or formats.plain(name))
    others = (str(about.get(field, "")) for field in Column._fields[2:])
    columns.append(Column(name, title, *others))
  return [c for c in columns if any(arm.values(c.name) for arm in arms)]


def _details(key: tuple, same: Sequence[tuple]) -> str:
  """Those settings that tell rows of one run or method apart."""
  details = ""
  for place, title in enumerate(_SETTINGS.values(), start=1):
    if len({other[place] for other in same}) > 1 and key[place] is not None:
      prefix = f"{title} " if formats.is_number(key[place]) else ""
      details += f", {prefix}{formats.setting(key[place])}"
  return details


def _bars(arms: Iterable[Arm], title: str, columns: Sequence[Column]) -> Chart:
  shown = [a for a in arms if any(a.values(c.name) for c in columns)]
  series = [
    Series(
      name=column.title,
      colour=colour,
      ys=[arm.mean(column.name) for arm in shown],
      points=[arm.values(column.name) for arm in shown],
    )
    for colour, column in enumerate(columns)
  ]
  slug = re.sub(r"\W+", "_", title).lower()
  notes = [formats.unit_sentence(columns[0].unit)]
  return bars(slug, title, notes, [arm.name for arm in shown], series)


def _lambda_chart(arms: Iterable[Arm], column: Column) -> Chart | None:
  """A column against λ: one line per divergence and kind of labels.

  At λ = 1 labels are not used, so this point ends every line of a divergence.
  A line whose groups differ in something else at one λ is not drawn.
  """
  points: dict[tuple[str, str], dict[float, list[list[float]]]] = {}
  for arm in arms:
    fraction, divergence, labels, threads = _settings(arm.runs[0].about)
    values = arm.values(column.name)
    if formats.is_number(fraction) and divergence and values:
      on = f", {threads} threads" if threads else ""
      key = (divergence + on, "" if fraction == 1 else labels or "")
      line = points.setdefault(key, {})
      line.setdefault(float(fraction), []).append(values)
  lines = {
    ", ".join(filter(None, key)): line | points.get((key[0], ""), {})
    for key, line in sorted(points.items())
  }
  series = [
    Series(
      name=name,
      colour=colour,
      ys=[mean(line[x][0]) for x in sorted(line)],
      xs=sorted(line),
      low=[min(line[x][0]) for x in sorted(line)],
      high=[max(line[x][0]) for x in sorted(line)],
    )
    for colour, (name, line) in enumerate(lines.items())
    if len(line) > 1 and all(len(values) == 1 for values in line.values())
  ]
  if not series:
    return None
  return Chart(
    slug="lambda_dependence",
    title=f"{column.header[:1].upper()}{column.header[1:]} against λ",
    note="λ is the share of updates on text that the student wrote; the rest is"
    " on the labels named. At λ = 1 no labels are used.",
    kind="lines",
    series=series,
    x_label="λ",
    has_own_lines=True,
  )
