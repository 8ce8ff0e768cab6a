"""Jobs of a grid: stages × axes × seeds of a TOML file, each a `gkd` command.

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

All of the format is in docs/grids.md. Nothing is run or looked up here, and the
gin files are not read.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import graphlib
import itertools
from pathlib import Path
import re
import tomllib
from typing import Any

from gkd import files
from gkd.config.overrides import nearest
from gkd.errors import UserError

# {command: macro of its folder, and where that is below the job's folder}: a
# cache that `gkd sample` makes has a folder of its own.
_RESULTS = {
  "train": ("MODEL_DIR", ""),
  "evaluate": ("MODEL_DIR", ""),
  "sample": ("OUTPUT_DIR", "cache"),
  "cache make": ("", ""),
}
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
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NAME_BYTES = 255  # of a file system
_MOST_JOBS = 10_000
_TAKEN = ("run", "seconds", "seed", "stage")  # columns of the table
Axes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One command of a grid.

  Attributes:
    name: its folder below that of the grid, "seed_0/distil-0.001".
    axes: {axis: name of its value}, with the "seed" unless it is made once.
    bindings: "NAME=VALUE".
    after: names of the jobs that must be done before.
    result: folder that the command writes.
  """

  name: str
  stage: str
  axes: Axes
  command: str
  gin_files: Sequence[str] = ()
  bindings: Sequence[str] = ()
  flags: Sequence[str] = ()
  after: Sequence[str] = ()
  result: Path

  @property
  def arguments(self) -> list[str]:
    """Of `gkd`."""
    gin_files = [f"--gin_file={file}" for file in self.gin_files]
    bindings = [f"--gin.{binding}" for binding in self.bindings]
    return [*self.command.split(), *gin_files, *bindings, *self.flags]


@dataclasses.dataclass(frozen=True)
class Grid:
  """What a file describes; jobs stand after those that they need."""

  title: str
  jobs: Sequence[Job]
  environment: Mapping[str, str]


def read(file: Path, output: Path) -> Grid:
  """The grid of a file, with its results below `output`.

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
  stages: dict[str, dict[str, Any]] = {}
  for name, own in content["stages"].items():
    where = f"{file}: stages.{name}"
    _check_names(where, [name])
    _check(where, own, _STAGE)
    like: Mapping[str, Any] = _OPTIONAL
    if "like" in own:
      _refuse_unknown(f"{where}.like, a stage above", [own["like"]], stages)
      like = {**stages[own["like"]], "axes": {}, "exclude": []}
    stage = {**like, **own, "set": {**like["set"], **own.get("set", {})}}
    stages[name] = stage
    _check(where, stage, _STAGE, "command")
    _refuse_unknown(where, [stage["command"]], _RESULTS)
    if wrong := [flag for flag in stage["flags"] if flag.startswith("--gin")]:
      raise UserError(
        f"{where}.flags has {wrong[0]!r}; values stand in `set` and files in"
        " `gin_files`"
      )
    _refuse_unknown(f"{where}.after", stage["after"], content["stages"])
  _check_names(f"{file}: environment", content["environment"])
  needs = {
    name: _needs(x["after"], [x["set"], x["axes"], x["gin_files"]], stages)
    for name, x in stages.items()
  }
  try:
    order = list(graphlib.TopologicalSorter(needs).static_order())
  except graphlib.CycleError as error:
    circle = " → ".join(reversed(error.args[1]))
    raise UserError(
      f"{file}: stages wait for each other in a circle, {circle}; take one"
      " {name} or `after` out"
    ) from None
  made: dict[str, list[Job]] = {}
  for name in order:
    stage = _Stage(file, output, content, name, stages[name], made)
    made[name] = stage.jobs()
  jobs = list(itertools.chain(*made.values()))
  for name, count in Counter(job.name for job in jobs).items():
    if count > 1:
      raise UserError(f"{file}: two jobs are called {name}; rename a value")
    if len(Path(name).name.encode()) > _NAME_BYTES:
      raise UserError(
        f"{file}: {name} is too long for a folder; rename a value"
      )
  # All of one seed before the next one: a table that can be read early.
  places = {seed: place for place, seed in enumerate(content["seeds"])}
  jobs.sort(key=lambda job: places.get(job.axes.get("seed"), -1))
  return Grid(content["title"], jobs, content["environment"])


@dataclasses.dataclass(frozen=True)
class _Stage:
  """A stage of a file's `content`; `made` are the jobs of those before."""

  file: Path
  output: Path
  content: Mapping[str, Any]
  name: str
  settings: Mapping[str, Any]
  made: Mapping[str, Sequence[Job]]

  @property
  def where(self) -> str:
    return f"{self.file}: stages.{self.name}"

  def jobs(self) -> list[Job]:
    """A job for each choice of values, seed and needed jobs."""
    axes = {a: self.axis(a, x) for a, x in self.settings["axes"].items()}
    is_data = self.settings["command"] == "cache make"
    is_once = self.settings.get("once", is_data)
    if not is_once:
      axes = {"seed": {x: {} for x in self.content["seeds"]}, **axes}
    for axis, values in axes.items():
      if not values:
        raise UserError(
          f"{self.where}: {axis} has no values; give at least one"
        )
    jobs: list[Job] = []
    for values in itertools.product(*axes.values()):
      own = dict(zip(axes, values, strict=True))
      chosen = [axes[axis][value] for axis, value in own.items()]
      jobs += self.joined(own, [self.content, self.settings, *chosen])
      if len(jobs) > _MOST_JOBS:
        raise UserError(
          f"{self.where} has more than {_MOST_JOBS:,} jobs; give fewer seeds or"
          " values, or several grids"
        )
    if is_once and any("seed" in job.axes for job in jobs):
      raise UserError(
        f"{self.where} is made once but needs a stage of each seed; take `once`"
        " out, here or set it there as well"
      )
    where, kept = f"{self.where}.exclude", jobs
    for part in self.settings["exclude"]:
      left_out = jobs
      for axis, values in part.items():
        _refuse_unknown(where, [axis], {name for j in jobs for name in j.axes})
        known = {str(job.axes[axis]) for job in jobs if axis in job.axes}
        names = {*map(str, values if isinstance(values, list) else [values])}
        _refuse_unknown(f"{where}.{axis}", names, known)
        left_out = [j for j in left_out if str(j.axes.get(axis, "")) in names]
      if not left_out:
        raise UserError(f"{where} has {part}, which leaves out no job; drop it")
      gone = {job.name for job in left_out}
      kept = [job for job in kept if job.name not in gone]
    if not kept:
      raise UserError(f"{where} leaves out every job; take something out of it")
    return kept

  def axis(self, axis: str, content: Any) -> Mapping[str, Mapping[str, Any]]:
    """{name of a value: its settings}."""
    if axis in {*self.made, *_TAKEN}:
      raise UserError(f"{self.where}.axes: {axis} is taken; rename that axis")
    if isinstance(content, list):
      content = {str(value): {"set": {axis: value}} for value in content}
    for name, settings in content.items():
      where = f"{self.where}.axes.{axis}.{name}"
      if not (isinstance(settings, dict) and _NAME.fullmatch(name)):
        raise UserError(
          f"{where} is {settings!r}; expected a name of letters, digits and"
          " ._+- with its settings, {gin_files = […], set = {…}}"
        )
      _check(where, settings, _SETTINGS)
    return content

  def joined(self, own: Axes, parts: Sequence[Mapping]) -> Iterator[Job]:
    """A job for each choice of needed jobs that agree on their axes.

    Args:
      own: of the stage.
      parts: settings, the later ones win.
    """
    chosen = {k: v for part in parts for k, v in part.get("set", {}).items()}
    gin_files = [file for part in parts for file in part.get("gin_files", ())]
    choices: list[tuple[Axes, dict[str, Job]]] = [(own, {})]
    after = self.settings["after"]
    for stage in _needs(after, [chosen, gin_files], self.made):
      choices = [
        (axes | job.axes, {**needs, stage: job})
        for axes, needs in choices
        for job in self.made[stage]
        if all(axes.get(axis, v) == v for axis, v in job.axes.items())
      ]
      if not choices:
        values = ", ".join(f"{axis} {value}" for axis, value in own.items())
        raise UserError(
          f"{self.where}: there is no job of {stage!r} for {values}; give both"
          " stages the same values of that axis"
        )
    for axes, needs in choices:
      values = [str(value) for axis, value in axes.items() if axis != "seed"]
      name = "-".join([self.name, *values])
      if "seed" in axes:
        name = f"seed_{axes['seed']}/{name}"
      macro, below = _RESULTS[self.settings["command"]]
      result = self.output / name / below
      texts = axes | {stage: job.result for stage, job in needs.items()}
      yield Job(
        name=name,
        stage=self.name,
        axes=axes,
        command=self.settings["command"],
        gin_files=[self.gin_file(file, texts) for file in gin_files],
        bindings=list(self.bindings(chosen, texts, macro, result)),
        flags=self.settings["flags"],
        after=[job.name for job in needs.values()],
        result=result,
      )

  def bindings(
    self, chosen: Mapping[str, Any], texts: Axes, macro: str, result: Path
  ) -> Iterator[str]:
    """NAME=VALUE, with what stands for the placeholders."""
    if macro in chosen:
      raise UserError(
        f"{self.where} sets {macro}, which is the folder of each job; leave it"
        f" out and write {{{self.name}}} where that is needed"
      )
    own = {macro: str(result)} if macro else {}
    if macro and "seed" in texts:
      chosen = {"RANDOM_SEED": texts["seed"], **chosen}
    for name, value in {**chosen, **own}.items():
      text = value if isinstance(value, str) else repr(value)
      yield f"{name}={self.filled(f'set.{name}', text, texts)}"

  def gin_file(self, file: str, texts: Axes) -> str:
    """Beside the grid's own file, or as `gkd` finds it."""
    file = self.filled("gin_files", file, texts)
    beside = self.file.parent.absolute() / file
    return str(beside) if beside.is_file() else file

  def filled(self, name: str, text: str, texts: Axes) -> str:
    """A text with what stands for its placeholders."""
    found = _PLACEHOLDER.findall(text)
    _refuse_unknown(f"{self.where}.{name}", found, {*texts, *self.made})
    return _PLACEHOLDER.sub(lambda match: str(texts[match[1]]), text)


def _needs(after: list[str], content: list, stages: Iterable[str]) -> list[str]:
  """The stages that a stage waits for and those that its settings name."""
  named = [*after, *_PLACEHOLDER.findall(repr(content))]
  return [name for name in dict.fromkeys(named) if name in stages]


def _check(
  where: Any, content: Mapping[str, Any], types: files.Types, *required: str
) -> None:
  remedy = "see docs/grids.md"
  _refuse_unknown(where, content, types)
  files.check_types(where, content, types, remedy)
  types = {name: types[name] for name in required}
  files.check_types(where, content, types, remedy, required=True)


def _check_names(where: str, names: Iterable[str]) -> None:
  for name in names:
    if not re.fullmatch(r"\w+", name):
      raise UserError(f"{where}: {name!r}; expected letters, digits and _")


def _refuse_unknown(where: Any, names: Iterable, known: Iterable[str]) -> None:
  for name in names:
    if name not in known:
      near = nearest(name, known)
      hint = f"; did you mean {near}?" * bool(near)
      raise UserError(f"{where}: {name!r} is not known there{hint}")
