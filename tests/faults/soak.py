"""Kills a small on-policy run again and again; it has to end bit-identical.

  python -m tests.faults.soak --kills=100 --output=results/reliability

One run is left alone. Then, for each of `kills` moments drawn from the seed,
the same command is started, dies by SIGKILL at that moment, and is started
again. Parameters, optimizer state, every line of metrics.jsonl (without what a
clock measures), every prediction and every dump of samples must be equal, bit
for bit, to those of the run that was left alone.

Moments are drawn phase by phase in turn, so that short phases get their share:
reading data, rollout, update, evaluation, both halves of a save, writing a
line, and anywhere in the life of the process.
"""

import argparse
from collections.abc import Sequence
import datetime
import hashlib
import json
import os
from pathlib import Path
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.training import tiny_run

ROOT = Path(__file__).parents[2]
PHASES = (
  "sample", "update", "evaluate", "checkpoint", "commit", "line", "data",
  "anywhere",
)  # fmt: skip
_VOLATILE = ("time/", "compile/", "memory/")
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


def make_teacher(folder: Path) -> Path:
  """Data and teacher of all runs; made once."""
  for split in ("train", "validation"):
    tiny_run.make_cache(folder / split, split=split)
  teacher = folder / "teacher"
  arguments = (
    "train",
    "--gin_file=test/sft.gin",
    "--gin.TRAIN_STEPS=4",
    f"--gin.MODEL_DIR={teacher}",
    *_data(folder),
  )
  process = start({}, arguments, folder)
  if process.returncode:
    raise SystemExit(f"the teacher was not trained:\n{process.stderr}")
  return teacher


def start(
  moment: dict[str, Any], arguments: Sequence[str], folder: Path
) -> subprocess.CompletedProcess:
  """One process of the command; caches are in `folder`."""
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "GKD_CACHE_DIR": str(folder / "data"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
  # Quick to compile; how fast the programs are does not matter here.
  environment["XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0"
    " --xla_llvm_disable_expensive_passes=true"
  )
  return subprocess.run(
    [sys.executable, "-m", "tests.faults.victim", json.dumps(moment)]
    + list(arguments),
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )


def finish(
  moments: Sequence[dict[str, Any]], teacher: Path, run: Path, folder: Path
) -> int:
  """The run to its end: one process for each moment, then undisturbed ones.

  Returns:
    How many of them were killed.
  """
  arguments = _arguments(teacher, run, folder)
  kills = 0
  for moment in [*moments, {}]:
    process = start(moment, arguments, folder)
    kills += process.returncode == -signal.SIGKILL
    if process.returncode not in (0, -signal.SIGKILL):
      raise SystemExit(
        f"exit code {process.returncode} after {moment}:\n{process.stderr}"
      )
  return kills


def fingerprint(run: Path) -> dict[str, Any]:
  """Everything that must not depend on interruptions, by name."""
  found: dict[str, Any] = {}
  steps = sorted(path.name for path in (run / "checkpoints").glob("[0-9]*"))
  found["checkpoints"] = steps
  for step in steps:
    for name, digest in _arrays(run / "checkpoints" / step).items():
      found[f"checkpoints/{step}/{name}"] = digest
  text = (run / "metrics.jsonl").read_text()
  found["metrics.jsonl"] = [
    {k: v for k, v in json.loads(line).items() if not k.startswith(_VOLATILE)}
    for line in text.splitlines()
  ]
  for name in ("predictions", "samples"):
    for file in sorted((run / name).rglob("*")):
      found[f"{name}/{file.name}"] = _digest(file.read_bytes())
  return found


def differences(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
  """Names of what is not the same in two fingerprints."""
  return sorted(
    name
    for name in left.keys() | right.keys()
    if left.get(name) != right.get(name)
  )


def draw(phase: str, spent: dict[str, list[float]], rng: random.Random) -> dict:
  """A moment within one of the times that a phase was run."""
  count = rng.randint(1, len(spent[phase]))
  return {
    "phase": phase,
    "count": count,
    "delay": rng.uniform(0, spent[phase][count - 1]),
  }


def baseline(teacher: Path, folder: Path) -> tuple[dict[str, Any], dict]:
  """Fingerprint of an undisturbed run, and the seconds of its phases."""
  start({}, _arguments(teacher, folder / "warm", folder), folder)  # compiles
  record = folder / "seconds.json"
  watched = {"record": str(record)}
  start(watched, _arguments(teacher, folder / "alone", folder), folder)
  # An undisturbed run has to be reproducible for this to mean anything.
  warm, alone = fingerprint(folder / "warm"), fingerprint(folder / "alone")
  if wrong := differences(warm, alone):
    raise SystemExit(f"two undisturbed runs differ in {wrong}")
  return alone, json.loads(record.read_text())


def soak(kills: int, seed: int, folder: Path) -> dict[str, Any]:
  """Runs all trials; a table of what happened."""
  teacher = make_teacher(folder)
  alone, spent = baseline(teacher, folder)
  rng = random.Random(seed)
  trials = []
  started = time.monotonic()
  while sum(trial["killed"] for trial in trials) < kills:
    number = len(trials)
    moment = draw(PHASES[number % len(PHASES)], spent, rng)
    run = folder / f"run{number}"
    killed = finish([moment], teacher, run, folder)
    wrong = differences(alone, fingerprint(run))
    trials.append({**moment, "killed": killed, "differs": wrong})
    if not wrong:
      shutil.rmtree(run)
    done = sum(trial["killed"] for trial in trials)
    left = (time.monotonic() - started) / max(done, 1) * (kills - done)
    verdict = f"DIFFERS in {wrong}" if wrong else "identical"
    print(
      f"{done}/{kills} kills · {moment['phase']} {moment['count']}"
      f" +{moment['delay'] * 1000:.1f} ms: {verdict}"
      f" · {left / 60:.0f} min left",
      flush=True,
    )
  return {"seed": seed, "trials": trials}


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=100)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--output", default="results/reliability")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    result = soak(args.kills, args.seed, Path(scratch))
  trials = result["trials"]
  by_phase = {
    phase: {
      "kills": sum(t["killed"] for t in trials if t["phase"] == phase),
      "identical": sum(
        t["killed"] for t in trials if t["phase"] == phase and not t["differs"]
      ),
    }
    for phase in PHASES
  }
  failed = [trial for trial in trials if trial["differs"]]
  kills = sum(trial["killed"] for trial in trials)
  report = {
    "command": f"make soak (--kills={args.kills} --seed={args.seed})",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "kills": kills,
    "ended_identical": kills - sum(trial["killed"] for trial in failed),
    # The phase was over sooner than in the run that was measured.
    "came_too_late": sum(trial["killed"] == 0 for trial in trials),
    "by_phase": by_phase,
    "trials": trials,
  }
  output = Path(args.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "soak.json").write_text(json.dumps(report, indent=2) + "\n")
  print(f"{report['ended_identical']} of {kills} kills ended bit-identical")
  return 1 if failed else 0


def _arguments(teacher: Path, run: Path, folder: Path) -> list[str]:
  """The command that trains into the folder `run`."""
  return [
    *RUN,
    f"--gin.MODEL_DIR={run}",
    f"--gin.TEACHER_CHECKPOINT_PATH={teacher}",
    *_data(folder),
  ]


def _data(folder: Path) -> list[str]:
  """Flags of the data; token caches, so that no process needs TensorFlow."""
  return [
    f"--gin.TRAIN_CACHE={folder / 'train'}",
    f"--gin.EVAL_CACHE={folder / 'validation'}",
    f"--gin.TASK_FEATURE_LENGTHS={tiny_run.LENGTHS}",
    "--gin.TRAIN_LIMIT=None",
  ]


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


if __name__ == "__main__":
  sys.exit(main())
