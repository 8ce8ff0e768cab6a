"""The TOML file of a grid, read and checked: stages × axes × seeds.

  title = "Two rates"
  seeds = [0, 1, 2]

  [stages.distil]                           # a job for each seed and value
  command = "train"
  gin_files = ["test/distill.gin"]
  set = {TEACHER_CHECKPOINT_PATH = "teacher"}
  axes.LEARNING_RATE = [1e-3, 3e-4]

  [stages.scores]                           # a job for each of stages.distil
  command = "evaluate"
  gin_files = ["test/evaluate.gin"]
  set = {INITIAL_CHECKPOINT_PATH = "{distil}"}

All of the format is in docs/grids.md. The gin files are not read here.
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import graphlib
from pathlib import Path
import re
import tomllib
from typing import Any

from gkd import files
from gkd.config.overrides import nearest
from gkd.errors import UserError

# {command: macro of its folder, and where that is below the job's folder}: a
# cache that `gkd sample` makes has a folder of its own.
RESULTS = {
  "train": ("MODEL_DIR", ""),
  "evaluate": ("MODEL_DIR", ""),
  "sample": ("OUTPUT_DIR", "cache"),
  "cache make": ("", ""),
}
PLACEHOLDER = re.compile(r"\{(\w+)\}")
_SETTINGS: files.Types = {"gin_files": [str], "set": dict}
_STAGE: files.Types = {
  **_SETTINGS,
  "after": [str],
  "axes": {str: (dict, list)},
  "command": str,
  "exclude": [dict],
  "flags": [str],
  "like": str,
  "once": bool,
}
_LISTS = {name: [] for name in ("after", "exclude", "flags", "gin_files")}
_OPTIONAL = {**_LISTS, "axes": {}, "set": {}}
_GRID: files.Types = {
  "environment": {str: str},
  "gin_files": [str],
  "seeds": [int],
  "stages": {str: dict},
  "title": str,
}
_NAME = re.compile(r"[\w.+-]+")
_TAKEN = ("run", "seconds", "seed", "stage")  # columns of the table


def read(file: Path) -> dict[str, Any]:
  """The content of a file; its stages stand after those that they need.

  Each stage has all its keys, but `once` where that is not given, and its axes
  as {axis: {name of a value: settings}}.

  Raises:
    UserError: in one line, what of the file is not a grid.
  """
  try:
    text = files.read_bytes(file, files.MAX_JSON_BYTES).decode("utf-8")
    content = tomllib.loads(text)
  except (OSError, ValueError, RecursionError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(
      f"{file} cannot be read as TOML ({reason}); docs/grids.md shows a file"
    ) from error
  _check(file, content, _GRID, "title", "stages")
  content = {"seeds": [0], "gin_files": [], "environment": {}, **content}
  _check_names(f"{file}: environment", content["environment"])
  stages: dict[str, dict[str, Any]] = {}
  for name, own in content["stages"].items():
    where = f"{file}: stages.{name}"
    _check_names(where, [name])
    stages[name] = _stage(where, own, stages, content["stages"])
  needed = {
    name: needs(x["after"], [x["set"], x["axes"], x["gin_files"]], stages)
    for name, x in stages.items()
  }
  try:
    order = list(graphlib.TopologicalSorter(needed).static_order())
  except graphlib.CycleError as error:
    circle = " → ".join(reversed(error.args[1]))
    raise UserError(
      f"{file}: stages wait for each other in a circle, {circle}; take one"
      " {name} or `after` out"
    ) from None
  return {**content, "stages": {name: stages[name] for name in order}}


def needs(
  after: Iterable[str], content: list, stages: Iterable[str]
) -> list[str]:
  """The stages that a stage waits for and those that its settings name."""
  named = [*after, *PLACEHOLDER.findall(repr(content))]
  return [name for name in dict.fromkeys(named) if name in stages]


def refuse_unknown(where: Any, names: Iterable, known: Iterable[str]) -> None:
  for name in names:
    if name not in known:
      near = nearest(name, known)
      hint = f"; did you mean {near}?" * bool(near)
      raise UserError(f"{where}: {name!r} is not known there{hint}")


def _stage(
  where: str,
  own: Mapping[str, Any],
  above: Mapping[str, Mapping[str, Any]],
  names: Collection[str],
) -> dict[str, Any]:
  """A stage by its own keys, those of one above, and what holds otherwise."""
  _check(where, own, _STAGE)
  like: Mapping[str, Any] = _OPTIONAL
  if "like" in own:
    refuse_unknown(f"{where}.like, a stage above", [own["like"]], above)
    like = {**above[own["like"]], "axes": {}, "exclude": []}
  stage = {**like, **own, "set": {**like["set"], **own.get("set", {})}}
  _check(where, stage, _STAGE, "command")
  refuse_unknown(where, [stage["command"]], RESULTS)
  if wrong := [flag for flag in stage["flags"] if flag.startswith("--gin")]:
    raise UserError(
      f"{where}.flags has {wrong[0]!r}; values stand in `set` and files in"
      " `gin_files`"
    )
  refuse_unknown(f"{where}.after", stage["after"], names)
  for axis in stage["axes"].keys() & {*names, *_TAKEN}:
    raise UserError(f"{where}.axes: {axis} is taken; rename that axis")
  axes = {a: _axis(where, a, values) for a, values in stage["axes"].items()}
  return {**stage, "axes": axes}


def _axis(where: str, axis: str, content: Any) -> dict[str, Any]:
  """{name of a value: its settings}."""
  if isinstance(content, list):
    content = {str(value): {"set": {axis: value}} for value in content}
  for name, settings in content.items():
    value = f"{where}.axes.{axis}.{name}"
    if not (isinstance(settings, dict) and _NAME.fullmatch(name)):
      raise UserError(
        f"{value} is {settings!r}; expected a name of letters, digits and"
        " ._+- with its settings, {gin_files = […], set = {…}}"
      )
    _check(value, settings, _SETTINGS)
  return content


def _check(
  where: Any, content: Mapping[str, Any], types: files.Types, *required: str
) -> None:
  remedy = "see docs/grids.md"
  refuse_unknown(where, content, types)
  files.check_types(where, content, types, remedy)
  types = {name: types[name] for name in required}
  files.check_types(where, content, types, remedy, required=True)


def _check_names(where: str, names: Iterable[str]) -> None:
  for name in names:
    if not re.fullmatch(r"\w+", name):
      raise UserError(f"{where}: {name!r}; expected letters, digits and _")
