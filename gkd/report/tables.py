"""Tables of runs as data: the text of each cell, and the best of a column."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import re
import statistics

from gkd.report import formats
from gkd.report import metric_info
from gkd.report import run_status
from gkd.report.arms import Run
from gkd.report.arms import by_arm
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

# With more columns of scores a table is no summary.
_MAX_SCORES = 6

Arms = Mapping[str, Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class Cell:
  """Text of a cell, and whether it is the best of its column."""

  text: str
  is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with a first column of names.

  Attributes:
    title: what it is about.
    header: titles of the columns.
    rows: cells, as many as titles.
    note: how to read it.
    numeric: for each column, whether it holds numbers; none for no column.
  """

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]
  note: str = ""
  numeric: Sequence[bool] = ()

  @property
  def has_long_names(self) -> bool:
    """Whether a column of such names would be squeezed to a word a line."""
    return any(formats.is_long(row[0].text) for row in self.rows)


def runs_table(runs: Sequence[Run]) -> Table | None:
  """One row per arm: its last values, with the scores if these are few.

  None where there is nothing to say but the scores.
  """
  scores = _summary(runs)
  arms = by_arm([run for run in runs if scores or not run.is_evaluation])
  parameters = [_parameters(members) for members in arms.values()]
  sizes = {cell.text for cell in parameters} - {"–"}
  columns = {
    **_score_columns(arms, scores),
    "training loss": [
      Cell(formats.spread(last_values(members, "train/loss")))
      for members in arms.values()
    ],
    **({} if len(sizes) == 1 else {"parameters": parameters}),
    "updates": [_updates(members) for members in arms.values()],
    "time": [
      Cell(formats.duration(mean(finite(map(total_seconds, members)))))
      for members in arms.values()
    ],
  }
  # Evaluations alone have neither loss nor time.
  columns = {
    title: cells
    for title, cells in columns.items()
    if any(cell.text != "–" for cell in cells)
  }
  if not columns or not arms:
    return None
  notes = [_note(runs, scores)]
  if "training loss" in columns:
    notes.append("Losses of different objectives do not compare.")
  if len(sizes) == 1:
    notes.append(f"The model has {sizes.pop()} parameters.")
  return _joined("Runs", arms, columns, scores, " ".join(filter(None, notes)))


def score_tables(runs: Sequence[Run]) -> list[Table]:
  """Scores that have no place in `runs_table`.

  One table for each task and split, and one for the divergences to each model
  where there are several: distances to different teachers do not compare. What
  is to be said of all tables is the note of the last.
  """
  headlines = metric_info.headlines({m for run in runs for m in run.metrics})
  tables = []
  for scores in () if _summary(runs) else _comparable(headlines):
    arms = {
      arm: members
      for arm, members in by_arm(runs).items()
      if any(score in run.metrics for score in scores for run in members)
    }
    title = scores[0].group
    if scores[0].compared_with and _num_models(headlines) > 1:
      title += f": distance to the {scores[0].compared_with} {scores[0].model}"
    columns = _score_columns(arms, scores)
    is_last = scores[-1] == headlines[-1]
    note = _note(runs, headlines) if is_last else ""
    tables.append(_joined(title, arms, columns, scores, note))
  plain = _plain_table(runs)
  return tables + ([plain] if plain else [])


def total_seconds(run: Run) -> float:
  """Time that the run accounts for."""
  times = [
    name
    for name in run.metrics
    if isinstance(name, str) and re.fullmatch(r"time/\w+_seconds", name)
  ]
  return sum(run.total(name) for name in times) if times else math.nan


def mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def finite(values) -> list[float]:
  return [value for value in values if math.isfinite(value)]


def last_values(members: Sequence[Run], metric: Metric) -> list[float]:
  """Finite last values of the runs of an arm."""
  return finite([run.last(metric) for run in members])


def _summary(runs: Sequence[Run]) -> list[Score]:
  """The scores, if they are few, of one group and comparable."""
  found = metric_info.headlines({m for run in runs for m in run.metrics})
  is_one = len(_comparable(found)) <= 1
  return found if is_one and len(found) <= _MAX_SCORES else []


def _num_models(scores: Sequence[Score]) -> int:
  return len({score.model for score in scores if score.compared_with})


def _comparable(scores: Sequence[Score]) -> list[list[Score]]:
  """Scores in tables: by group, and by model where there are several."""
  several = _num_models(scores) > 1
  found: dict[tuple[str, str], list[Score]] = {}
  for score in scores:
    model = score.model if several and score.compared_with else ""
    found.setdefault((score.group, model), []).append(score)
  return list(found.values())


def _plain_table(runs: Sequence[Run]) -> Table | None:
  """Last values of scores that no metric_info.json describes."""
  names = sorted(
    {
      name
      for run in runs
      for name in run.metrics
      if isinstance(name, str) and name.startswith("eval/")
    }
  )
  arms = {
    arm: members
    for arm, members in by_arm(runs).items()
    if any(name in run.metrics for name in names for run in members)
  }
  rows = [
    [
      Cell(name),
      *(
        Cell(formats.spread(last_values(members, name)))
        for members in arms.values()
      ),
    ]
    for name in names
  ]
  numeric = [False] + [True] * len(arms)
  header = ["metric", *arms]
  return (
    Table("Scores without description", header, rows, "", numeric)
    if names
    else None
  )


def _joined(
  title: str,
  arms: Arms,
  columns: Mapping[str, Sequence[Cell]],
  scores: Sequence[Score],
  note: str,
) -> Table:
  """One row per arm below the rows of the models that they learn from."""
  rows = [
    [Cell(arm), *cells]
    for arm, *cells in zip(arms, *columns.values(), strict=True)
  ]
  numeric = [False] + [True] * len(columns)
  rows = _reference_rows(arms, scores, list(columns)) + rows
  return Table(title, ["run", *columns], rows, note, numeric)


def _score_columns(
  arms: Arms, scores: Sequence[Score]
) -> dict[str, list[Cell]]:
  """{title: one cell per arm}."""
  columns = {}
  for score in scores:
    means = [mean(last_values(members, score)) for members in arms.values()]
    best = metric_info.best(score.direction, means)
    columns[metric_info.title(score, scores)] = [
      Cell(_score(members, score), is_best=value == best)
      for members, value in zip(arms.values(), means, strict=True)
    ]
  return columns


def _reference_rows(
  arms: Arms, scores: Sequence[Score], header: Sequence[str]
) -> list[list[Cell]]:
  """A row for each other model, by its content hash."""
  runs = [run for members in arms.values() for run in members]
  metrics = {metric for run in runs for metric in run.metrics}
  texts: dict[tuple[str, str], dict[str, str]] = {}
  for score in scores:
    for other in metric_info.references(metrics, score):
      row = texts.setdefault((other.role, other.model), {})
      row[metric_info.title(score, scores)] = _score(runs, other)
  roles = [role for role, _ in texts]
  return [
    [
      Cell(reference_name(role, model if roles.count(role) > 1 else "")),
      *(Cell(row.get(title, "–")) for title in header),
    ]
    for (role, model), row in texts.items()
  ]


def reference_name(role: str, model: str) -> str:
  """Name of another model that answered the same examples."""
  return f"{role.capitalize()} {model}".strip() + ", same examples"


def _score(members: Sequence[Run], score: Score) -> str:
  """Spread over seeds; of a single value, the interval over its examples."""
  values = last_values(members, score)
  is_single = len(members) == 1 or score.role != "student"
  if is_single and len(set(values)) == 1:
    run = next(run for run in members if math.isfinite(run.last(score)))
    low, high = map(run.last, score.bounds)
    return formats.interval(values[0], low, high, score.decimals)
  return formats.spread(values, score.decimals)


def _parameters(members: Sequence[Run]) -> Cell:
  sizes = {run.num_parameters for run in members} - {None}
  return Cell(" · ".join(map(formats.number, sorted(sizes))) or "–")


def _updates(members: Sequence[Run]) -> Cell:
  steps = {run_status.updates(run): run.num_steps for run in members}
  return Cell(" · ".join(sorted(steps, key=steps.get)))


def _note(runs: Sequence[Run], scores: Sequence[Score]) -> str:
  arms = by_arm(runs).values()
  notes = []
  if scores and not all(run.is_evaluation for run in runs):
    splits = {score.split for score in scores}
    on = f" on split {splits.pop()}" if len(splits) == 1 else ""
    notes.append(f"Last values during training{on}.")
  most = max(map(len, arms), default=1)
  if most > 1:
    notes.append(f"Mean ± sample standard deviation over {most} seeds.")
  if any("[" in _score(members, score) for members in arms for score in scores):
    notes.append(
      "In brackets: 95 % interval over the prompts (bootstrap), which does not"
      " include the spread over seeds."
    )
  return " ".join(notes)
