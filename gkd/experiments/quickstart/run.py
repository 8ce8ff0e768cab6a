"""`gkd quickstart`: the whole main job at a size for a laptop.

Generated arithmetic, a T5 teacher that comes along, a smaller student after
SFT, and from that same student, with equal numbers of updates on the same
prompts: SeqKD, supervised KD, mixed and on-policy GKD. Every stage is one `gkd`
command on a gin file of configs/experiments/quickstart/, so each can be run,
read and changed by itself. A stage that is done is not done again.
"""

import argparse
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import dataclasses
import datetime
import json
import logging
import os
from pathlib import Path
import platform
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np

from gkd import trees
from gkd.checkpoints.store import save_params
from gkd.checkpoints.trained import load_trained
from gkd.commands import configuration
from gkd.commands import evaluating
from gkd.commands import sampling
from gkd.commands import settings
from gkd.commands import training
from gkd.commands.datasets import Folders
from gkd.experiments.quickstart import tables
from gkd.report import html
from gkd.types import UserError

log = logging.getLogger("gkd")

CONFIGS = "experiments/quickstart"
TEACHER = Path(__file__).parent / "teacher"
CACHE_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Method:
  """One row of the result table.

  Attributes:
    name: `method` in results.json; the gin file of the same name is the run.
    labels: what had to be written for it beyond the prompts.
    data: what TRAIN_CACHE reads: "teacher_text" or "" for the task's own.
    folder: of the run, if the name alone is not unique.
    bindings: further gin values.
  """

  name: str
  labels: str
  data: str = "teacher_text"
  folder: str = ""
  bindings: tuple[str, ...] = ()


METHODS = (
  Method("seqkd", "teacher text"),
  Method("supervised_kd", "teacher text"),
  Method("gkd_mixed", "teacher text"),
  Method("gkd_on_policy", "none"),
)


def main(args: argparse.Namespace) -> None:
  """Runs what is not done yet, then prints and writes the results."""
  started = time.time()
  folder = Path(args.output).expanduser().absolute()
  folder.mkdir(parents=True, exist_ok=True)
  seeds = args.seeds
  stages = Stages(folder, num_stages=2 + len(seeds) * (3 + 2 * len(METHODS)))
  stages.run("data", "generate problems", _make_caches, folder)
  teacher = _teacher(args, folder, stages)
  rows = []
  for seed in seeds:
    rows += _one_seed(folder, stages, seed, teacher, args.split)
  result = {
    "rows": rows,
    "meta": {
      "command": "gkd quickstart "
      + f"--seeds {' '.join(map(str, seeds))} --split {args.split}",
      "date": datetime.date.today().isoformat(),
      "hardware": _hardware(),
      "split": args.split,
      "units": "accuracy in per cent, KL to the teacher in nats a sequence",
      "seconds": stages.total_seconds(),
    },
  }
  (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
  print(tables.text(rows))
  report = html.write_report([str(folder)], str(folder / "report.html"))
  plots = html.write_plots([str(folder)], str(folder / "plots"))
  print(f"table     {folder / 'results.json'}")
  print(f"pictures  {len(plots)} PNG files in {folder / 'plots'}")
  print(f"report    {report}  (open it in a browser)")
  print(f"this call took {time.time() - started:.0f} s")


class Stages:
  """Runs named stages once; what is done is remembered in the folder."""

  def __init__(self, folder: Path, num_stages: int):
    self._folder = folder / "stages"
    self._folder.mkdir(exist_ok=True)
    self._num_stages = num_stages
    self._count = 0

  def run(
    self, name: str, words: str, function: Callable[..., Any], *args: Any
  ) -> None:
    """Calls `function(*args)` unless this stage is done."""
    self._count += 1
    mark = self._folder / f"{name.replace('/', '-')}.json"
    if mark.exists():
      log.info("[%d/%d] %s: done", self._count, self._num_stages, words)
      return
    log.info("[%d/%d] %s", self._count, self._num_stages, words)
    started = time.time()
    function(*args)
    mark.write_text(json.dumps({"seconds": time.time() - started}))

  def total_seconds(self) -> float:
    """Time of all stages, over all calls."""
    marks = self._folder.glob("*.json")
    return sum(json.loads(mark.read_text())["seconds"] for mark in marks)


def _make_caches(folder: Path) -> None:
  """Tokenises the generated task, in a process of its own.

  seqio brings TensorFlow along; this process then never loads it.
  """
  command = [
    *(sys.executable, "-m", "gkd", "cache", "make"),
    f"--gin_file={CONFIGS}/common.gin",
    f"--cache_dir={folder / 'data'}",
    *(f"--split={split}" for split in CACHE_SPLITS),
  ]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  if subprocess.run(command, env=environment, check=False).returncode:
    raise UserError(
      "the problems could not be generated, see above; mend that and start the"
      " same command again"
    )


def _teacher(args: argparse.Namespace, folder: Path, stages: Stages) -> Path:
  """The checkpoint that comes along, or one that is trained now."""
  if not args.train_teacher:
    stages.run("teacher", f"teacher: the one in {TEACHER.name}/", lambda: None)
    return TEACHER
  own = folder / "teacher"
  stages.run(
    "teacher-training",
    "train the teacher",
    _train,
    folder,
    own,
    ["teacher.gin"],
  )
  model = _model("QUICKSTART_TEACHER")
  like = jax.eval_shape(model.init, jax.random.key(0))
  made, _ = load_trained(own, like)
  if TEACHER.is_dir():
    print(_compare(made, load_trained(TEACHER, like)[0]))
  return own


def export_teacher(run: Path) -> None:
  """Makes the teacher of a run the one that comes along."""
  model = _model("QUICKSTART_TEACHER")
  params, about = load_trained(
    run, jax.eval_shape(model.init, jax.random.key(0))
  )
  about |= {"made_by": "gkd quickstart --train_teacher", "on": _hardware()}
  save_params(TEACHER, params, about)


def _compare(made: Any, given: Any) -> str:
  """Whether a teacher trained anew is the one that comes along."""
  made, given = (trees.flatten(jax.device_get(x)) for x in (made, given))
  largest = max(float(np.abs(made[k] - given[k]).max()) for k in given)
  if largest == 0:
    return "the teacher is bit for bit the one that comes along"
  return (
    "the teacher differs from the one that comes along by at most"
    f" {largest:.2g} in any parameter (another processor or library version"
    " rounds differently); compare their rows in the table"
  )


def _one_seed(
  folder: Path, stages: Stages, seed: int, teacher: Path, split: str
) -> list[dict[str, Any]]:
  """All runs of one seed, and their rows of the table."""
  runs = folder / f"seed_{seed}"
  shared = [f"RANDOM_SEED={seed}"]
  text = runs / "teacher_text"
  student = runs / "sft"

  def stage(name, words, function, *args):
    stages.run(f"{runs.name}/{name}", f"{words} (seed {seed})", function, *args)

  stage(
    "sft",
    "student: SFT on few labels",
    _train,
    folder,
    student,
    ["student.gin"],
    shared,
  )
  stage(
    "teacher_text",
    "the teacher answers the prompts once",
    _sample,
    folder,
    ["teacher_text.gin"],
    [*shared, f"INITIAL_CHECKPOINT_PATH={teacher}", f"OUTPUT_DIR={text}"],
  )
  start = [
    *shared,
    f"INITIAL_CHECKPOINT_PATH={student}",
    f"TEACHER_CHECKPOINT_PATH={teacher}",
  ]
  for method in METHODS:
    cache = [f"TRAIN_CACHE={text}"] if method.data == "teacher_text" else []
    stage(
      method.folder or method.name,
      f"distil: {method.name}",
      _train,
      folder,
      runs / (method.folder or method.name),
      [f"{method.name}.gin"],
      [*start, *cache, *method.bindings],
    )
  rows = []
  tested = [
    Method("teacher", "40,000 worked solutions"),
    Method("sft", "2,000 worked solutions"),
    *METHODS,
  ]
  for method in tested:
    name = method.folder or method.name
    checkpoint = teacher if name == "teacher" else runs / name
    scores = runs / "scores" / split / name
    model = ["STUDENT_MODEL=%QUICKSTART_TEACHER"] if name == "teacher" else []
    stage(
      f"scores-{split}-{name}",
      f"score on {split}: {name}",
      _evaluate,
      folder,
      [
        *shared,
        *model,
        f"MODEL_DIR={scores}",
        f"EVAL_SPLIT={split}",
        f"INITIAL_CHECKPOINT_PATH={checkpoint}",
        f"TEACHER_CHECKPOINT_PATH={teacher}",
      ],
    )
    rows.append(
      tables.row(method.name, method.labels, seed, checkpoint, scores)
    )
  return rows


def _folders(folder: Path) -> Folders:
  return Folders(data_dir="", cache_dir=str(folder / "data"))


def _load(files: Sequence[str], bindings: Sequence[str]) -> None:
  configuration.load([f"{CONFIGS}/{file}" for file in files], bindings)


def _train(
  folder: Path, model_dir: Path, files: Sequence[str], bindings=()
) -> None:
  _load(files, [*bindings, f"MODEL_DIR={model_dir}"])
  training.train(_folders(folder))


def _sample(
  folder: Path, files: Sequence[str], bindings: Sequence[str]
) -> None:
  _load(files, bindings)
  sampling.sample(_folders(folder))


def _evaluate(folder: Path, bindings: Sequence[str]) -> None:
  _load(["evaluate.gin"], bindings)
  # One line for each number would drown the table.
  with contextlib.redirect_stdout(None):
    evaluating.evaluate(_folders(folder))


def _model(size: str):
  """The model of one of the two sizes of common.gin."""
  _load(
    ["evaluate.gin"],
    [
      f"STUDENT_MODEL=%{size}",
      "MODEL_DIR=unused",
      "INITIAL_CHECKPOINT_PATH=unused",
      "TEACHER_CHECKPOINT_PATH=unused",
    ],
  )
  return configuration.build(settings.Evaluating).model


def _hardware() -> str:
  device = jax.devices()[0]
  return (
    f"{jax.device_count()} × {device.device_kind}, {os.cpu_count()} CPU cores"
    f" ({platform.machine()}), Python {platform.python_version()}, jax"
    f" {jax.__version__}"
  )
