"""Tables of a report as data: what is in a cell, and which cell is best."""

from collections.abc import Sequence
import dataclasses
import math
import re
import statistics

from gkd.report import formats
from gkd.report import names
from gkd.report.runs import Run
from gkd.report.runs import by_arm

# Where a smaller number is the better one; and where neither is.
_SMALLER = re.compile(r"kl|loss|perplexity|error|truncation")
_NEUTRAL = re.compile(
  r"seconds|steps|updates|length|bytes|seed|tokens|count|entropy"
)


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


def runs_table(runs: Sequence[Run]) -> Table:
  """One row per arm: where its runs ended."""
  arms = by_arm(runs)
  evals = headlines(runs)
  ends = {
    arm: {name: _finite([run.last(name) for run in found]) for name in evals}
    for arm, found in arms.items()
  }
  best = {
    name: best_of(name, [mean(end[name]) for end in ends.values()])
    for name in evals
  }
  rows = []
  for arm, found in arms.items():
    steps = sorted({run.num_steps for run in found})
    cells = [Cell(arm), Cell(" · ".join(map(formats.number, steps)))]
    for name in evals:
      values = ends[arm][name]
      is_best = mean(values) == best[name]
      cells.append(Cell(formats.spread(values, decimals(name)), best=is_best))
    losses = _finite([run.last("train/loss") for run in found])
    cells.append(Cell(formats.spread(losses)))
    times = _finite([total_seconds(run) for run in found])
    cells.append(Cell(formats.duration(mean(times))))
    rows.append(cells)
  return Table(
    header=[
      "run",
      "updates",
      *(title(name, evals) for name in evals),
      "training loss",
      "time",
    ],
    rows=rows,
    note=_note(runs, arms.values()),
    numeric=[False] + [True] * (len(evals) + 3),
  )


def headlines(runs: Sequence[Run]) -> list[str]:
  """Evaluation metrics that belong into the summary, KLs last."""
  found = {n for run in runs for n in run.metrics if n.startswith("eval/")}
  return sorted(filter(is_headline, found), key=lambda n: ("_kl" in n, n))


def is_headline(name: str) -> bool:
  return not re.search(r"per_token|length|truncation", name)


def title(name: str, others: Sequence[str] = ()) -> str:
  """eval/toy/forward_kl -> forward KL (nats a sequence).

  The task is left out where all `others` are of the same one.
  """
  *task, metric = name.removeprefix("eval/").split("/")
  words = names.plain(metric)
  if len({other.split("/")[1] for other in others}) != 1:
    words = " ".join([*task, words])
  unit = units(name)
  return f"{words} ({unit})" if unit else words


def units(name: str) -> str:
  """Unit of a metric, as the contract of its name says."""
  if name.endswith("_kl_per_token"):
    return "nats a token"
  if "_kl" in name:
    return "nats a sequence"
  return "%" if "accuracy" in name else ""


def decimals(name: str) -> int | None:
  """Digits after the point in a column; None for as many as it takes."""
  if "accuracy" in name or name.endswith("_seconds"):
    return 1
  return 2 if "_kl" in name else None


def total_seconds(run: Run) -> float:
  """Time that the run accounts for."""
  times = [n for n in run.metrics if re.fullmatch(r"time/\w+_seconds", n)]
  return sum(run.total(name) for name in times) if times else math.nan


def mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def best_of(name: str, values: Sequence[float]) -> float:
  """The best finite value of a column; NaN where none is better."""
  finite = set(_finite(values))
  if len(finite) < 2 or _NEUTRAL.search(name):
    return math.nan
  return min(finite) if _SMALLER.search(name) else max(finite)


def _finite(values: Sequence[float]) -> list[float]:
  return [value for value in values if math.isfinite(value)]


def _note(runs: Sequence[Run], arms: Sequence[Sequence[Run]]) -> str:
  splits = {run.config.get("EVAL_SPLIT", "").strip("'\"") for run in runs}
  on = f" on split {splits.pop()}" if len(splits) == 1 and all(splits) else ""
  parts = [f"Last values during training{on}."]
  most = max(map(len, arms), default=1)
  if most > 1:
    parts.append(f"Mean ± sample standard deviation over {most} seeds.")
  parts.append("Losses of different objectives do not compare.")
  return " ".join(parts)
