"""A small on-policy run, its data and its teacher, to do harm to.

Everything goes through the command, each time in a process of its own. What a
run leaves behind is compared by content: parameters and optimizer state,
metrics.jsonl without what a clock measures, predictions and dumps of samples.
"""

from collections.abc import Sequence
import hashlib
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

from tests import tiny

ROOT = Path(__file__).parents[2]
# Dropout, both kinds of data, several saves and evaluations at T = 1, reports
# and saves that do not fall together.
RUN = (
  "train",
  "--gin_file=test/distill.gin",
  "--gin.TRAIN_STEPS=12",
  "--gin.DROPOUT_RATE=0.1",
  "--gin.REPORT_PERIOD=2",
  "--gin.CHECKPOINT_PERIOD=3",
  "--gin.EVAL_PERIOD=4",
  "--gin.EVAL_TEMPERATURES=(1.0,)",
  "--gin.EVAL_EXAMPLES=16",
  "--gin.SAMPLE_PERIOD=5",
  "--gin.KEEP=2",
)
_VOLATILE = ("time/", "compile/", "memory/")


class Scene:
  """Data, a teacher and an undisturbed run, in a scratch folder.

  Attributes:
    folder: where everything is.
    teacher: MODEL_DIR of the teacher.
    alone: fingerprint of the undisturbed run.
    seconds: {phase: seconds of each time} in it, see `child`.
  """

  def __init__(self, folder: Path):
    """Makes them; some minutes on a slow machine."""
    self.folder = folder
    self.teacher = folder / "teacher"
    for split in ("train", "validation"):
      tiny.make_cache(folder / split, split=split)
    self.must("train", "--gin_file=test/sft.gin", "--gin.TRAIN_STEPS=4",
      f"--gin.MODEL_DIR={self.teacher}", *self.data())  # fmt: skip
    self.must(*self.arguments("warm"))  # compiles everything
    record = folder / "seconds.json"
    self.start(self.arguments("alone"), {"record": str(record)})
    self.seconds = json.loads(record.read_text())
    self.alone = self.fingerprint("alone")
    # An undisturbed run has to be reproducible for this to mean anything.
    if wrong := differences(self.alone, self.fingerprint("warm")):
      raise SystemExit(f"two undisturbed runs differ in {wrong}")

  def start(
    self, arguments: Sequence[str], moment: dict[str, Any] | None = None
  ) -> subprocess.CompletedProcess:
    """One process of the command; dies at its moment."""
    with self.begin(arguments, moment) as process:
      out, err = process.communicate()
      return subprocess.CompletedProcess(
        process.args, process.returncode, out, err
      )

  def begin(
    self, arguments: Sequence[str], moment: dict[str, Any] | None = None
  ) -> subprocess.Popen:
    """The same, in the background."""
    environment = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "GKD_CACHE_DIR": str(self.folder / "data"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      # Quick to compile; how fast the programs are does not matter here.
      "XLA_FLAGS": "--xla_backend_optimization_level=0"
      " --xla_llvm_disable_expensive_passes=true",
    }
    environment.setdefault(
      "JAX_COMPILATION_CACHE_DIR", str(self.folder / "compiled")
    )
    return subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.faults.child"),
        *(json.dumps(moment or {}), *arguments),
      ],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def must(self, *arguments: str) -> subprocess.CompletedProcess:
    """A process that has to succeed."""
    process = self.start(arguments)
    if process.returncode:
      raise SystemExit(
        f"exit code {process.returncode} of {' '.join(arguments)}:\n"
        + process.stderr
      )
    return process

  def finish(self, run: str, moments: Sequence[dict[str, Any]]) -> int:
    """The run to its end: a process for each moment, then an undisturbed one.

    Returns:
      How many of them were killed.
    """
    kills = 0
    for moment in moments:
      process = self.start(self.arguments(run), moment)
      kills += process.returncode == -signal.SIGKILL
      if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(
          f"exit code {process.returncode} after {moment}:\n{process.stderr}"
        )
    self.must(*self.arguments(run))
    return kills

  def arguments(self, run: str | Path, *more: str) -> list[str]:
    """The command that trains into a folder of the scene."""
    return [
      *RUN,
      f"--gin.MODEL_DIR={self.folder / run}",
      f"--gin.TEACHER_CHECKPOINT_PATH={self.teacher}",
      *self.data(),
      *more,
    ]

  def data(self) -> list[str]:
    """Flags of the data; token caches, so that no process needs TensorFlow."""
    return [
      f"--gin.TRAIN_CACHE={self.folder / 'train'}",
      f"--gin.EVAL_CACHE={self.folder / 'validation'}",
      f"--gin.TASK_FEATURE_LENGTHS={tiny.LENGTHS}",
      "--gin.TRAIN_LIMIT=None",
    ]

  def fingerprint(self, run: str | Path) -> dict[str, Any]:
    """Everything that must not depend on interruptions, by name."""
    folder = self.folder / run
    steps = checkpoints(folder)
    found: dict[str, Any] = {"checkpoints": steps}
    for step in steps:
      for name, digest in _arrays(folder / "checkpoints" / step).items():
        found[f"checkpoints/{step}/{name}"] = digest
    text = (folder / "metrics.jsonl").read_text()
    found["metrics.jsonl"] = [
      {k: v for k, v in json.loads(line).items() if not k.startswith(_VOLATILE)}
      for line in text.splitlines()
    ]
    for name in ("predictions", "samples"):
      for file in sorted((folder / name).rglob("*")):
        found[f"{name}/{file.name}"] = _digest(file.read_bytes())
    return found

  def harm(self, run: str | Path) -> list[str]:
    """What of a run is not as in the undisturbed one."""
    return differences(self.alone, self.fingerprint(run))


def checkpoints(folder: Path) -> list[str]:
  """Names of the finished checkpoints of a run."""
  return sorted(
    path.parent.name for path in folder.glob("checkpoints/[0-9]*/sha256.json")
  )


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
  """Names of what is not the same in two fingerprints."""
  return sorted(
    name
    for name in left.keys() | right.keys()
    if left.get(name) != right.get(name)
  )


def _arrays(checkpoint: Path) -> dict[str, str]:
  """{name: digest of dtype, shape and bytes} of a checkpoint's arrays."""
  import jax
  import numpy as np
  import orbax.checkpoint.experimental.v1 as ocp

  leaves = jax.tree_util.tree_flatten_with_path(ocp.load(checkpoint))[0]
  return {
    jax.tree_util.keystr(path): _digest(
      f"{np.asarray(leaf).dtype} {np.shape(leaf)}".encode()
      + np.asarray(leaf).tobytes()
    )
    for path, leaf in leaves
  }


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
