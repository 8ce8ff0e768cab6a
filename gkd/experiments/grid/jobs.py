"""Jobs of a grid: for each stage, choice of values and seed a `gkd` command.

Nothing is run or looked up here, and the gin files are not read.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
from pathlib import Path
from typing import Any

from gkd.errors import UserError
from gkd.experiments.grid import grid_file

_NAME_BYTES = 255  # of a file system
_MOST_JOBS = 10_000
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


def read(file: Path, output: Path, seeds: Sequence[int] | None = None) -> Grid:
  """The grid of a file, with its results below `output`.

  Args:
    file: in TOML.
    output: folder of the grid.
    seeds: instead of those of the file.

  Raises:
    UserError: in one line, what of the file is not a grid.
  """
  content = grid_file.read(file)
  if seeds:
    content["seeds"] = seeds
  made: dict[str, list[Job]] = {}
  for name, settings in content["stages"].items():
    made[name] = _Stage(file, output, content, name, settings, made).jobs()
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
    axes = self.settings["axes"]
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
        grid_file.refuse_unknown(
          where, [axis], {name for j in jobs for name in j.axes}
        )
        known = {str(job.axes[axis]) for job in jobs if axis in job.axes}
        names = {*map(str, values if isinstance(values, list) else [values])}
        grid_file.refuse_unknown(f"{where}.{axis}", names, known)
        left_out = [j for j in left_out if str(j.axes.get(axis, "")) in names]
      if not left_out:
        raise UserError(f"{where} has {part}, which leaves out no job; drop it")
      gone = {job.name for job in left_out}
      kept = [job for job in kept if job.name not in gone]
    if not kept:
      raise UserError(f"{where} leaves out every job; take something out of it")
    return kept

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
    for stage in grid_file.needs(after, [chosen, gin_files], self.made):
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
      macro, below = grid_file.RESULTS[self.settings["command"]]
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
    found = grid_file.PLACEHOLDER.findall(text)
    grid_file.refuse_unknown(
      f"{self.where}.{name}", found, {*texts, *self.made}
    )
    return grid_file.PLACEHOLDER.sub(lambda match: str(texts[match[1]]), text)
