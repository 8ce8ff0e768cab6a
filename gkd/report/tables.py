"""Tables of runs as data: the text of each cell, and the best of a column."""

from collections.abc import Iterable
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
from gkd.report.arms import metrics_of
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

  def column(text_of) -> list[Cell]:
    return [Cell(text_of(members)) for members in arms.values()]

  parameters = column(_parameters)
  sizes = {cell.text for cell in parameters} - {"–"}
  columns = {
    **_score_columns(arms, scores),
    "training loss": column(
      lambda members: formats.spread(last_values(members, "train/loss"))
    ),
    **({} if len(sizes) == 1 else {"parameters": parameters}),
    "updates": column(_updates),
    "time": column(
      lambda members: formats.duration(
        mean(finite(map(total_seconds, members)))
      )
    ),
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
  tables = []
  headlines = _headlines(runs)
  for scores in () if _summary(runs) else _comparable(headlines):
    arms = by_arm([run for run in runs if run.metrics.keys() & {*scores}])
    title = scores[0].group or "Scores"
    if scores[0].compared_with and len(_models(headlines)) > 1:
      title += f": distance to the {scores[0].compared_with} {scores[0].model}"
    columns = _score_columns(arms, scores)
    note = _note(runs, headlines) if scores[-1] == headlines[-1] else ""
    tables.append(_joined(title, arms, columns, scores, note))
  return tables


def references(
  runs: Sequence[Run], scores: Sequence[Score]
) -> dict[str, dict[Score, Score]]:
  """Scores of other models on the same examples, by content hash of the model.

  Returns:
    {name of the model: {score of the student: the same of this model}}.
  """
  found: dict[tuple[str, str], dict[Score, Score]] = {}
  others = [
    metric
    for metric in metrics_of(runs)
    if isinstance(metric, Score) and metric.role != "student"
  ]
  for other in sorted(others, key=lambda other: (other.role, other.model)):
    own = dataclasses.replace(other, role="student", model="")
    if own in scores:
      found.setdefault((other.role, other.model), {})[own] = other
  roles = [role for role, _ in found]
  return {
    f"{role.capitalize()} {model if roles.count(role) > 1 else ''}".strip()
    + ", same examples": pairs
    for (role, model), pairs in found.items()
  }


def total_seconds(run: Run) -> float:
  """Time that the run accounts for."""
  times = [
    run.total(name)
    for name in run.metrics
    if isinstance(name, str) and re.fullmatch(r"time/\w+_seconds", name)
  ]
  return sum(times) if times else math.nan


def mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def finite(values: Iterable[float]) -> list[float]:
  return [value for value in values if math.isfinite(value)]


def last_values(members: Sequence[Run], metric: Metric) -> list[float]:
  """Finite last values of the runs of an arm."""
  return finite([run.last(metric) for run in members])


def _headlines(runs: Sequence[Run]) -> list[Score]:
  scores = metric_info.scores(metrics_of(runs))
  return [score for score in scores if metric_info.is_headline(score)]


def _summary(runs: Sequence[Run]) -> list[Score]:
  """The scores, if they are few and have a place in one table."""
  found = _headlines(runs)
  is_small = len(found) <= _MAX_SCORES and len(_comparable(found)) <= 1
  return found if is_small else []


def _models(scores: Sequence[Score]) -> set[str]:
  return {score.model for score in scores if score.compared_with}


def _comparable(scores: Sequence[Score]) -> list[list[Score]]:
  """Scores in tables: by group, and by model where there are several."""
  several = len(_models(scores)) > 1
  found: dict[tuple[str, str], list[Score]] = {}
  for score in scores:
    model = score.model if several else ""
    found.setdefault((score.group, model), []).append(score)
  return list(found.values())


def _joined(
  title: str,
  arms: Arms,
  columns: Mapping[str, Sequence[Cell]],
  scores: Sequence[Score],
  note: str,
) -> Table:
  """One row per arm, below the rows of the models that they learn from."""
  runs = [run for members in arms.values() for run in members]
  titles = {metric_info.title(score, scores): score for score in scores}
  rows = []
  for name, others in references(runs, scores).items():
    found = [others.get(titles.get(column)) for column in columns]
    texts = ["–" if other is None else _score(runs, other) for other in found]
    rows.append([Cell(name), *map(Cell, texts)])
  rows += [
    [Cell(arm), *cells]
    for arm, *cells in zip(arms, *columns.values(), strict=True)
  ]
  numeric = [False] + [True] * len(columns)
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


def _score(members: Sequence[Run], score: Score) -> str:
  """Spread over seeds; of a single value, the interval over its examples."""
  values = last_values(members, score)
  is_single = len(members) == 1 or score.role != "student"
  if is_single and len(set(values)) == 1:
    run = next(run for run in members if math.isfinite(run.last(score)))
    low, high = map(run.last, score.bounds)
    return formats.interval(values[0], low, high, score.decimals)
  return formats.spread(values, score.decimals)


def _parameters(members: Sequence[Run]) -> str:
  sizes = {run.num_parameters for run in members} - {None}
  return " · ".join(map(formats.number, sorted(sizes))) or "–"


def _updates(members: Sequence[Run]) -> str:
  steps = {run_status.updates(run): run.num_steps for run in members}
  return " · ".join(sorted(steps, key=steps.get))


def _note(runs: Sequence[Run], scores: Sequence[Score]) -> str:
  arms = by_arm(runs).values()
  notes = []
  if scores and not all(run.is_evaluation for run in runs):
    splits = {score.split for score in scores if score.split}
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
