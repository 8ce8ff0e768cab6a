"""Reads what runs left behind: metrics, configuration, texts, result tables.

A directory may be a run (`metrics.jsonl`, `config.gin`, `run.json`,
`predictions/`, `samples/`), an evaluation (`metrics.json`), a set of these
(directories below it), hold a table of results (`results.json`), or several of
these. Nothing here needs a model.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import os
import re
from typing import Any

from gkd import bindings
from gkd.errors import UserError
from gkd.report import directories
from gkd.report import names as naming
from gkd.report import reading
from gkd.report.directories import Curves
from gkd.report.directories import Numbers


@dataclasses.dataclass(frozen=True)
class Run:
  """One run, as it is on disk.

  Attributes:
    name: short and unique within a report.
    path: its directory.
    metrics: {name: ([steps], [values])}, ascending; NaN where a value was not
      finite.
    config: {binding: value} of the operative configuration.
    config_text: the configuration as it was written.
    predictions: {task, split and label: records} of the last step that has any.
    samples: rows of the last dump of the batch as trained.
    identity: what the run says of its model and data (`run.json`).
    num_parameters: of the model that was trained; None if it does not say.
    is_evaluation: a checkpoint that was scored; its metrics have step 0.
    notes: what of its files is missing or damaged, in words.
  """

  name: str
  path: str
  metrics: Curves
  config: Mapping[str, str]
  config_text: str
  predictions: Mapping[str, Sequence[Mapping[str, Any]]]
  samples: Sequence[Mapping[str, Any]]
  identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  num_parameters: int | None = None
  is_evaluation: bool = False
  notes: Sequence[str] = ()

  def last(self, name: str) -> float:
    """Last value of a metric; NaN if the run has none."""
    return self.metrics[name][1][-1] if name in self.metrics else math.nan

  def total(self, name: str) -> float:
    """Sum of a metric's finite values; NaN if the run has none."""
    if name not in self.metrics:
      return math.nan
    return sum(v for v in self.metrics[name][1] if math.isfinite(v))

  @property
  def arm(self) -> str:
    """What it has in common with the same run of other seeds."""
    return naming.arm(self.name, self.path)

  @property
  def title(self) -> str:
    """The arm, and the seed where the name has one."""
    seed = naming.seed(self.name)
    return f"{self.arm}, seed {seed}" if seed else self.arm

  @property
  def num_steps(self) -> int:
    """The last step that was reported."""
    return max((steps[-1] for steps, _ in self.metrics.values()), default=0)


@dataclasses.dataclass(frozen=True)
class Results:
  """A table of results: one row per method and seed, and how it was made."""

  rows: Sequence[Mapping[str, Any]]
  meta: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Collection:
  """All that one report is about.

  Attributes:
    runs: that have reported numbers.
    results: tables of results, joined.
    silent: names of runs without numbers.
  """

  runs: Sequence[Run]
  results: Results | None
  silent: Sequence[str] = ()


def read(paths: Sequence[str]) -> Collection:
  """Reads directories of runs and results.

  Raises:
    UserError: no directory given, one does not exist or holds nothing to
      report, or a file in it cannot be read.
  """
  if not paths:
    raise UserError(
      "no directory was given to report on; expected at least one: gkd report"
      " DIR…"
    )
  found: dict[str, Numbers] = {}
  tables: list[Results] = []
  for path in paths:
    if not os.path.isdir(path):
      raise UserError(
        f"{path} is not a directory; expected the MODEL_DIR of a run or a"
        " directory of runs"
      )
    below = directories.find(path)
    table = _read_results(os.path.join(path, "results.json"))
    if not below and table is None:
      raise UserError(
        f"{path} has no metrics.jsonl, no metrics.json and no results.json;"
        " expected the MODEL_DIR of a run or a directory of runs"
      )
    found |= below
    tables += [table] if table else []
  named = dict(zip(found, naming.short(list(found)), strict=True))
  silent = [named[path] for path in found if not found[path].curves]
  if len(silent) == len(found) and not tables:
    raise UserError(
      f"{next(iter(found))} is a run that has reported no numbers yet; wait for"
      " the first line of its metrics.jsonl or give another directory"
    )
  collected = [
    read_run(path, named[path], numbers)
    for path, numbers in found.items()
    if numbers.curves
  ]
  rows = [row for table in tables for row in table.rows]
  meta = {key: value for table in tables for key, value in table.meta.items()}
  return Collection(collected, Results(rows, meta) if tables else None, silent)


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """{arm: its runs}, in the order of the runs."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.arm, []).append(run)
  return found


def read_run(path: str, name: str, numbers: Numbers | None = None) -> Run:
  """Reads the directory of one run or evaluation.

  Args:
    path: the directory.
    name: of the run within the report.
    numbers: its numbers, if they have been read already.
  """
  numbers = numbers or directories.read(path)
  config_text = reading.text(os.path.join(path, "config.gin"))
  notes = list(numbers.damage)
  if not config_text.strip():
    notes.append("config.gin is missing, so its settings are not compared")
  size = re.search(
    r"Total number of parameters: (\d+)",
    reading.text(os.path.join(path, "model-info.txt")),
  )
  return Run(
    name=name,
    path=path,
    metrics=numbers.curves,
    config=bindings.parse(config_text),
    config_text=config_text,
    predictions=_read_predictions(os.path.join(path, "predictions")),
    samples=_read_samples(os.path.join(path, "samples")),
    identity=reading.json_object(os.path.join(path, "run.json")) or {},
    num_parameters=int(size.group(1)) if size else None,
    is_evaluation=numbers.is_evaluation,
    notes=notes,
  )


def _read_results(path: str) -> Results | None:
  content = reading.json_object(path)
  if content is None:
    return None
  rows, meta = content.get("rows"), content.get("meta") or {}
  is_table = isinstance(rows, list) and all(isinstance(r, dict) for r in rows)
  if not (is_table and isinstance(meta, dict)):
    raise UserError(
      f'{path} cannot be read as results; expected an object with "rows", a'
      " list of objects; make it again or move it away"
    )
  return Results(rows, meta) if rows else None


def _read_predictions(directory: str) -> dict[str, list[dict[str, Any]]]:
  """The last step of each `<task>-<split>[-<label>]-<step>.jsonl`."""
  last: dict[str, tuple[int, str]] = {}
  for name in reading.names_in(directory):
    match = re.fullmatch(r"(.+)-(\d+)\.jsonl", name)
    if match:
      key, step = match.group(1), int(match.group(2))
      last[key] = max(last.get(key, (-1, "")), (step, name))
  return {
    key: reading.json_lines(os.path.join(directory, name)).objects
    for key, (_, name) in sorted(last.items())
  }


def _read_samples(directory: str) -> list[dict[str, Any]]:
  names = [n for n in reading.names_in(directory) if n.endswith(".jsonl")]
  if not names:
    return []
  return reading.json_lines(os.path.join(directory, names[-1])).objects
