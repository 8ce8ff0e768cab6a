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
import hashlib
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

from gkd import files
from gkd.checkpoints import source
from gkd.cli import evaluate_command
from gkd.cli import sample_command
from gkd.cli import train_command
from gkd.config import configuration
from gkd.config.records import Folders
from gkd.config.records import check_seed
from gkd.experiments.quickstart import result_rows
from gkd.experiments.quickstart.stages import Stages
from gkd.report import page
from gkd.report import read
from gkd.types import UserError

log = logging.getLogger("gkd")

CONFIGS = "experiments/quickstart"
TEACHER = Path(__file__).parent / "teacher"
CACHE_SPLITS = ("train", "validation", "test")
TEACHER_TEXT = "teacher text"


@dataclasses.dataclass(frozen=True)
class Method:
  """One row of the result table.

  Attributes:
    name: `method` in results.json.
    run: folder of its training run, and the name of its gin file.
    labels: what had to be written for it beyond the prompts.
    distils: whether the run compares with the teacher.
  """

  name: str
  run: str
  labels: str
  distils: bool = True


TEACHER_ROW = Method("teacher", "teacher", "40,000 solutions", distils=False)
STUDENT = Method("sft", "student", "1,000 solutions: the start", distils=False)
CONTINUED = "1,000 solutions, as many updates"
METHODS = (
  Method("sft", "sft_continued", CONTINUED, distils=False),
  Method("seqkd", "seqkd", TEACHER_TEXT, distils=False),
  Method("supervised_kd", "supervised_kd", TEACHER_TEXT),
  Method("gkd_mixed", "gkd_mixed", TEACHER_TEXT),
  Method("gkd_on_policy", "gkd_on_policy", "none"),
  Method("supervised_kd", "supervised_kd_labels", "2,000 solutions"),
)


def main(args: argparse.Namespace) -> None:
  """Runs what is not done yet, then prints and writes the results."""
  for seed in args.seeds:  # now, and not after the seeds before it
    check_seed(seed)
  # Matrices this small are multiplied faster by one thread than by many:
  # 45 against 66 ms an update on two cores.
  os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
  started = time.time()
  folder = files.local_path(args.output).absolute()
  folder.mkdir(parents=True, exist_ok=True)
  seeds = args.seeds
  num_stages = 1 + args.train_teacher + len(seeds) * (4 + 2 * len(METHODS))
  stages = Stages(folder, _made_with(args.train_teacher), num_stages)
  # results/quickstart: the median of ten seeds.
  log.info("%d stages: 35 minutes a seed on two idle CPU cores", num_stages)
  stages.run("data", "generate problems", _make_caches, folder, "common.gin")
  teacher = _teacher(args.train_teacher, folder, stages)
  rows = []
  for seed in seeds:
    rows += _one_seed(folder, stages, seed, teacher, args.split)
  result = {
    "rows": rows,
    "meta": {
      "command": _command(args),
      "date": datetime.date.today().isoformat(),
      "hardware": _hardware(),
      "split": args.split,
      "updates": sorted({row["updates"] for row in rows} - {None}),
      "units": "accuracy in per cent, KL to the teacher in nats per sequence",
      "title": "Quickstart: who should write the training text?",
      "seconds": stages.total_seconds,
    },
    "columns": result_rows.COLUMNS,
    "labels": result_rows.LABELS,
  }
  (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
  print(result_rows.text(rows, args.split))
  runs = read.read([str(folder)])
  report = page.write_report(runs, str(folder / "report.html"))
  plots = page.write_plots(runs, str(folder / "plots"))
  print(f"table     {folder / 'results.json'}")
  print(f"pictures  {len(plots)} PNG files in {folder / 'plots'}")
  print(f"report    {report}  (open it in a browser)")
  print(f"this call took {time.time() - started:.0f} s")


def _command(args: argparse.Namespace) -> str:
  """What to type to get these results."""
  seeds = " ".join(map(str, args.seeds))
  teacher = " --train_teacher" if args.train_teacher else ""
  return f"gkd quickstart --seeds {seeds} --split={args.split}{teacher}"


def _made_with(train_teacher: bool) -> str:
  """Digest of what the stages depend on: gin files and the teacher."""
  digest = hashlib.sha256(str(train_teacher).encode())
  files = sorted(configuration.config_folder().rglob("*.gin"))
  for file in [*files, TEACHER / "sha256.json"]:
    digest.update(file.read_bytes())
  return digest.hexdigest()


def _make_caches(folder: Path, file: str) -> None:
  """Tokenises the generated task of a gin file, in a process of its own.

  seqio brings TensorFlow along; this process then never loads it.
  """
  command = [
    *(sys.executable, "-m", "gkd", "cache", "make"),
    f"--gin_file={CONFIGS}/{file}",
    f"--cache_dir={folder / 'data'}",
    *(f"--split={split}" for split in CACHE_SPLITS),
  ]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  if subprocess.run(command, env=environment, check=False).returncode:
    raise UserError(
      "the problems could not be generated, see above; mend that and start the"
      " same command again"
    )


def _teacher(train: bool, folder: Path, stages: Stages) -> Path:
  """The checkpoint that comes along, or one that is trained now."""
  if not train:
    return TEACHER
  own = folder / "teacher"

  def make(folder: Path) -> None:
    _make_caches(folder, "teacher.gin")
    bindings = ["RANDOM_SEED=0", f"MODEL_DIR={own}"]
    _run(train_command.train, folder, "teacher.gin", bindings)

  stages.run("teacher", "train the teacher", make, folder)
  if TEACHER.is_dir():
    print(_compare(own, TEACHER))
  return own


def _compare(trained: Path, shipped: Path) -> str:
  """Whether a teacher trained anew is the one that comes along."""
  leaves, others = (
    source.open_checkpoint(x).leaves for x in (trained, shipped)
  )
  largest = max(
    float(np.abs(leaves[name].read() - leaf.read()).max())
    for name, leaf in others.items()
  )
  if largest == 0:
    return "the teacher is bit for bit the one that comes along"
  return (
    "the teacher differs from the one that comes along by at most"
    f" {largest:.2g} in any parameter (another processor, library or number of"
    " threads rounds differently); compare their rows in the table"
  )


def _one_seed(
  folder: Path, stages: Stages, seed: int, teacher: Path, split: str
) -> list[dict[str, Any]]:
  """All runs of one seed, and their rows of the table."""
  runs = folder / f"seed_{seed}"
  text = runs / "teacher_text"

  def stage(name, title, command, file, *bindings):
    name, title = f"{runs.name}-{name}", f"{title} (seed {seed})"
    bindings = [f"RANDOM_SEED={seed}", *bindings]
    stages.run(name, title, _run, command, folder, file, bindings)

  def train(run, title, *bindings):
    bindings = [f"MODEL_DIR={runs / run}", *bindings]
    stage(run, title, train_command.train, f"{run}.gin", *bindings)

  train(STUDENT.run, "the student's fine-tuning on few solutions")
  stage(
    "teacher_text",
    "the teacher answers the prompts once",
    sample_command.sample,
    "teacher_text.gin",
    f"INITIAL_CHECKPOINT_PATH={teacher}",
    f"OUTPUT_DIR={text}",
  )
  for method in METHODS:
    bindings = [f"INITIAL_CHECKPOINT_PATH={runs / STUDENT.run}"]
    if method.distils:
      bindings.append(f"TEACHER_CHECKPOINT_PATH={teacher}")
    if method.labels == TEACHER_TEXT:
      bindings.append(f"TRAIN_CACHE={text}")
    train(method.run, f"train by {method.run}", *bindings)
  rows = []
  for method in (TEACHER_ROW, STUDENT, *METHODS):
    checkpoint = teacher if method is TEACHER_ROW else runs / method.run
    scores = runs / "scores" / split / method.run
    bindings = [
      f"TEACHER_CHECKPOINT_PATH={teacher}",
      f"INITIAL_CHECKPOINT_PATH={checkpoint}",
      f"MODEL_DIR={scores}",
      f"EVAL_SPLIT={split}",
    ]
    if method is TEACHER_ROW:
      bindings.append("STUDENT_MODEL=%QUICKSTART_TEACHER")
    stage(
      f"{split}-{method.run}",
      f"score {method.run} on {split}",
      evaluate_command.evaluate,
      "evaluate.gin",
      *bindings,
    )
    row = result_rows.row(method.name, method.labels, seed, checkpoint, scores)
    rows.append(row)
  return rows


def _run(
  command: Callable[[Folders], Any],
  folder: Path,
  file: str,
  bindings: Sequence[str],
) -> None:
  """Runs a command; its line for each number would drown the table."""
  configuration.load([f"{CONFIGS}/{file}"], bindings)
  with contextlib.redirect_stdout(None):
    command(Folders("", str(folder / "data")))


def _hardware() -> str:
  device = jax.devices()[0]
  return (
    f"{jax.device_count()} × {device.device_kind}, {os.cpu_count()} CPU cores"
    f" ({platform.machine()}), Python {platform.python_version()}, jax"
    f" {jax.__version__}"
  )
