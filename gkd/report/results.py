"""The table of results: rows of results.json, brought together over seeds."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

from gkd.report import formats
from gkd.report import measures
from gkd.report import names
from gkd.report import tables
from gkd.report.runs import Results
from gkd.report.tables import Cell
from gkd.report.tables import Table

_COLUMNS = {
  "accuracy_greedy": "accuracy, greedy (%)",
  "accuracy_sampled": "accuracy, sampled (%)",
  "forward_kl": "forward KL (nats a sequence)",
  "reverse_kl": "reverse KL (nats a sequence)",
  "train_seconds": "training (s)",
}
_SETTINGS = ("lambda", "divergence", "labels")


@dataclasses.dataclass(frozen=True)
class Group:
  """Rows of a results table that differ in the seed alone."""

  label: str
  method: str
  settings: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]

  def values(self, name: str) -> list[float]:
    """The finite values of a column, one per seed."""
    found = [row.get(name) for row in self.rows]
    numbers = [float(value) for value in found if formats.is_number(value)]
    return [number for number in numbers if math.isfinite(number)]


def groups(results: Results) -> list[Group]:
  """Rows of one run (or method) and settings, in reading order."""
  collected: dict[tuple, list[Mapping[str, Any]]] = {}
  for row in results.rows:
    head = str(row.get("run") or row.get("method") or "?")
    key = (head, *(row.get(name) for name in _SETTINGS))
    collected.setdefault(key, []).append(row)
  keys = sorted(collected, key=lambda key: names.place(key[0]))
  return [
    Group(
      label=_label(key, keys, named=bool(collected[key][0].get("run"))),
      method=str(collected[key][0].get("method", "?")),
      settings=dict(zip(_SETTINGS, key[1:], strict=True)),
      rows=collected[key],
    )
    for key in keys
  ]


def results_table(results: Results) -> Table:
  """One row per arm: mean and spread over the seeds, then settings."""
  found = groups(results)
  settings = [
    name
    for name in _SETTINGS
    if any(group.settings[name] is not None for group in found)
  ]
  known = [name for name in _COLUMNS if any(g.values(name) for g in found)]
  extra = {
    name
    for row in results.rows
    for name, value in row.items()
    if formats.is_number(value) and name not in {*_COLUMNS, *_SETTINGS, "seed"}
  }
  alike = {name: _only_value(results, name) for name in sorted(extra)}
  columns = known + [name for name in alike if alike[name] is None]
  students = [group for group in found if group.method != "teacher"]
  best = {
    name: tables.best_of(name, [tables.mean(g.values(name)) for g in students])
    for name in columns
  }
  rows = []
  for group in found:
    cells = [Cell(group.label)]
    for name in columns:
      values = group.values(name)
      is_best = group in students and tables.mean(values) == best[name]
      text = formats.spread(values, measures.decimals(name))
      cells.append(Cell(text, best=is_best))
    cells += [Cell(_setting(name, group.settings[name])) for name in settings]
    rows.append(cells)
  return Table(
    header=[
      "method",
      *(_COLUMNS.get(name, names.plain(name)) for name in columns),
      *(name.replace("lambda", "λ") for name in settings),
    ],
    rows=rows,
    note=_note(found, alike),
    title="Results",
    numeric=[False]
    + [True] * len(columns)
    + [name == "lambda" for name in settings],
  )


def _only_value(results: Results, name: str) -> float | None:
  """The number that all rows but the teacher's share; None without one."""
  rows = [row for row in results.rows if row.get("method") != "teacher"]
  values = {row.get(name) for row in rows}
  # One row has nothing to share it with.
  return values.pop() if len(rows) > 1 and len(values) == 1 else None


def _note(found: Sequence[Group], alike: Mapping[str, float | None]) -> str:
  num_seeds = max(len(group.rows) for group in found)
  note = (
    f"Mean ± sample standard deviation over {num_seeds} seeds."
    if num_seeds > 1
    else "One seed: differences of a few points may be chance."
  )
  note += " The best student of a column is bold."
  for name, value in alike.items():
    if value is not None:
      note += f" All students: {formats.number(value)} {names.plain(name)}."
  return note


def _setting(name: str, value: Any) -> str:
  if name == "divergence" and value:
    return names.divergence(str(value))
  return formats.text(value)


def _label(key: tuple, keys: Sequence[tuple], *, named: bool) -> str:
  """The run or method, with those settings that tell its rows apart."""
  label = (names.ARMS if named else names.METHODS).get(
    key[0], key[0] if named else names.plain(key[0])
  )
  same = [other for other in keys if other[0] == key[0]]
  for place, name in enumerate(_SETTINGS, start=1):
    if len({other[place] for other in same}) > 1 and key[place] is not None:
      value = _setting(name, key[place])
      label += f", λ {value}" if name == "lambda" else f", {value}"
  return label
