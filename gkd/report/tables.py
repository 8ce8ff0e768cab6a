"""Tables of runs as data: the text of each cell, and the best of a column."""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math

from gkd.report import formats
from gkd.report import metric_info
from gkd.report.arms import Arm
from gkd.report.arms import Run
from gkd.report.arms import by_arm
from gkd.report.arms import finite
from gkd.report.arms import mean
from gkd.report.arms import metrics_of
from gkd.report.arms import seed_means
from gkd.report.metric_info import Score

# With more columns of scores a table is no summary.
_MAX_SCORES = 6


@dataclasses.dataclass(frozen=True)
class Cell:
  """Text of a cell, and whether it is the best of its column."""

  text: str
  is_best: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """A table with a first column of names."""

  title: str
  header: Sequence[str]
  rows: Sequence[Sequence[Cell]]  # cells, as many as titles
  note: str = ""  # how to read it
  numeric: Sequence[bool] = ()  # of each column; none for no column

  @property
  def has_long_names(self) -> bool:
    """Whether a column of such names would be squeezed to a word a line."""
    return any(formats.is_long(row[0].text) for row in self.rows)


def run_tables(runs: Sequence[Run]) -> tuple[Table | None, list[Table]]:
  """A table of the runs, and tables of the scores that have no place in it.

  There is one of scores for each task and split, and one for the divergences to
  each model where there are several: distances to different teachers do not
  compare. What is to be said of all of them is the note of the last.

  Returns:
    The first is None where there is nothing to say but the scores.
  """
  scores = metric_info.scores(metrics_of(runs))
  scores = [score for score in scores if metric_info.is_headline(score)]
  several = len({score.model for score in scores if score.compared_with}) > 1
  by_table = collections.defaultdict(list)
  for score in scores:
    by_table[score.group, score.model if several else ""].append(score)
  if len(scores) <= _MAX_SCORES and len(by_table) <= 1:
    return _runs_table(runs, scores), []
  tables = []
  for (group, _), members in by_table.items():
    title, first = group or "Scores", members[0]
    if several and first.compared_with:
      title += f": distance to the {first.compared_with} {first.model}"
    arms = by_arm(run for run in runs if run.metrics.keys() & {*members})
    columns = _score_columns(arms, members)
    note = _note(runs, scores) if len(tables) == len(by_table) - 1 else ""
    tables.append(_joined(title, arms, columns, members, note))
  return _runs_table(runs, []), tables


def _runs_table(runs: Sequence[Run], scores: Sequence[Score]) -> Table | None:
  """One row per arm: its last values, with the given scores."""
  arms = by_arm(run for run in runs if scores or not run.is_evaluation)
  columns = _score_columns(arms, scores)
  for title, text_of in (
    ("training loss", lambda arm: formats.spread(arm.values("train/loss"))),
    ("parameters", _parameters),
    ("updates", _updates),
    ("time", _time),
  ):
    columns[title] = [Cell(text_of(arm)) for arm in arms]
  sizes = {cell.text for cell in columns["parameters"]} - {"–"}
  if len(sizes) == 1:
    del columns["parameters"]
  # Evaluations alone have neither loss nor time.
  columns = {
    title: cells
    for title, cells in columns.items()
    if any(cell.text != "–" for cell in cells)
  }
  if not columns:
    return None
  notes = [_note(runs, scores)]
  if "training loss" in columns:
    notes.append("Losses of different objectives do not compare.")
  if len(sizes) == 1:
    notes.append(f"The model has {sizes.pop()} parameters.")
  return _joined("Runs", arms, columns, scores, " ".join(filter(None, notes)))


def status_notes(
  runs: Sequence[Run], empty: Sequence[str]
) -> Iterator[tuple[str, str]]:
  """(run, note) for all runs that are not complete, by their files alone.

  A run without its last step may have been stopped or be running.

  Args:
    runs: with metrics.
    empty: names of runs without metrics.
  """
  for run in runs:
    done, planned = run.num_steps, run.planned_steps
    if run.has_diverged:
      yield (
        run.title,
        f"stopped at update {done:,}: loss, gradient or parameters not finite",
      )
    elif done < planned and not run.is_evaluation:
      yield (
        run.title,
        f"reported {done:,} of {planned:,} updates ({100 * done / planned:.3g}"
        " %) so far: it was stopped or is still running",
      )
    for note in run.notes:
      yield run.title, note
  for name in empty:
    yield name, "has reported no numbers yet and is left out"


def references(
  runs: Sequence[Run], scores: Sequence[Score]
) -> dict[str, dict[Score, Score]]:
  """Scores of other models on the same examples, by content hash of the model.

  Returns:
    {name of the model: {score of the student: the same of this model}}.
  """
  models: dict[tuple[str, str], dict[Score, Score]] = {}
  others = [
    metric
    for metric in metrics_of(runs)
    if isinstance(metric, Score) and metric.role != "student"
  ]
  for other in sorted(others, key=lambda other: (other.role, other.owner)):
    own = dataclasses.replace(other, role="student", owner="")
    if own in scores:
      models.setdefault((other.role, other.owner), {})[own] = other
  roles = [role for role, _ in models]
  return {
    f"{role.capitalize()} {model if roles.count(role) > 1 else ''}".strip()
    + ", same examples": pairs
    for (role, model), pairs in models.items()
  }


def best_cells(
  texts: Sequence[str], values: Sequence[float], direction: str
) -> list[Cell]:
  """A column with its best values marked; NaN is never the best."""
  best = metric_info.best(direction, values)
  return [
    Cell(text, is_best=value == best)
    for text, value in zip(texts, values, strict=True)
  ]


def _joined(
  title: str,
  arms: Sequence[Arm],
  columns: Mapping[str, Sequence[Cell]],
  scores: Sequence[Score],
  note: str,
) -> Table:
  """One row per arm, below the rows of the models that they learn from."""
  everyone = Arm("", [run for arm in arms for run in arm.runs])
  titles = {metric_info.title(score, scores): score for score in scores}
  rows = []
  for name, others in references(everyone.runs, scores).items():
    model_scores = [others.get(titles.get(column)) for column in columns]
    texts = ["–" if s is None else _score(everyone, s) for s in model_scores]
    rows.append([Cell(name), *map(Cell, texts)])
  rows += [
    [Cell(arm.name), *cells]
    for arm, *cells in zip(arms, *columns.values(), strict=True)
  ]
  numeric = [False] + [True] * len(columns)
  return Table(title, ["run", *columns], rows, note, numeric)


def _score_columns(
  arms: Sequence[Arm], scores: Sequence[Score]
) -> dict[str, list[Cell]]:
  """{title: one cell per arm}."""
  return {
    metric_info.title(score, scores): best_cells(
      [_score(arm, score) for arm in arms],
      [arm.mean(score) for arm in arms],
      score.direction,
    )
    for score in scores
  }


def _score(arm: Arm, score: Score) -> str:
  """Spread over seeds; of a single value, the interval over its examples."""
  decimals = metric_info.DECIMALS.get(score.unit)
  is_own = score.role == "student"
  values = arm.values(score) if is_own else seed_means(arm.runs, score)
  is_single = len(arm.runs) == 1 or not is_own
  if is_single and len(set(values)) == 1:
    run = next(run for run in arm.runs if math.isfinite(run.last(score)))
    low, high = map(run.last, score.bounds)
    return formats.interval(values[0], low, high, decimals)
  return formats.spread(values, decimals)


def _parameters(arm: Arm) -> str:
  sizes = {run.num_parameters for run in arm.runs} - {None}
  return " · ".join(map(formats.number, sorted(sizes))) or "–"


def _updates(arm: Arm) -> str:
  """1,000 where a run is complete; 12 of 1,000; – for an evaluation."""

  def updates(run: Run) -> str:
    done, planned = run.num_steps, run.planned_steps
    if run.is_evaluation:
      return "–"
    return f"{done:,} of {planned:,}" if done < planned else f"{done:,}"

  runs = sorted(arm.runs, key=lambda run: run.num_steps)
  return " · ".join(dict.fromkeys(map(updates, runs)))


def _time(arm: Arm) -> str:
  return formats.duration(mean(finite(r.total_seconds for r in arm.runs)))


def _note(runs: Sequence[Run], scores: Sequence[Score]) -> str:
  arms = by_arm(runs)
  notes = []
  if scores and not all(run.is_evaluation for run in runs):
    splits = {score.split for score in scores if score.split}
    on = f" on split {splits.pop()}" if len(splits) == 1 else ""
    notes.append(f"Last values during training{on}.")
  most = max((len(arm.runs) for arm in arms), default=1)
  if most > 1:
    notes.append(f"Mean ± sample standard deviation over {most} seeds.")
  if any("[" in _score(arm, score) for arm in arms for score in scores):
    notes.append(
      "In brackets: 95 % interval over the prompts (bootstrap), which does not"
      " include the spread over seeds."
    )
  return " ".join(notes)
