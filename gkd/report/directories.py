"""Finds the folders of runs and evaluations, and reads their numbers."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import math
import os
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError
from gkd.report import names
from gkd.report import reading

# {name: ([steps], [values])}, ascending; NaN where a value was not finite.
Curves = Mapping[str, tuple[Sequence[int], Sequence[float]]]

# A set of runs is at most this deep: <set>/<seed>/<method>.
_DEPTH = 2
# What a run keeps for itself: there are no runs below.
_OWN = {"checkpoints", "predictions", "samples", "tensorboard"}
# A folder with one of these is a run, also if it has no numbers yet.
_MARKS = ("metrics.jsonl", "config.gin", "run.json")


class Numbers(NamedTuple):
  """What a run or evaluation has measured."""

  curves: Curves
  is_evaluation: bool
  damage: Sequence[str]  # in words


def find(directory: str) -> dict[str, Numbers]:
  """{absolute path: numbers} of all runs at or below a directory.

  A run without numbers is among them; a folder that is no run is not.
  """
  return _find(os.path.abspath(directory), _DEPTH)


def read(directory: str) -> Numbers:
  """Curves of a run, or the single numbers of an evaluation as step 0.

  Raises:
    UserError: `metrics.json` cannot be read.
  """
  lines = reading.json_lines(os.path.join(directory, "metrics.jsonl"))
  scores = reading.json_object(os.path.join(directory, "metrics.json")) or {}
  curves = _curves(lines.objects)
  damage = []
  if lines.torn:
    damage.append("the last line of metrics.jsonl is torn and was left out")
  if lines.damaged:
    damage.append(
      f"{lines.damaged} lines of metrics.jsonl cannot be read and were left out"
    )
  if curves and scores:
    damage.append(
      "metrics.json of an evaluation in the folder of a run is left out;"
      " evaluate into a folder of its own"
    )
  if curves:
    return Numbers(curves, False, damage)
  single = {n: ([0], [_number(scores[n])]) for n in sorted(scores) if "/" in n}
  return Numbers(single, bool(single), damage)


def _find(directory: str, depth: int) -> dict[str, Numbers]:
  numbers = read(directory)
  is_run = bool(numbers.curves) or any(
    os.path.exists(os.path.join(directory, mark)) for mark in _MARKS
  )
  found = {directory: numbers} if is_run else {}
  if depth:
    for entry in sorted(_folders(directory), key=names.order):
      if not (is_run and entry in _OWN):
        found |= _find(os.path.join(directory, entry), depth - 1)
  return found


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


def _curves(lines: Iterable[Mapping[str, Any]]) -> Curves:
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
