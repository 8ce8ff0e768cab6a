"""Reads what runs left behind: metrics, settings, texts, result tables.

A directory may be a run (`metrics.jsonl`, `metric_info.json`, `run.json`,
`config.gin`, `predictions/`, `samples/`), an evaluation (`metrics.json`
instead), a set of these (directories below it), hold a table of results
(`results.json`), or several of these. No model is loaded.

  read(["runs/sft", "runs/gkd"]).runs
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import os
import re
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError
from gkd.report import arms
from gkd.report import metric_info
from gkd.report import result_files
from gkd.report.arms import Run
from gkd.report.metric_info import Curve
from gkd.report.metric_info import Score

# A set of runs is at most this deep: <set>/<seed>/<method>.
_DEPTH = 2
# Folders of a run that hold no runs.
_OWN = {"checkpoints", "predictions", "samples", "tensorboard"}
# A folder with one of these files is a run, also if it has no metrics yet.
_MARKS = ("metrics.jsonl", "config.gin", "run.json")


class Results(NamedTuple):
  """A table of results.

  Attributes:
    rows: one object per method and seed.
    meta: how the table was made.
    columns: {column: {"title", "unit", "direction"}} of its numbers.
    labels: {name of a run's folder: label of its arm}, in reading order.
  """

  rows: Sequence[Mapping[str, Any]] = ()
  meta: Mapping[str, Any] = {}
  columns: Mapping[str, Mapping[str, str]] = {}
  labels: Mapping[str, str] = {}


@dataclasses.dataclass(frozen=True)
class Collection:
  """All that one report is about.

  Attributes:
    runs: runs and evaluations with metrics.
    results: tables of results, joined; without rows if there is none.
    empty: names of runs without metrics.
  """

  runs: Sequence[Run]
  results: Results
  empty: Sequence[str] = ()


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
  found: dict[str, Run] = {}
  results = Results()
  for path in paths:
    if not os.path.isdir(path):
      raise UserError(
        f"{path} is not a directory; expected the MODEL_DIR of a run or a"
        " directory of runs"
      )
    table = _read_results(os.path.join(path, "results.json"))
    below = {
      run.path: dataclasses.replace(run, labels=table.labels if table else {})
      for run in _runs_below(os.path.abspath(path))
    }
    if not below and table is None:
      raise UserError(
        f"{path} has no metrics.jsonl, no metrics.json and no results.json;"
        " expected the MODEL_DIR of a run or a directory of runs"
      )
    found |= below
    if table is not None:
      results = Results(
        [*results.rows, *table.rows],
        *({**a, **b} for a, b in zip(results[1:], table[1:], strict=True)),
      )
  names = arms.short_names(list(found)) if found else []
  named = [
    dataclasses.replace(run, name=name)
    for run, name in zip(found.values(), names, strict=True)
  ]
  empty = [run.name for run in named if not run.metrics]
  if len(empty) == len(named) and not results.rows:
    raise UserError(
      f"{next(iter(found))} is a run that has reported no numbers yet; wait for"
      " the first line of its metrics.jsonl or give another directory"
    )
  runs = arms.assign([run for run in named if run.metrics])
  return Collection(runs, results, empty)


def read_run(path: str) -> Run:
  """Reads the directory of one run or evaluation, by its path.

  Raises:
    UserError: a file in it cannot be read.
  """

  def file(name: str) -> str:
    return os.path.join(path, name)

  lines, notes = result_files.json_lines(file("metrics.jsonl"))
  values = result_files.json_object(file("metrics.json"))
  infos = result_files.json_object(file("metric_info.json"))
  about = result_files.json_object(
    file("run.json"), {"settings": dict, "roles": dict}
  )
  config_text = result_files.text(file("config.gin"))
  curves = _curves(lines)
  is_evaluation = bool(values) and not curves
  if is_evaluation:
    curves = _curves(
      [{"step": 0} | {n: v for n, v in values.items() if "/" in n}]
    )
  elif values:
    notes.append(
      "metrics.json of an evaluation in the folder of a run is left out;"
      " evaluate into a folder of its own"
    )
  metrics = metric_info.structured(curves, infos, about, path)
  if any(isinstance(key, Score) and not key.task for key in metrics):
    notes.append(
      "metric_info.json does not describe its scores (an earlier version wrote"
      " the folder), so they are shown under plain names, without units"
    )
  if not (about.get("settings") or config_text.strip()):
    notes.append(
      "run.json has no settings and config.gin is missing, so its settings are"
      " not shown"
    )
  size = re.search(
    r"Total number of parameters: (\d+)",
    result_files.text(file("model-info.txt")),
  )
  samples = result_files.last_of_series(file("samples")).values()
  return Run(
    name=os.path.basename(path),
    path=path,
    metrics=metrics,
    about=about,
    config_text=config_text,
    predictions=result_files.last_of_series(file("predictions")),
    samples=next(iter(samples), ()),
    num_parameters=int(size.group(1)) if size else None,
    is_evaluation=is_evaluation,
    notes=notes,
  )


def _runs_below(directory: str, depth: int = _DEPTH) -> Iterator[Run]:
  """Runs at or below an absolute path, also those without metrics."""
  run = read_run(directory)
  is_run = bool(run.metrics) or any(
    os.path.exists(os.path.join(directory, mark)) for mark in _MARKS
  )
  if is_run:
    yield run
  if depth:
    for entry in sorted(_folders(directory), key=arms.natural_order):
      if not (is_run and entry in _OWN):
        yield from _runs_below(os.path.join(directory, entry), depth - 1)


def _folders(directory: str) -> list[str]:
  try:
    with os.scandir(directory) as entries:
      return [
        entry.name
        for entry in entries
        if entry.is_dir() and not entry.name.startswith(".")
      ]
  except OSError as error:
    raise UserError(
      f"{directory} cannot be read ({error.strerror}); make it readable or give"
      " another directory"
    ) from error


def _curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
  """{name: (steps, values)}; the later of two values of a step counts."""
  by_name: dict[str, dict[int, float]] = {}
  for line in lines:
    step = line.get("step")
    if not isinstance(step, int):
      continue
    for name, value in line.items():
      if name != "step":
        by_name.setdefault(name, {})[step] = _number(value)
  return {
    name: (sorted(values), [values[step] for step in sorted(values)])
    for name, values in sorted(by_name.items())
  }


def _number(value: Any) -> float:
  """A number as it is; NaN for null, which stands for what is not finite."""
  return float(value) if isinstance(value, (int, float)) else math.nan


def _read_results(path: str) -> Results | None:
  types = {"rows": list, "meta": dict, "columns": dict, "labels": dict}
  content = result_files.json_object(path, types)
  rows = content.get("rows", ())
  if content and not (
    "rows" in content and all(isinstance(r, dict) for r in rows)
  ):
    raise UserError(
      f'{path} cannot be read as results; expected an object with "rows", a'
      " list of objects; make it again or move it away"
    )
  others = [content.get(name) or {} for name in Results._fields[1:]]
  return Results(rows, *others) if rows else None
