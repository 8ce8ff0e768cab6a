"""Checks that a refactor changed no number: tiny real runs, byte for byte.

Runs the same commands with the code of a commit and with the code of this work
tree, on this machine, and compares what they wrote: metrics, samples,
predictions, completions, parameters and converted checkpoints. Numbers depend
on the processor and the number of threads, so nothing is committed; the runs of
the commit are kept in `--cache` and made once.

  python benchmarks/freeze.py --base=6869f10

Exit code 0 if all is the same, 1 with a list of differences otherwise.
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
import hashlib
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Macros that have another name in later versions.
RENAMED_MACROS = {
  "EVAL_ALSO": "EVAL_SPLITS",
  "GRANULARITY": "MIXING",
  "FIXED_SOURCE": "OFF_POLICY_SOURCE",
  "FIRST_STEP": "INITIAL_STEP",
}
# Fields of lines in metrics.jsonl, samples and predictions.
RENAMED_FIELDS: dict[str, str] = {"row": "example_id"}
# What depends on the machine's load, not on the computation.
LEFT_OUT = ("time/", "compile/", "memory/", "token_log_probs")
_KILL_STEP = 20


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--base", default="6869f10", help="commit to compare with"
  )
  parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "freeze")
  parser.add_argument("--keep", type=Path, help="folder for the new runs")
  args = parser.parse_args()
  base = _runs_of_commit(args.base, args.cache)
  with tempfile.TemporaryDirectory() as scratch:
    now = args.keep or Path(scratch)
    shutil.rmtree(now, ignore_errors=True)
    run_all(ROOT, now)
    differences = list(compare(base, now))
  for difference in differences:
    print(f"DIFFERENT {difference}")
  print(f"{len(differences)} differences from {args.base}")
  return bool(differences)


def run_all(tree: Path, out: Path) -> None:
  """Runs every command with the code of `tree`; results go below `out`."""
  gkd = _Command(tree, out)
  teacher = "TEACHER_CHECKPOINT_PATH=teacher"
  gkd("train", "test/sft.gin", "MODEL_DIR=teacher")
  gkd("train", "test/sft.gin", "MODEL_DIR=adafactor", "OPTIMIZER=adafactor")
  gkd(
    "sample",
    "test/sample.gin",
    "OUTPUT_DIR=completions",
    "INITIAL_CHECKPOINT_PATH=teacher",
  )
  seqkd = ("TRAIN_CACHE=completions", "TRAIN_LIMIT=None")
  gkd("train", "test/sft.gin", "MODEL_DIR=seqkd", *seqkd)
  gkd("train", "test/distill.gin", "MODEL_DIR=per_step", teacher)
  gkd(
    "train",
    "test/distill.gin",
    "MODEL_DIR=per_example",
    "GRANULARITY=example",
    "FIXED_SOURCE=teacher",
    "DROPOUT_RATE=0.1",
    "MICRO_BATCHES=2",
    teacher,
  )
  gkd(
    "evaluate",
    "test/evaluate.gin",
    "runs/evaluate_against.gin",
    "MODEL_DIR=scores",
    "INITIAL_CHECKPOINT_PATH=per_step",
    "STUDENT_MODEL=None",
    "EVAL_BEAM_SIZE=4",
    "EVAL_SAMPLES=2",
    "EVAL_ALSO=('chain_addition/test',)",
    teacher,
  )
  killed = ("MODEL_DIR=killed", "TRAIN_STEPS=60", "EVAL_PERIOD=15", teacher)
  gkd.killed("train", "test/distill.gin", *killed)
  gkd("train", "test/distill.gin", *killed)
  gkd.convert("adafactor", "t5x/checkpoint_20", "--to=t5x", "--slots")
  gkd.convert("teacher", "hf", "--to=hf", "--tokenizer=none")
  gkd.convert("hf", "saved", "--to=gkd", "--tokenizer=none")
  gkd(
    "train",
    "test/sft.gin",
    "MODEL_DIR=from_t5x",
    "INITIAL_CHECKPOINT_PATH=t5x/checkpoint_20",
    "STUDENT_MODEL=None",
    "OPTIMIZER=adafactor",
    "RESTORE_OPTIMIZER=True",
  )
  gkd(
    "train",
    "test/distill.gin",
    "MODEL_DIR=from_hf",
    "TEACHER_CHECKPOINT_PATH=hf",
    "TEACHER_MODEL=None",
    "INITIAL_CHECKPOINT_PATH=hf",
    "STUDENT_MODEL=None",
  )
  for run in ("seqkd", "per_step", "per_example", "killed", "from_t5x"):
    gkd.convert(run, f"parameters/{run}", "--to=hf", "--tokenizer=none")
  gkd.convert("from_hf", "parameters/from_hf", "--to=hf", "--tokenizer=none")


def compare(base: Path, now: Path) -> Iterator[str]:
  """Names of what differs."""
  before, after = dict(_contents(base)), dict(_contents(now))
  for name in sorted(before.keys() | after.keys()):
    if name not in before or name not in after:
      yield f"{name}: only {'before' if name in before else 'now'}"
    elif before[name] != (known := _known(before[name], after[name])):
      yield f"{name}: {_first_difference(before[name], known)}"


def _known(before: Any, after: Any) -> Any:
  """Content without the fields that came after the commit compared with."""
  if isinstance(before, list) and isinstance(after, list):
    pairs = zip(before, after, strict=False)
    return [_known(*pair) for pair in pairs] + after[len(before) :]
  if isinstance(before, dict) and isinstance(after, dict):
    return {name: value for name, value in after.items() if name in before}
  return after


class _Command:
  """`gkd` of a tree, run in `out` so that all paths are alike."""

  def __init__(self, tree: Path, out: Path):
    out.mkdir(parents=True, exist_ok=True)
    self._out = out
    text = "".join(
      f.read_text("utf-8") for f in (tree / "configs").rglob("*.gin")
    )
    self._macros = {
      old: new for old, new in RENAMED_MACROS.items() if new in text
    }
    self._environment = os.environ | {
      "PYTHONPATH": str(tree),
      "GKD_CACHE_DIR": str(out / ".caches"),
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "",
    }

  def __call__(self, *arguments: str) -> None:
    process = self._start(*arguments)
    output, _ = process.communicate()
    if process.returncode:
      raise SystemExit(f"{' '.join(process.args)} failed:\n{output}")

  def killed(self, *arguments: str) -> None:
    """Sends SIGKILL once a few steps are done."""
    process = self._start(*arguments)
    lines = self._out / "killed" / "metrics.jsonl"
    while process.poll() is None:
      steps = [json.loads(line)["step"] for line in _whole_lines(lines)]
      if max(steps, default=0) >= _KILL_STEP:
        process.send_signal(signal.SIGKILL)
        break
      time.sleep(0.05)
    process.communicate()

  def convert(self, source: str, destination: str, *flags: str) -> None:
    (self._out / destination).parent.mkdir(parents=True, exist_ok=True)
    self("convert", source, destination, *flags)

  def _start(self, command: str, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
      [sys.executable, "-m", "gkd", command, *map(self._flag, arguments)],
      cwd=self._out,
      env=self._environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def _flag(self, argument: str) -> str:
    if argument.endswith(".gin"):
      return f"--gin_file={argument}"
    name, equals, value = argument.partition("=")
    if not equals or not name.isupper():
      return argument
    return f"--gin.{self._macros.get(name, name)}={value}"


def _whole_lines(path: Path) -> list[str]:
  if not path.is_file():
    return []
  return [
    x for x in path.read_text("utf-8").splitlines(True) if x.endswith("\n")
  ]


def _contents(out: Path) -> Iterator[tuple[str, Any]]:
  """{name: content} of every file whose content is a result."""
  for path in sorted(out.rglob("*")):
    name = str(path.relative_to(out))
    if not path.is_file() or name.startswith(".") or "/." in name:
      continue
    if path.name == "metrics.jsonl" or path.parent.name in (
      "samples",
      "predictions",
    ):
      lines = map(json.loads, _whole_lines(path))
      yield name, [_results(line) for line in lines]
    elif path.name == "metrics.json":
      yield name, _results(json.loads(path.read_text("utf-8")))
    elif name.startswith("saved/metadata.json"):
      yield name, json.loads(path.read_text("utf-8"))["content_sha256"]
    elif name.startswith(("t5x/", "hf/", "parameters/", "completions/")) and (
      path.name not in ("README.md", "info.json", "vocabulary.json")
    ):
      yield name, hashlib.sha256(path.read_bytes()).hexdigest()


def _results(line: Mapping[str, Any]) -> dict[str, Any]:
  return {
    RENAMED_FIELDS.get(name, name): value
    for name, value in line.items()
    if not name.startswith(LEFT_OUT)
  }


def _first_difference(before: Any, after: Any) -> str:
  if isinstance(before, list) and isinstance(after, list):
    for i, (old, new) in enumerate(zip(before, after, strict=False)):
      if old != new:
        return f"line {i}: {_first_difference(old, new)}"
    return f"{len(before)} lines before, {len(after)} now"
  if isinstance(before, dict) and isinstance(after, dict):
    for name in sorted(before.keys() | after.keys()):
      if before.get(name) != after.get(name):
        return f"{name} was {before.get(name)!r}, is {after.get(name)!r}"
  return f"was {before!r:.80}, is {after!r:.80}"


def _runs_of_commit(commit: str, cache: Path) -> Path:
  """The results of a commit, made now if they are not kept."""
  done = cache / commit
  if done.is_dir():
    return done
  partial = cache / f".{commit}.partial"
  shutil.rmtree(partial, ignore_errors=True)
  with tempfile.TemporaryDirectory() as scratch:
    tree = Path(scratch) / "tree"
    git = ["git", "-C", str(ROOT)]
    subprocess.run(
      [*git, "worktree", "add", "-f", "--detach", tree, commit], check=True
    )
    try:
      run_all(tree, partial)
    finally:
      subprocess.run([*git, "worktree", "remove", "--force", tree], check=True)
  partial.rename(done)
  return done


if __name__ == "__main__":
  sys.exit(main())
