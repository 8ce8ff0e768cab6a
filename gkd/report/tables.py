"""Tables of a report as data: what is in a cell, and which cell is best."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import re
import statistics
from typing import Any

from gkd.report.runs import METHODS
from gkd.report.runs import Results
from gkd.report.runs import Run

_COLUMNS = {
  "accuracy_greedy": "accuracy, greedy",
  "accuracy_sampled": "accuracy, sampled",
  "forward_kl": "forward KL",
  "reverse_kl": "reverse KL",
  "train_seconds": "training, s",
}
_SETTINGS = ("lambda", "divergence", "labels")
# Where a smaller number is the better one; and where neither is.
_SMALLER = re.compile(r"kl|loss|perplexity|error|truncation")
_NEUTRAL = re.compile(r"seconds|steps|length|bytes|seed|tokens|count|entropy")


@dataclasses.dataclass(frozen=True)
class Cell:
  """What stands in a table, and whether it is the best of its column."""

  text: str
  best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with a first column of names.

  Attributes:
    header: titles of the columns.
    rows: cells, as many as titles.
    note: how to read it.
    numeric: for each column, whether it holds numbers.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  note: str
  numeric: Sequence[bool]


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
    return [float(v) for v in found if _is_number(v) and math.isfinite(v)]


def groups(results: Results) -> list[Group]:
  """Rows by method and settings, methods in their usual order."""
  collected: dict[tuple, list[Mapping[str, Any]]] = {}
  for row in results.rows:
    key = (str(row.get("method", "?")), *(row.get(s) for s in _SETTINGS))
    collected.setdefault(key, []).append(row)
  order = list(METHODS)
  keys = sorted(
    collected,
    key=lambda key: order.index(key[0]) if key[0] in order else len(order),
  )
  return [
    Group(
      label=_label(key, keys),
      method=key[0],
      settings=dict(zip(_SETTINGS, key[1:], strict=True)),
      rows=collected[key],
    )
    for key in keys
  ]


def results_table(results: Results) -> Table:
  """One row per method: settings, then mean and spread over the seeds."""
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
    if _is_number(value) and name not in {*_COLUMNS, *_SETTINGS, "seed"}
  }
  columns = known + sorted(extra)
  best = {
    name: _best(name, [_mean(g, name) for g in found if g.method != "teacher"])
    for name in columns
  }
  rows = []
  for group in found:
    cells = [Cell(METHODS.get(group.method, _plain(group.method)))]
    cells += [Cell(_text(group.settings[name])) for name in settings]
    for name in columns:
      is_best = group.method != "teacher" and _mean(group, name) == best[name]
      cells.append(Cell(_spread(group.values(name)), best=is_best))
    rows.append(cells)
  num_seeds = max(len(group.rows) for group in found)
  note = (
    f"Mean ± sample standard deviation over {num_seeds} seeds."
    if num_seeds > 1
    else "One seed: differences of a few points may be chance."
  )
  return Table(
    header=[
      "method",
      *(name.replace("lambda", "λ") for name in settings),
      *(_COLUMNS.get(name, _plain(name)) for name in columns),
    ],
    rows=rows,
    note=f"{note} The best student of a column is bold.",
    numeric=[False, *(name == "lambda" for name in settings)]
    + [True] * len(columns),
  )


def runs_table(runs: Sequence[Run]) -> Table:
  """One row per run: where it ended."""
  evals = sorted(
    {name for run in runs for name in run.metrics if name.startswith("eval/")},
    key=lambda name: ("_kl" in name, name),
  )
  evals = [name for name in evals if is_headline(name)]
  best = {name: _best(name, [run.last(name) for run in runs]) for name in evals}
  rows = []
  for run in runs:
    cells = [Cell(run.name), Cell(number(run.num_steps))]
    for name in evals:
      value = run.last(name)
      is_best = value == best[name]
      cells.append(Cell(number(value), best=is_best))
    cells.append(Cell(number(run.last("train/loss"))))
    cells.append(Cell(duration(total_seconds(run))))
    rows.append(cells)
  return Table(
    header=[
      "run",
      "steps",
      *(name.removeprefix("eval/").replace("/", " ") for name in evals),
      "last train loss",
      "time",
    ],
    rows=rows,
    note="Last values. Losses of different objectives do not compare.",
    numeric=[False] + [True] * (len(evals) + 3),
  )


def differences_table(runs: Sequence[Run]) -> Table | None:
  """Settings of all runs that are not the same; None if there are none."""
  rows = _differences(runs, in_all=True)
  note = "Settings that are the same in all runs are left out."
  return _settings_table(runs, rows, note)


def partial_table(runs: Sequence[Run]) -> Table | None:
  """Settings that only some of the runs have; None if there are none."""
  return _settings_table(runs, _differences(runs, in_all=False), "")


def is_headline(name: str) -> bool:
  """Whether an evaluation metric belongs into the summary."""
  return not re.search(r"per_token|length|truncation", name)


def total_seconds(run: Run) -> float:
  """Time that the run accounts for."""
  times = [n for n in run.metrics if re.fullmatch(r"time/\w+_seconds", n)]
  return sum(run.total(name) for name in times) if times else math.nan


def number(value: Any) -> str:
  """Four significant digits, thousands apart; an en dash for no number."""
  if not _is_number(value) or not math.isfinite(value):
    return "–"
  if value == int(value) and abs(value) < 1e15:
    return f"{int(value):,}"
  if abs(value) >= 1000:
    return f"{value:,.0f}"
  return f"{value:.4g}"


def duration(seconds: float) -> str:
  """12 s, 3 min 20 s, 2 h 5 min."""
  if not math.isfinite(seconds):
    return "–"
  if seconds < 100:
    return f"{seconds:.3g} s"
  minutes, second = divmod(round(seconds), 60)
  if minutes < 60:
    return f"{minutes} min {second} s"
  return f"{minutes // 60} h {minutes % 60} min"


def _differences(
  runs: Sequence[Run], *, in_all: bool
) -> list[list[str | None]]:
  """Name, then the value in each run, of settings that differ."""
  names = sorted({name for run in runs for name in run.config})
  found = []
  for name in names:
    values = [run.config.get(name) for run in runs]
    # Each run has a folder of its own; its name says which.
    is_folder = name.lower().endswith("model_dir")
    # What refers to a macro differs where the macro does.
    refers = "." in name and all((v or "%").startswith("%") for v in values)
    wanted = in_all == (None not in values)
    if wanted and len(set(values)) > 1 and not is_folder and not refers:
      found.append([name, *values])
  return found


def _settings_table(
  runs: Sequence[Run], rows: Sequence[Sequence[str | None]], note: str
) -> Table | None:
  if not rows:
    return None
  return Table(
    header=["setting", *(run.name for run in runs)],
    rows=[[Cell(_text(value)) for value in row] for row in rows],
    note=note,
    numeric=[False] * (len(runs) + 1),
  )


def _label(key: tuple, keys: Sequence[tuple]) -> str:
  """The method, with those settings that tell its rows apart."""
  label = METHODS.get(key[0], _plain(key[0]))
  same = [other for other in keys if other[0] == key[0]]
  for place, name in enumerate(_SETTINGS, start=1):
    if len({other[place] for other in same}) > 1 and key[place] is not None:
      value = _text(key[place])
      label += f", λ {value}" if name == "lambda" else f", {value}"
  return label


def _mean(group: Group, name: str) -> float:
  values = group.values(name)
  return statistics.fmean(values) if values else math.nan


def _best(name: str, values: Sequence[float]) -> float:
  """The best finite value of a column; NaN where none is better."""
  finite = {value for value in values if math.isfinite(value)}
  if len(finite) < 2 or _NEUTRAL.search(name):
    return math.nan
  return min(finite) if _SMALLER.search(name) else max(finite)


def _spread(values: Sequence[float]) -> str:
  if not values:
    return "–"
  mean = statistics.fmean(values)
  if len(set(values)) == 1:
    return number(mean)
  deviation = statistics.stdev(values)
  # As many decimals as two digits of the deviation or four of the mean need.
  decimals = 1 - math.floor(math.log10(deviation))
  if mean:
    decimals = min(decimals, 3 - math.floor(math.log10(abs(mean))))
  decimals = max(0, decimals)
  return f"{mean:,.{decimals}f} ± {deviation:.{decimals}f}"


def _text(value: Any) -> str:
  if value is None or value == "":
    return "–"
  return number(value) if _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(name: str) -> str:
  return name.replace("_", " ")
