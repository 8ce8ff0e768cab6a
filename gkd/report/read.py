"""Reads what runs left behind: metrics, settings, texts, result tables.

A directory may be a run (`metrics.jsonl`, `metric_info.json`, `run.json`,
`config.gin`, `predictions/`, `samples/`), an evaluation (`metrics.json`
instead), a set of these (directories below it), hold a table of results
(`results.json`), or several of these. No model is loaded.

  read(["runs/sft", "runs/gkd"]).runs
"""

import collections
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
import os
import re
from typing import Any

from gkd.errors import UserError
from gkd.report import arms
from gkd.report import guard_findings
from gkd.report import metric_info
from gkd.report import result_files
from gkd.report import results
from gkd.report import sections
from gkd.report.arms import Run
from gkd.report.charts import Chart
from gkd.report.metric_info import Curve
from gkd.report.metric_info import Score
from gkd.report.results import Results

# A set of runs is at most this deep: <set>/<seed>/<method>.
_DEPTH = 2
# Folders of a run that hold no runs.
_OWN = {"checkpoints", "predictions", "samples", "tensorboard"}
# A folder with one of these files is a run, also if it has no metrics yet.
_MARKS = ("metrics.jsonl", "config.gin", "run.json")


@dataclasses.dataclass(frozen=True)
class Collection:
  """All that one report is about."""

  runs: Sequence[Run]  # runs and evaluations with metrics
  results: Results  # tables of results, joined
  empty: Sequence[str] = ()  # names of runs without metrics

  @functools.cached_property
  def sections(self) -> Mapping[str, Sequence[Chart]]:
    """The charts of the runs, for the page and for PNG files."""
    return sections.sections(self.runs)


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
  runs: dict[str, Run] = {}
  joined = Results()
  for path in paths:
    if not os.path.isdir(path):
      raise UserError(
        f"{path} is not a directory; expected the MODEL_DIR of a run or a"
        " directory of runs"
      )
    table = results.read(path)
    below = {
      run.path: dataclasses.replace(
        run,
        labels=table.labels,
        axes=table.axes.get(os.path.basename(run.path), {}),
      )
      for run in _runs_below(os.path.abspath(path))
    }
    if not below and not table.rows:
      raise UserError(
        f"{path} has no metrics.jsonl, no metrics.json and no results.json;"
        " expected the MODEL_DIR of a run or a directory of runs"
      )
    runs |= below
    joined = joined.joined(table)
  # Runs are called by their paths below the folder that they have in common.
  root = os.path.commonpath(map(os.path.dirname, runs)) if runs else ""
  named = [
    dataclasses.replace(run, name=os.path.relpath(path, root))
    for path, run in runs.items()
  ]
  empty = [run.name for run in named if not run.metrics]
  if len(empty) == len(named) and not joined.rows:
    raise UserError(
      f"{next(iter(runs))} is a run that has reported no numbers yet; wait for"
      " the first line of its metrics.jsonl or give another directory"
    )
  with_metrics = [run for run in named if run.metrics]
  return Collection(arms.assign(with_metrics), joined, empty)


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
  types = {"settings": dict, "roles": dict, "num_rows": int, "warmup_end": int}
  about = result_files.json_object(file("run.json"), types)
  guard = result_files.json_object(file("guard.json"), guard_findings.TYPES)
  config_text = result_files.text(file("config.gin"))
  curves = _curves(lines)
  is_evaluation = bool(values) and not curves
  if is_evaluation:
    scores = {n: v for n, v in values.items() if "/" in n}
    curves = _curves([{**scores, "step": 0}])
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
    guard=guard,
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
    for folder in sorted(_folders(directory), key=_natural_order):
      if not (is_run and folder in _OWN):
        yield from _runs_below(os.path.join(directory, folder), depth - 1)


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


def _natural_order(name: str) -> list[tuple[int, int | str]]:
  """Sort key of folders: run_2 before run_10."""
  return [
    (0, int(part)) if part.isdigit() else (1, part)
    for part in re.split(r"(\d+)", name)
    if part
  ]


def _curves(lines: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
  """Curves by name; the later of two values of a step counts.

  What is no number is NaN: null stands for what is not finite.
  """
  curves: dict[str, dict[int, float]] = collections.defaultdict(dict)
  for line in lines:
    step = line.get("step")
    for name in line.keys() - {"step"} if isinstance(step, int) else ():
      is_number = isinstance(line[name], (int, float))
      curves[name][step] = float(line[name]) if is_number else math.nan
  return {
    name: dict(sorted(curve.items())) for name, curve in sorted(curves.items())
  }
