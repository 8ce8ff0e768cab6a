"""The table of results and its charts: rows of results.json, over seeds.

The experiment that wrote the file describes its columns there: title, unit,
direction, and the chart that a column is drawn in.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.charts import bars
from gkd.report.read import Results
from gkd.report.tables import Cell
from gkd.report.tables import Table

# What tells the arms of a table apart, besides their names.
_SETTINGS = {"lambda": "λ", "divergence": "divergence", "labels": "labels"}


@dataclasses.dataclass(frozen=True)
class Group:
  """Rows of a results table that differ in the seed alone."""

  label: str
  is_teacher: bool
  settings: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]

  def values(self, column: str) -> list[float]:
    """The finite values of a column, one per seed."""
    numbers = [row.get(column) for row in self.rows]
    return tables.finite(filter(formats.is_number, numbers))

  def mean(self, column: str) -> float:
    return tables.mean(self.values(column))


@dataclasses.dataclass(frozen=True)
class Column:
  """Numbers of a results table, as the experiment describes them."""

  name: str
  title: str = ""
  unit: str = ""
  direction: str = ""
  chart: str = ""

  @property
  def header(self) -> str:
    title = self.title or formats.plain(self.name)
    return f"{title} ({self.unit})" if self.unit else title


def groups(results: Results) -> list[Group]:
  """Rows of one run (or method) and settings, in the order of the table."""
  collected: dict[tuple, list[Mapping[str, Any]]] = {}
  for row in results.rows:
    head = str(row.get("run") or row.get("method") or "?")
    key = (head, *(row.get(name) for name in _SETTINGS))
    collected.setdefault(key, []).append(row)
  return [
    Group(
      label=results.labels.get(key[0], formats.plain(key[0]))
      + _details(key, [other for other in collected if other[0] == key[0]]),
      is_teacher=rows[0].get("method") == "teacher",
      settings=dict(zip(_SETTINGS, key[1:], strict=True)),
      rows=rows,
    )
    for key, rows in collected.items()
  ]


def table(results: Results) -> Table:
  """One row per arm: mean and spread over the seeds, then settings."""
  found = groups(results)
  students = [group for group in found if not group.is_teacher]
  columns = [("method", [Cell(group.label) for group in found], False)]
  for column in _columns(results, found):
    means = [group.mean(column.name) for group in students]
    best = metric_info.best(column.direction, means)
    decimals = metric_info.DECIMALS.get(column.unit)
    cells = [
      Cell(
        formats.spread(group.values(column.name), decimals),
        is_best=group in students and group.mean(column.name) == best,
      )
      for group in found
    ]
    columns.append((column.header, cells, True))
  for name, title in _SETTINGS.items():
    texts = [formats.setting(group.settings[name]) for group in found]
    if {*texts} != {"–"}:
      columns.append((title, list(map(Cell, texts)), name == "lambda"))
  header, cells, numeric = zip(*columns, strict=True)
  num_seeds = max(len(group.rows) for group in found)
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
  found = groups(results)
  by_chart: dict[str, list[Column]] = {}
  for column in _columns(results, found):
    by_chart.setdefault(column.chart, []).append(column)
  by_chart.pop("", None)
  drawn = [_bars(found, title, chosen) for title, chosen in by_chart.items()]
  first = next(iter(by_chart.values()), [])[:1]
  drawn += [_lambda_chart(found, column) for column in first]
  return [chart for chart in drawn if chart is not None]


def _columns(results: Results, found: Sequence[Group]) -> list[Column]:
  """Those that the experiment describes; without any, all with numbers."""
  names = {n for row in results.rows for n in row} - {*_SETTINGS, "seed"}
  described = results.columns or {name: {} for name in sorted(names)}
  fields = ("title", "unit", "direction", "chart")
  columns = [
    Column(name, *(str(about.get(field, "")) for field in fields))
    for name, about in described.items()
  ]
  return [c for c in columns if any(group.values(c.name) for group in found)]


def _details(key: tuple, same: Sequence[tuple]) -> str:
  """Those settings that tell rows of one run or method apart."""
  details = ""
  for place, name in enumerate(_SETTINGS, start=1):
    if len({other[place] for other in same}) > 1 and key[place] is not None:
      prefix = "λ " if name == "lambda" else ""
      details += f", {prefix}{formats.setting(key[place])}"
  return details


def _bars(
  found: Sequence[Group], title: str, columns: Sequence[Column]
) -> Chart:
  shown = [g for g in found if any(g.values(c.name) for c in columns)]
  series = [
    Series(
      name=column.title or formats.plain(column.name),
      colour=colour,
      ys=[group.mean(column.name) for group in shown],
      points=[group.values(column.name) for group in shown],
    )
    for colour, column in enumerate(columns)
  ]
  slug = re.sub(r"\W+", "_", title).lower()
  notes = [formats.unit_sentence(columns[0].unit)]
  return bars(slug, title, notes, [group.label for group in shown], series)


def _lambda_chart(found: Sequence[Group], column: Column) -> Chart | None:
  """A column against λ: one line per divergence and kind of labels.

  At λ = 1 labels are not used, so this point ends every line of a divergence.
  A line whose groups differ in something else at one λ is not drawn.
  """
  points: dict[tuple[str, str], dict[float, list[list[float]]]] = {}
  for group in found:
    fraction, divergence, labels = group.settings.values()
    values = group.values(column.name)
    if formats.is_number(fraction) and divergence and values:
      key = (divergence, "" if fraction == 1 else labels or "")
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
      ys=[tables.mean(line[x][0]) for x in sorted(line)],
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
  )
