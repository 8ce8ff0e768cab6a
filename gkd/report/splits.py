"""Scores of different splits under one name are told apart.

A run that evaluates a task on one split calls its scores eval/<task>/…, and
eval/<task>-<split>/… only if there are several. Two runs that are fine alone
may then mean different rows by one name: validation while training, test in
`gkd evaluate`. Their files say which.
"""

from collections.abc import Sequence
import dataclasses
import re

from gkd.report import measures
from gkd.report.runs import Run

_TASK = "MIXTURE_OR_TASK_NAME"


def told_apart(runs: Sequence[Run]) -> list[Run]:
  """The runs, with the split in the names of tasks that have several."""
  splits: dict[str, set[str]] = {}
  for run in runs:
    for task in _tasks(run):
      splits.setdefault(task, set()).add(split_of(run, task))
  names = set(splits)
  for task, found in splits.items():
    found |= {
      name.removeprefix(f"{task}-")
      for name in names
      if name.startswith(f"{task}-")
    }
  several = {task for task, found in splits.items() if len(found - {""}) > 1}
  return [_renamed(run, several) for run in runs]


def split_of(run: Run, task: str) -> str:
  """The split behind a name without one; "" where no file says.

  From the names of the predictions, <task>-<split>[-<label>], else from the
  configuration.
  """
  found = {
    re.sub(r"(^|-)t\d[\d.]*(e-?\d+)?$", "", name.removeprefix(f"{task}-"))
    for name in run.predictions
    if name.startswith(f"{task}-")
  } - {""}
  if len(found) == 1:
    return found.pop()
  if found or task not in (_text(run, "EVAL_TASK"), _text(run, _TASK)):
    return ""
  return _text(run, "EVAL_SPLIT")


def _tasks(run: Run) -> list[str]:
  return measures.tasks(filter(measures.is_score, run.metrics))


def _text(run: Run, macro: str) -> str:
  """The text that a macro stands for; "" for all that is no text."""
  value = run.config.get(macro, "")
  return value[1:-1] if re.fullmatch(r"'.*'|\".*\"", value) else ""


def _renamed(run: Run, several: set[str]) -> Run:
  new = {
    task: f"{task}-{split_of(run, task)}"
    for task in _tasks(run)
    if task in several and split_of(run, task)
  }
  metrics = {
    measures.with_task(name, new.get(measures.task(name))): curve
    for name, curve in run.metrics.items()
  }
  return dataclasses.replace(run, metrics=metrics) if new else run
