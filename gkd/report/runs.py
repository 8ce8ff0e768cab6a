"""Reads what runs left behind: metrics, configuration, texts, result tables.

A directory may be a run (`metrics.jsonl`, `config.gin`, `predictions/`,
`samples/`), an evaluation (`metrics.json`), a set of these (directories below
it), hold a table of results (`results.json`), or several of these. Nothing here
needs a model.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
import os
import re
from typing import Any

from gkd import bindings
from gkd.errors import UserError
from gkd.report import names as naming

# A set of runs is at most this deep: <set>/<seed>/<method>.
_DEPTH = 2


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
  """

  name: str
  path: str
  metrics: Mapping[str, tuple[Sequence[int], Sequence[float]]]
  config: Mapping[str, str]
  config_text: str
  predictions: Mapping[str, Sequence[Mapping[str, Any]]]
  samples: Sequence[Mapping[str, Any]]

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
  """All that one report is about."""

  runs: Sequence[Run]
  results: Results | None


def read(directories: Sequence[str]) -> Collection:
  """Reads directories of runs and results.

  Raises:
    UserError: no directory given, one does not exist, or one holds neither
      metrics nor results.
  """
  if not directories:
    raise UserError(
      "no directory was given to report on; expected at least one: gkd report"
      " DIR…"
    )
  paths: list[str] = []
  tables: list[Results] = []
  for directory in directories:
    if not os.path.isdir(directory):
      raise UserError(
        f"{directory} is not a directory; expected the MODEL_DIR of a run or a"
        " directory of runs"
      )
    found = _run_directories(directory, _DEPTH)
    table = _read_results(os.path.join(directory, "results.json"))
    if not found and table is None:
      raise UserError(
        f"{directory} has no metrics.jsonl with numbers and no results.json;"
        " expected the MODEL_DIR of a run that has reported, or a directory of"
        " such runs"
      )
    paths += [path for path in found if path not in paths]
    tables += [table] if table else []
  names = naming.short(paths)
  collected = [
    read_run(path, name) for path, name in zip(paths, names, strict=True)
  ]
  if not tables:
    return Collection(collected, None)
  rows = [row for table in tables for row in table.rows]
  meta = {key: value for table in tables for key, value in table.meta.items()}
  return Collection(collected, Results(rows, meta))


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """{arm: its runs}, in the order of the runs."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.arm, []).append(run)
  return found


def read_run(path: str, name: str) -> Run:
  """Reads the directory of one run or evaluation."""
  config_text = _read_text(os.path.join(path, "config.gin"))
  return Run(
    name=name,
    path=path,
    metrics=_read_numbers(path),
    config=bindings.parse(config_text),
    config_text=config_text,
    predictions=_read_predictions(os.path.join(path, "predictions")),
    samples=_read_samples(os.path.join(path, "samples")),
  )


def read_metrics(path: str) -> dict[str, tuple[list[int], list[float]]]:
  """{name: (steps, values)}; the later of two values of a step counts."""
  by_name: dict[str, dict[int, float]] = {}
  for line in read_jsonl(path):
    if not isinstance(line.get("step"), int):
      continue
    for name, value in line.items():
      if name == "step":
        continue
      number = float(value) if isinstance(value, (int, float)) else math.nan
      by_name.setdefault(name, {})[line["step"]] = number
  return {
    name: (sorted(values), [values[step] for step in sorted(values)])
    for name, values in sorted(by_name.items())
  }


def read_jsonl(path: str, whole: bool = False) -> list[dict[str, Any]]:
  """Objects of a JSONL file; lines that a kill has torn are skipped.

  With `whole` the file is one object over many lines.
  """
  found = []
  text = _read_text(path)
  for line in [text] if whole else text.split("\n"):
    try:
      value = json.loads(line)
    except ValueError:
      continue
    if isinstance(value, dict):
      found.append(value)
  return found


def _read_numbers(path: str) -> dict[str, tuple[list[int], list[float]]]:
  """Curves of a run, or the single numbers of an evaluation as step 0."""
  curves = read_metrics(os.path.join(path, "metrics.jsonl"))
  if curves:
    return curves
  lines = read_jsonl(os.path.join(path, "metrics.json"), whole=True)
  numbers = lines[0].items() if lines else ()
  return {
    name: ([0], [float(value)])
    for name, value in sorted(numbers)
    if isinstance(value, (int, float))
  }


def _run_directories(directory: str, depth: int) -> list[str]:
  """Directories at or below this one that have reported numbers."""
  found = [directory] if _read_numbers(directory) else []
  if depth and not found:
    entries = sorted(os.scandir(directory), key=lambda e: naming.order(e.name))
    for entry in entries:
      if entry.is_dir() and not entry.name.startswith("."):
        found += _run_directories(entry.path, depth - 1)
  return found


def _read_results(path: str) -> Results | None:
  if not os.path.exists(path):
    return None
  try:
    content = json.loads(_read_text(path))
    rows = [dict(row) for row in content["rows"]]
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
      f"{path} cannot be read as results ({error!r}); expected an object with"
      ' "rows", a list of objects; make it again or move it away'
    ) from error
  return Results(rows, content.get("meta") or {}) if rows else None


def _read_predictions(directory: str) -> dict[str, list[dict[str, Any]]]:
  """The last step of each `<task>-<split>[-<label>]-<step>.jsonl`."""
  last: dict[str, tuple[int, str]] = {}
  for name in _listing(directory):
    match = re.fullmatch(r"(.+)-(\d+)\.jsonl", name)
    if match:
      key, step = match.group(1), int(match.group(2))
      last[key] = max(last.get(key, (-1, "")), (step, name))
  return {
    key: read_jsonl(os.path.join(directory, name))
    for key, (_, name) in sorted(last.items())
  }


def _read_samples(directory: str) -> list[dict[str, Any]]:
  names = [name for name in _listing(directory) if name.endswith(".jsonl")]
  return read_jsonl(os.path.join(directory, names[-1])) if names else []


def _listing(directory: str) -> list[str]:
  return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def _read_text(path: str) -> str:
  if not os.path.exists(path):
    return ""
  with open(path, encoding="utf-8", errors="replace") as file:
    return file.read()
