"""Runs a small on-policy `gkd train` in child processes that may be killed.

What a run leaves is compared by content: parameters and optimizer state,
metrics.jsonl without what a clock measures, predictions and sample logs.
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

from gkd.checkpoints import zarr_arrays
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


class Harness:
  """Data, a teacher and an undisturbed run, in a scratch folder.

  Attributes:
    folder: where everything is.
    teacher: MODEL_DIR of the teacher.
    undisturbed: fingerprint of the undisturbed run.
    seconds: {phase: seconds of each time} in it, see `child`.
  """

  def __init__(
    self, folder: Path, *, repeat: bool = True, undisturbed: bool = True
  ):
    """Makes them.

    Args:
      folder: an empty folder.
      repeat: run twice, so that everything is compiled when the seconds are
        taken, and check that undisturbed runs are equal.
      undisturbed: make that run as well.
    """
    self.folder = folder
    self.teacher = folder / "teacher"
    for split in ("train", "validation"):
      tiny.make_cache(folder / split, split=split)
    self.must("train", "--gin_file=test/sft.gin", "--gin.TRAIN_STEPS=4",
      f"--gin.MODEL_DIR={self.teacher}", *self.data())  # fmt: skip
    if not undisturbed:
      return
    if repeat:
      self.must(*self.arguments("first"))
    record = folder / "seconds.json"
    self.start(self.arguments("undisturbed"), {"record": str(record)})
    self.seconds = json.loads(record.read_text())
    self.undisturbed = self.fingerprint("undisturbed")
    if repeat and (names := self.differences("first")):
      raise SystemExit(f"two undisturbed runs differ in {names}")

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
    return subprocess.Popen(
      [
        *(sys.executable, "-m", "tests.faults.child"),
        *(json.dumps(moment or {}), *arguments),
      ],
      cwd=ROOT,
      env=self.environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def environment(self, devices: int = 1) -> dict[str, str]:
    """Of a process with so many devices, which keeps what it compiles."""
    environment = os.environ | {
      "JAX_PLATFORMS": "cpu",
      "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "GKD_CACHE_DIR": str(self.folder / "data"),
    }
    flag = f" --xla_force_host_platform_device_count={devices}"
    environment["XLA_FLAGS"] = environment.get("XLA_FLAGS", "") + flag
    environment.setdefault(
      "JAX_COMPILATION_CACHE_DIR", str(self.folder / "compiled")
    )
    return environment

  def must(self, *arguments: str) -> subprocess.CompletedProcess:
    """A process that has to succeed."""
    return _checked(self.start(arguments), {0})

  def finish(self, run: str, moments: Sequence[dict[str, Any]]) -> int:
    """The run to its end: a process for each moment, then an undisturbed one.

    Returns:
      How many of them were killed.
    """
    codes = [
      _checked(
        self.start(self.arguments(run), moment), {0, -signal.SIGKILL}
      ).returncode
      for moment in moments
    ]
    self.must(*self.arguments(run))
    return codes.count(-signal.SIGKILL)

  def arguments(self, run: str | Path, *more: str) -> list[str]:
    """The command that trains into a folder."""
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
    """Of a run in the scratch folder."""
    return fingerprint(self.folder / run)

  def differences(self, run: str | Path) -> list[str]:
    """Names of what of a run is not as in the undisturbed one."""
    return differences(self.undisturbed, self.fingerprint(run))


def fingerprint(folder: Path) -> dict[str, Any]:
  """Everything of a run that must not depend on interruptions, by name."""
  steps = checkpoints(folder)
  content: dict[str, Any] = {"checkpoints": steps}
  for step in steps:
    for name, digest in _arrays(folder / "checkpoints" / step).items():
      content[f"checkpoints/{step}/{name}"] = digest
  content["metrics.jsonl"] = tiny.records(folder)
  for name in ("predictions", "samples"):
    for file in sorted((folder / name).rglob("*")):
      content[f"{name}/{file.name}"] = _digest(file.read_bytes())
  return content


def checkpoints(folder: Path) -> list[str]:
  """Names of the finished checkpoints of a run."""
  return sorted(
    path.parent.name for path in folder.glob("checkpoints/[0-9]*/sha256.json")
  )


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
  """Names of what is not the same in two fingerprints."""
  names = left.keys() | right.keys()
  return sorted(name for name in names if left.get(name) != right.get(name))


def _checked(process, codes) -> subprocess.CompletedProcess:
  if process.returncode not in codes:
    command = " ".join(process.args)
    raise SystemExit(
      f"exit code {process.returncode} of {command}:\n{process.stderr}"
    )
  return process


def _arrays(checkpoint: Path) -> dict[str, str]:
  """{name: digest of dtype, shape and bytes} of a checkpoint's arrays."""
  leaves = zarr_arrays.open_tree(checkpoint / "state")
  return {
    name: _digest(f"{leaf.dtype} {leaf.shape}".encode() + leaf.read().tobytes())
    for name, leaf in leaves.items()
  }


def _digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
