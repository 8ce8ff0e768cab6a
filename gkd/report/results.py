"""The table of results and its charts: rows of results.json, over seeds.

The experiment that wrote the file describes its columns there: title, unit,
direction, and the chart that a column is drawn in.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import re
from typing import Any

from gkd.report import formats
from gkd.report import metric_info
from gkd.report import tables
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.read import Results
from gkd.report.tables import Cell
from gkd.report.tables import Table

# What tells the arms of a table apart, besides their names.
_SETTINGS = ("lambda", "divergence", "labels")
_TEACHER = "teacher"


@dataclasses.dataclass(frozen=True)
class Group:
  """Rows of a results table that differ in the seed alone."""

  label: str
  method: str
  settings: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]

  def values(self, column: str) -> list[float]:
    """The finite values of a column, one per seed."""
    numbers = [row.get(column) for row in self.rows]
    return tables.finite(filter(formats.is_number, numbers))

  def mean(self, column: str) -> float:
    return tables.mean(self.values(column))


def groups(results: Results) -> list[Group]:
  """Rows of one run (or method) and settings, in the order of the table."""
  collected: dict[tuple, list[Mapping[str, Any]]] = {}
  for row in results.rows:
    head = str(row.get("run") or row.get("method") or "?")
    key = (head, *(row.get(name) for name in _SETTINGS))
    collected.setdefault(key, []).append(row)
  return [
    Group(
      label=_label(key, collected, results.labels),
      method=str(rows[0].get("method", "?")),
      settings=dict(zip(_SETTINGS, key[1:], strict=True)),
      rows=rows,
    )
    for key, rows in collected.items()
  ]


def table(results: Results) -> Table:
  """One row per arm: mean and spread over the seeds, then settings."""
  found = groups(results)
  students = [group for group in found if group.method != _TEACHER]
  columns, shared = _columns(results, found, students)
  settings = [
    name
    for name in _SETTINGS
    if any(group.settings[name] not in (None, "") for group in found)
  ]
  best = {
    name: metric_info.best(
      results.columns.get(name, {}).get("direction", ""),
      [group.mean(name) for group in students],
    )
    for name in columns
  }
  rows = [
    [
      Cell(group.label),
      *(
        Cell(
          formats.spread(group.values(name), _decimals(results, name)),
          is_best=group in students and group.mean(name) == best[name],
        )
        for name in columns
      ),
      *(Cell(formats.setting(group.settings[name])) for name in settings),
    ]
    for group in found
  ]
  num_seeds = max(len(group.rows) for group in found)
  note = (
    f"Mean ± sample standard deviation over {num_seeds} seeds."
    if num_seeds > 1
    else "One seed: differences of a few points may be chance."
  )
  if not all(math.isnan(value) for value in best.values()):
    note += " The best student of a column is bold."
  for name, value in shared.items():
    note += f" All students: {formats.number(value)} {formats.plain(name)}."
  return Table(
    title="Results",
    header=[
      "method",
      *(_title(results, name) for name in columns),
      *(name.replace("lambda", "λ") for name in settings),
    ],
    rows=rows,
    note=note,
    numeric=[False]
    + [True] * len(columns)
    + [name == "lambda" for name in settings],
  )


def charts(results: Results) -> list[Chart]:
  """Bars for each chart that columns name, and the dependence on λ."""
  found = groups(results)
  names: dict[str, list[str]] = {}
  for column, described in results.columns.items():
    if described.get("chart"):
      names.setdefault(described["chart"], []).append(column)
  bars = [_bars(results, found, *chart) for chart in names.items()]
  drawn = [*bars, _lambda_chart(results, found)]
  return [chart for chart in drawn if chart is not None]


def _columns(
  results: Results, found: Sequence[Group], students: Sequence[Group]
) -> tuple[list[str], dict[str, float]]:
  """Names of the columns, and numbers that all students share instead."""
  names = dict.fromkeys(
    name
    for name in [
      *results.columns,
      *sorted({n for r in results.rows for n in r}),
    ]
    if name not in {*_SETTINGS, "seed"} and any(g.values(name) for g in found)
  )
  columns, shared = [], {}
  for name in names:
    values = {row.get(name) for group in students for row in group.rows}
    # A single row has nothing to share a number with.
    is_shared = len(values) == 1 and sum(len(g.rows) for g in students) > 1
    if is_shared and name not in results.columns:
      shared[name] = values.pop()
    else:
      columns.append(name)
  return columns, shared


def _title(results: Results, column: str) -> str:
  described = results.columns.get(column, {})
  unit = described.get("unit")
  title = described.get("title") or formats.plain(column)
  return f"{title} ({unit})" if unit else title


def _decimals(results: Results, column: str) -> int | None:
  unit = results.columns.get(column, {}).get("unit", "")
  return metric_info.DECIMALS.get(unit)


def _label(
  key: tuple, others: Sequence[tuple] | Mapping, labels: Mapping[str, str]
) -> str:
  """The run or method, with those settings that tell its rows apart."""
  label = labels.get(key[0], formats.plain(key[0]))
  same = [other for other in others if other[0] == key[0]]
  for place, name in enumerate(_SETTINGS, start=1):
    if len({other[place] for other in same}) > 1 and key[place] is not None:
      value = formats.setting(key[place])
      label += f", λ {value}" if name == "lambda" else f", {value}"
  return label


def _bars(
  results: Results,
  found: Sequence[Group],
  title: str,
  columns: Sequence[str],
) -> Chart | None:
  shown = [g for g in found if any(g.values(name) for name in columns)]
  if not shown:
    return None
  unit = results.columns[columns[0]].get("unit", "")
  notes = [formats.unit_sentence(unit)] if unit else []
  if any(len(group.rows) > 1 for group in shown):
    notes.append("Bars are means over seeds, dots single seeds.")
  series = [
    Series(
      name=results.columns[column].get("title") or formats.plain(column),
      colour=colour,
      ys=[group.mean(column) for group in shown],
      points=[group.values(column) for group in shown],
    )
    for colour, column in enumerate(columns)
    if any(group.values(column) for group in shown)
  ]
  slug = re.sub(r"\W+", "_", title).lower()
  labels = [group.label for group in shown]
  note = " ".join(notes)
  return Chart(slug, title, note, "bars", series, x_label="", groups=labels)


def _lambda_chart(results: Results, found: Sequence[Group]) -> Chart | None:
  """First column against λ: one line per divergence and kind of labels.

  At λ = 1 labels are not used, so this point ends every line of a divergence.
  A line whose groups differ in something else at one λ is not drawn.
  """
  column = next(iter(results.columns), "")
  at: dict[tuple[str, str], dict[float, list[list[float]]]] = {}
  ends: dict[str, list[list[float]]] = {}
  for group in found:
    fraction, values = group.settings["lambda"], group.values(column)
    divergence = str(group.settings["divergence"] or "")
    if not (formats.is_number(fraction) and divergence and values):
      continue
    if fraction == 1:
      ends.setdefault(divergence, []).append(values)
    else:
      line = at.setdefault(
        (divergence, str(group.settings["labels"] or "")), {}
      )
      line.setdefault(float(fraction), []).append(values)
  lines = {}
  for (divergence, labels), line in sorted(at.items()):
    whole = line | ({1.0: ends[divergence]} if divergence in ends else {})
    if len(whole) > 1 and all(len(values) == 1 for values in whole.values()):
      name = ", ".join(filter(None, (divergence, labels)))
      lines[name] = {x: whole[x][0] for x in sorted(whole)}
  if not lines:
    return None
  series = [
    Series(
      name=name,
      colour=colour,
      ys=[tables.mean(values) for values in line.values()],
      xs=list(line),
      low=[min(values) for values in line.values()],
      high=[max(values) for values in line.values()],
    )
    for colour, (name, line) in enumerate(lines.items())
  ]
  title = _title(results, column)
  return Chart(
    slug="lambda_dependence",
    title=f"{title[:1].upper()}{title[1:]} against λ",
    note="λ is the share of updates on text that the student wrote; the rest is"
    " on the labels named. At λ = 1 no labels are used.",
    kind="lines",
    series=series,
    x_label="λ",
  )
