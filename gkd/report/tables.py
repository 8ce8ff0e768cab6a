"""Tables of a report as data: what is in a cell, and which cell is best."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import re
import statistics

from gkd.report import formats
from gkd.report import measures
from gkd.report import states
from gkd.report.runs import Run
from gkd.report.runs import by_arm

# More scores than these beside each other are no summary any more.
_MAX_SCORES = 6


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
    title: what it is about, for who cannot see it.
  """

  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  note: str
  numeric: Sequence[bool]
  title: str = ""


def runs_table(runs: Sequence[Run]) -> Table | None:
  """One row per arm: where its runs ended, with the scores of a single task.

  None where there is nothing to say but the scores of several tasks.
  """
  scores = _summary(runs)
  shown = [run for run in runs if scores or not run.is_evaluation]
  arms = by_arm(shown)
  parameters = [_parameters(found) for found in arms.values()]
  sizes = {cell.text for cell in parameters} - {"–"}
  are_alike = len(sizes) == 1
  columns = {
    **_score_columns(arms, scores),
    "training loss": [_spread(found, "train/loss") for found in arms.values()],
    **({} if are_alike else {"parameters": parameters}),
    "updates": [_updates(found) for found in arms.values()],
    "time": [_time(found) for found in arms.values()],
  }
  # What no run has is no column; evaluations alone have neither loss nor time.
  columns = {
    title: cells
    for title, cells in columns.items()
    if any(cell.text != "–" for cell in cells)
  }
  if not columns or not arms:
    return None
  note = _note(runs, scores)
  if "training loss" in columns:
    note += " Losses of different objectives do not compare."
  if are_alike:
    note += f" The model has {sizes.pop()} parameters."
  return _joined("Runs", arms, columns, note.strip(), _teacher(arms, scores))


def score_tables(runs: Sequence[Run]) -> list[Table]:
  """One table per task, where `runs_table` has no place for the scores.

  What is to be said of all of them is the note of the last.
  """
  if _summary(runs):
    return []
  found = measures.headlines({name for run in runs for name in run.metrics})
  tables = []
  for task in measures.tasks(found):
    scores = [name for name in found if measures.task(name) == task]
    arms = {
      arm: members
      for arm, members in by_arm(runs).items()
      if any(name in run.metrics for name in scores for run in members)
    }
    columns = _score_columns(arms, scores)
    teacher = _teacher(arms, scores)
    is_last = measures.task(found[-1]) == task
    note = _note(runs, found) if is_last else ""
    tables.append(_joined(task, arms, columns, note, teacher))
  return tables


def total_seconds(run: Run) -> float:
  """Time that the run accounts for."""
  times = [n for n in run.metrics if re.fullmatch(r"time/\w+_seconds", n)]
  return sum(run.total(name) for name in times) if times else math.nan


def mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def finite(values: Sequence[float]) -> list[float]:
  return [value for value in values if math.isfinite(value)]


def best_of(name: str, values: Sequence[float]) -> float:
  """The best finite value of a column; NaN where none is better."""
  different = set(finite(values))
  if len(different) < 2 or not measures.better(name):
    return math.nan
  return max(different) if measures.better(name) > 0 else min(different)


def _summary(runs: Sequence[Run]) -> list[str]:
  """The scores, if they are few and of one task."""
  found = measures.headlines({name for run in runs for name in run.metrics})
  few = len(found) <= _MAX_SCORES and len(measures.tasks(found)) <= 1
  return found if few else []


def _joined(
  title: str,
  arms: Mapping[str, Sequence[Run]],
  columns: Mapping[str, Sequence[Cell]],
  note: str,
  teacher: Mapping[str, str],
) -> Table:
  rows = [
    [Cell(arm), *cells]
    for arm, *cells in zip(arms, *columns.values(), strict=True)
  ]
  if teacher:
    found = [Cell(teacher.get(title, "–")) for title in columns]
    rows.insert(0, [Cell("Teacher, same examples"), *found])
  numeric = [False] + [True] * len(columns)
  return Table(["run", *columns], rows, note, numeric, title)


def _score_columns(
  arms: Mapping[str, Sequence[Run]], scores: Sequence[str]
) -> dict[str, list[Cell]]:
  """{title: one cell per arm}; beside it its teacher's, if these differ."""
  columns = {}
  one_teacher = bool(_teacher(arms, scores))
  for name in scores:
    ends = [_ends(found, name) for found in arms.values()]
    best = best_of(name, [mean(values) for values in ends])
    columns[measures.title(name, scores)] = [
      Cell(_score(found, name), best=mean(values) == best)
      for found, values in zip(arms.values(), ends, strict=True)
    ]
    teacher = measures.of_teacher(name)
    if one_teacher or not _shown(arms, teacher):
      continue
    columns[measures.title(teacher, scores)] = [
      Cell(_score(found, teacher)) for found in arms.values()
    ]
  return columns


def _teacher(
  arms: Mapping[str, Sequence[Run]], scores: Sequence[str]
) -> dict[str, str]:
  """{title: score} of the teacher that all arms have; {} if they differ."""
  found = {
    measures.title(name, scores): _shown(arms, measures.of_teacher(name))
    for name in scores
  }
  if any(len(shown) > 1 for shown in found.values()):
    return {}
  return {title: shown.pop() for title, shown in found.items() if shown}


def _shown(arms: Mapping[str, Sequence[Run]], name: str) -> set[str]:
  """The different texts of a score, of the arms that have it."""
  return {_score(found, name) for found in arms.values() if _ends(found, name)}


def _ends(found: Sequence[Run], name: str) -> list[float]:
  return finite([run.last(name) for run in found])


def _score(found: Sequence[Run], name: str) -> str:
  """Spread over seeds; of a single run, the interval over its examples."""
  values, decimals = _ends(found, name), measures.decimals(name)
  bounds = measures.bounds(name)
  if len(values) == 1 and len(found) == 1 and bounds[0] in found[0].metrics:
    low, high = (found[0].last(bound) for bound in bounds)
    return formats.interval(values[0], low, high, decimals)
  return formats.spread(values, decimals)


def _spread(found: Sequence[Run], name: str) -> Cell:
  return Cell(formats.spread(_ends(found, name)))


def _parameters(found: Sequence[Run]) -> Cell:
  sizes = {run.num_parameters for run in found} - {None}
  return Cell(" · ".join(map(formats.number, sorted(sizes))) or "–")


def _updates(found: Sequence[Run]) -> Cell:
  shown = {states.updates(run): run.num_steps for run in found}
  return Cell(" · ".join(sorted(shown, key=shown.get)))


def _time(found: Sequence[Run]) -> Cell:
  times = finite([total_seconds(run) for run in found])
  return Cell(formats.duration(mean(times)))


def _note(runs: Sequence[Run], scores: Sequence[str]) -> str:
  parts = []
  if scores and not all(run.is_evaluation for run in runs):
    parts.append(f"Last values during training{_on_split(runs, scores)}.")
  most = max(map(len, by_arm(runs).values()), default=1)
  if most > 1:
    parts.append(f"Mean ± sample standard deviation over {most} seeds.")
  shown = [
    _score(arm, name) for arm in by_arm(runs).values() for name in scores
  ]
  if any("[" in text for text in shown):
    parts.append(
      "In brackets: 95 % interval over the prompts (bootstrap); it says nothing"
      " of other seeds."
    )
  return " ".join(parts)


def _on_split(runs: Sequence[Run], scores: Sequence[str]) -> str:
  """The split of a single task, where its name does not say it."""
  splits = {run.config.get("EVAL_SPLIT", "").strip("'\"") for run in runs}
  task, *others = measures.tasks(scores)
  if others or len(splits) > 1 or not all(splits):
    return ""
  split = splits.pop()
  return "" if task.endswith(f"-{split}") else f" on split {split}"
