"""Jobs of a grid: stages × axes × seeds of a TOML file, each a `gkd` command.

  title = "Who writes the training text?"
  seeds = [0, 1, 2]
  gin_files = ["common.gin"]                # of every job

  [stages.teacher]                          # once: not for each seed
  command = "train"
  once = true
  gin_files = ["teacher.gin"]

  [stages.answers]
  command = "sample"
  set = {INITIAL_CHECKPOINT_PATH = "{teacher}"}

  [stages.distil]                           # a job for each value of each axis
  command = "train"
  set = {TEACHER_CHECKPOINT_PATH = "{teacher}"}
  [stages.distil.axes]
  LEARNING_RATE = [1e-3, 3e-4]              # a knob, or named settings:
  [stages.distil.axes.source]
  offline = {set = {TRAIN_CACHE = "{answers}"}}
  online = {gin_files = ["methods/gkd_on_policy.gin"]}

  [stages.scores]                           # for each job of stages.distil
  command = "evaluate"
  set = {INITIAL_CHECKPOINT_PATH = "{distil}"}

`{stage}` is the result of a stage's job of the same seed and axes. A job starts
when those it names are done; it exists for each of them, so that axes and seeds
are passed on. This module only reads the file; it runs and checks nothing.
"""

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

# {command: macro of its folder, and where below the job's folder that is}; a
# cache that `gkd sample` makes has a folder of its own.
_RESULTS = {
  "train": ("MODEL_DIR", ""),
  "evaluate": ("MODEL_DIR", ""),
  "sample": ("OUTPUT_DIR", "cache"),
  "cache make": None,
}
_SETTINGS: files.Types = {"gin_files": [str], "set": dict}
_STAGE: files.Types = {
  **_SETTINGS,
  "after": [str],
  "axes": {str: (dict, list)},
  "command": str,
  "exclude": [dict],
  "flags": [str],
  "once": bool,
}
_GRID: files.Types = {
  "environment": {str: str},
  "gin_files": [str],
  "seeds": [int],
  "stages": {str: dict},
  "title": str,
}
_TAKEN = ("run", "seconds", "seed", "stage")  # columns of the table
_NAME = re.compile(r"[\w.+-]+")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
Axes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
  """One command of a grid.

  Attributes:
    name: its folder below that of the grid, "seed_0/distil-offline-0.001".
    stage: name of its stage.
    axes: {axis: name of its value}, and the "seed" if it has one.
    command: `gkd` command.
    gin_files: in their order.
    bindings: "NAME=VALUE".
    flags: further flags of the command.
    after: names of the jobs that must be done before.
    result: folder that its command writes.
  """

  name: str
  stage: str
  axes: Axes
  command: str
  gin_files: Sequence[str]
  bindings: Sequence[str]
  flags: Sequence[str]
  after: Sequence[str]
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
    content = tomllib.loads(file.read_text("utf-8"))
  except (OSError, ValueError) as error:
    raise UserError(f"{file} cannot be read as TOML: {error}") from error
  _check(str(file), content, _GRID, ("title", "stages"))
  stages = content["stages"]
  for name, stage in stages.items():
    where = f"{file}: stages.{name}"
    _check(where, stage, _STAGE, ("command",))
    _refuse_unknown(where, [stage["command"]], _RESULTS)
    _refuse_unknown(where, stage.get("after", ()), stages)
  needs = {name: _needs(stage, stages) for name, stage in stages.items()}
  try:
    order = list(graphlib.TopologicalSorter(needs).static_order())
  except graphlib.CycleError as error:
    circle = " → ".join(reversed(error.args[1]))
    raise UserError(
      f"{file}: stages wait for each other in a circle, {circle}; take one"
      " {name} or `after` out"
    ) from None
  seeds = content.get("seeds", [0])
  made: dict[str, list[Job]] = {}
  for name in order:
    reader = _Reader(file, output, name, stages[name], made)
    made[name] = reader.jobs(content.get("gin_files", []), seeds)
  jobs = list(itertools.chain(*made.values()))
  names = [job.name for job in jobs]
  if twice := next((name for name in names if names.count(name) > 1), ""):
    raise UserError(f"{file}: two jobs are called {twice}; rename a value")
  # All of one seed before the next one: a table that can be read early.
  places = {seed: place for place, seed in enumerate(seeds)}
  jobs.sort(key=lambda job: places.get(job.axes.get("seed"), -1))
  return Grid(content["title"], jobs, content.get("environment", {}))


@dataclasses.dataclass(frozen=True)
class _Reader:
  """Makes the jobs of one stage; `made` are those of the stages before."""

  file: Path
  output: Path
  name: str
  stage: Mapping[str, Any]
  made: Mapping[str, Sequence[Job]]

  @property
  def where(self) -> str:
    return f"{self.file}: stages.{self.name}"

  def jobs(self, gin_files: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    axes = {
      name: dict(self.values(name)) for name in self.stage.get("axes", {})
    }
    is_once = self.stage.get("once", self.stage["command"] == "cache make")
    if not is_once:
      axes = {"seed": {seed: {} for seed in seeds}, **axes}
    found = []
    for values in itertools.product(*axes.values()):
      chosen = [axes[a][v] for a, v in zip(axes, values, strict=True)]
      own = dict(zip(axes, values, strict=True))
      found += self.joined(own, [{"gin_files": gin_files}, self.stage, *chosen])
    if is_once and any("seed" in job.axes for job in found):
      raise UserError(
        f"{self.where} is made once but needs a stage of each seed; take `once`"
        " out, here or set it there as well"
      )
    excluded = self.stage.get("exclude", [])
    for axis, value in itertools.chain(*(part.items() for part in excluded)):
      known = {str(j.axes[axis]) for j in found if axis in j.axes}
      _refuse_unknown(f"{self.where}.exclude.{axis}", _list(value), known)
    return [
      job
      for job in found
      if not any(
        all(str(job.axes.get(a)) in map(str, _list(v)) for a, v in part.items())
        for part in excluded
      )
    ]

  def values(self, axis: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names of an axis' values and their settings."""
    content = self.stage["axes"][axis]
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
      yield name, settings

  def joined(self, own: Axes, parts: Sequence[Mapping]) -> Iterator[Job]:
    """A job for each choice of needed jobs that agree on their axes."""
    settings = dict(
      itertools.chain(*(part.get("set", {}).items() for part in parts))
    )
    gin_files = list(itertools.chain(*(p.get("gin_files", []) for p in parts)))
    needs = _needs({**self.stage, "set": settings, "axes": {}}, self.made)
    choices = [(own, {})]
    for stage in needs:
      choices = [
        (axes | job.axes, {**chosen, stage: job})
        for axes, chosen in choices
        for job in self.made[stage]
        if all(axes.get(axis, v) == v for axis, v in job.axes.items())
      ]
      if not choices:
        values = ", ".join(f"{axis} {value}" for axis, value in own.items())
        raise UserError(
          f"{self.where}: there is no job of {stage!r} for {values}; give both"
          " stages the same values of that axis"
        )
    for axes, chosen in choices:
      yield self.job(axes, chosen, gin_files, settings)

  def job(
    self,
    axes: Axes,
    needs: Mapping[str, Job],
    gin_files: Sequence[str],
    settings: Mapping[str, Any],
  ) -> Job:
    values = [str(value) for axis, value in axes.items() if axis != "seed"]
    name = "-".join([self.name, *values])
    if "seed" in axes:
      name = f"seed_{axes['seed']}/{name}"
    result = self.output / name
    texts = {**axes, **{stage: job.result for stage, job in needs.items()}}
    bindings = {macro: self.text(v, texts) for macro, v in settings.items()}
    if own := _RESULTS[self.stage["command"]]:
      macro, below = own
      result = result / below
      if macro in bindings:
        raise UserError(
          f"{self.where} sets {macro}, which is the folder of each job; leave"
          f" it out and write {{{self.name}}} where that is needed"
        )
      if "seed" in axes:
        bindings = {"RANDOM_SEED": str(axes["seed"]), **bindings}
      bindings[macro] = str(result)
    return Job(
      name=name,
      stage=self.name,
      axes=axes,
      command=self.stage["command"],
      gin_files=[self.located(gin_file) for gin_file in gin_files],
      bindings=[f"{macro}={value}" for macro, value in bindings.items()],
      flags=self.stage.get("flags", []),
      after=[job.name for job in needs.values()],
      result=result,
    )

  def text(self, value: Any, texts: Mapping[str, Any]) -> str:
    """A value as gin has it, with what stands for its placeholders."""

    def filled(match: re.Match) -> str:
      known = {*texts, *self.made}
      _refuse_unknown(f"{self.where}: {match[0]}", [match[1]], known)
      return str(texts[match[1]])

    text = value if isinstance(value, str) else repr(value)
    return _PLACEHOLDER.sub(filled, text)

  def located(self, gin_file: str) -> str:
    """Beside the grid's own file, or as `gkd` finds it."""
    beside = self.file.parent / gin_file
    return str(beside.absolute()) if beside.is_file() else gin_file


def _needs(stage: Mapping[str, Any], stages: Mapping[str, Any]) -> list[str]:
  """The stages that a stage waits for and those that its settings name."""
  content = repr([stage.get("set", {}), stage.get("axes", {})])
  named = _PLACEHOLDER.findall(content)
  return [x for x in dict.fromkeys([*stage.get("after", []), *named])
          if x in stages]  # fmt: skip


def _check(
  where: str,
  content: Mapping[str, Any],
  types: files.Types,
  required: Sequence[str] = (),
) -> None:
  _refuse_unknown(where, content, types)
  remedy = "see gkd grid --help"
  files.check_types(where, content, types, remedy)
  required_types = {name: types[name] for name in required}
  files.check_types(where, content, required_types, remedy, required=True)


def _refuse_unknown(where: str, names, known) -> None:
  for name in map(str, names):
    if name not in known:
      raise UserError(
        f"{where}: {name!r} is not known there; did you mean"
        f" {nearest(name, known)}?"
      )


def _list(value: Any) -> list:
  return value if isinstance(value, list) else [value]
