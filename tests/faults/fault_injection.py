"""The faults of the reliability table, one function each.

A function gets a harness and returns a row: `fault`, `exit_code`, what the
command `said`, what was `left` behind and what came of the same command
`again` once the cause was mended. Full disks and read-only folders are small
file systems of their own and need root on Linux.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gzip
import json
from pathlib import Path
import shutil
import signal
import subprocess
import time
from typing import Any

from tests.faults.harness import Harness
from tests.faults.harness import checkpoints

Row = dict[str, Any]
_SAMPLE = {"phase": "sample", "count": 8, "delay": 0.0}


def ctrl_c(harness: Harness) -> Row:
  return _signalled(harness, "ctrl-C in training", signal.SIGINT)


def sigterm(harness: Harness) -> Row:
  return _signalled(harness, "SIGTERM in training", signal.SIGTERM)


def kill_training(harness: Harness) -> Row:
  return _signalled(harness, "kill -9 in training", signal.SIGKILL)


def kill_saving(harness: Harness) -> Row:
  delay = harness.seconds["commit"][1] / 2
  moment = {"phase": "commit", "count": 2, "delay": delay}
  return _run_fault(harness, "kill -9 while saving", moment)


def full_disk(harness: Harness) -> Row:
  with _small_disk(harness.folder / "disk", "4m") as disk:
    run = disk / "run"
    ballast = disk / "ballast"
    first = harness.start(harness.arguments(run), _SAMPLE)
    with contextlib.suppress(OSError), ballast.open("wb") as file:
      while True:
        file.write(b"x" * 4096)
        file.flush()
    assert first.returncode == -signal.SIGKILL, first.stderr
    failed = harness.start(harness.arguments(run))
    left = _left(run)
    ballast.unlink()
    return _continued(harness, "full disk", failed, left, run)


def read_only(harness: Harness) -> Row:
  with _small_disk(harness.folder / "disk", "8m") as disk:
    harness.start(harness.arguments(disk / "run"), _SAMPLE)
    _mount("-o", "remount,ro", str(disk))
    failed = harness.start(harness.arguments(disk / "run"))
    left = _left(disk / "run")
    _mount("-o", "remount,rw", str(disk))
    return _continued(harness, "read-only folder", failed, left, disk / "run")


def damaged_checkpoint(harness: Harness) -> Row:
  run = harness.folder / "damaged_checkpoint"
  # A signal that saves: at a kill the second save may still be under way.
  moment = _SAMPLE | {"signal": int(signal.SIGTERM)}
  harness.start(harness.arguments(run), moment)
  newest = run / "checkpoints" / checkpoints(run)[-1]
  _flip_bit(max(newest.rglob("*"), key=lambda f: f.stat().st_size))
  process = harness.start(harness.arguments(run))
  fault = "one bit flipped in the newest checkpoint"
  return _continued(harness, fault, process, None, run)


def two_processes(harness: Harness) -> Row:
  run = harness.folder / "two_processes"
  with harness.begin(harness.arguments(run)) as first:
    lock = run / ".lock"
    while not (lock.exists() and lock.read_text()):
      time.sleep(0.05)
    second = harness.start(harness.arguments(run))
    first.communicate()  # so that its pipes do not fill
  assert first.returncode == 0
  return _row(
    "two processes started on one MODEL_DIR",
    second,
    "the first process, undisturbed",
    "the first ended " + _verdict(harness, run),
  )


def other_config(harness: Harness) -> Row:
  run = harness.folder / "other_config"
  harness.start(harness.arguments(run), _SAMPLE)
  failed = harness.start(harness.arguments(run, "--gin.LEARNING_RATE=0.5"))
  return _continued(
    harness, "a folder of another configuration", failed, _left(run), run
  )


def not_finite(harness: Harness) -> Row:
  run = harness.folder / "not_finite"
  more = ("--gin.LEARNING_RATE=1e38", "--gin.WARMUP_STEPS=0")
  failed = harness.start(harness.arguments(run, *more))
  again = harness.start(harness.arguments(run, *more))
  return _row(
    "loss not finite",
    failed,
    _left(run),
    f"stops at the same step, exit code {again.returncode}",
  )


def other_tokenizer(harness: Harness) -> Row:
  teacher = harness.folder / "other_teacher"
  shutil.copytree(harness.teacher, teacher)
  about = json.loads((teacher / "run.json").read_text())
  about["vocabulary_sha256"] = "0" * 64
  (teacher / "run.json").write_text(json.dumps(about))
  run = harness.folder / "other_tokenizer"
  failed = harness.start(
    harness.arguments(run, f"--gin.TEACHER_CHECKPOINT_PATH={teacher}")
  )
  return _row("teacher with another tokenizer", failed, _left(run), None)


def damaged_shard(harness: Harness) -> Row:
  cache = harness.folder / "train"
  shard = next(cache.glob("*.array_record"))
  whole = shard.read_bytes()
  _flip_bit(shard)
  run = harness.folder / "damaged_shard"
  failed = harness.start(harness.arguments(run))
  left = _left(run)
  shard.write_bytes(whole)
  return _continued(
    harness, "one bit flipped in a cache shard", failed, left, run
  )


def kill_caching(harness: Harness) -> Row:
  whole = harness.folder / "caches_whole"
  torn = harness.folder / "caches_torn"

  def make(folder):
    return [
      *("cache", "make", "--gin_file=tasks/chain_addition.gin"),
      *("--split=train", f"--cache_dir={folder}"),
    ]

  harness.must(*make(whole))
  process = _killed_at_a_file(harness, make(torn), torn, "rows-*")
  left = "a half-made folder" if list(torn.rglob(".*.partial")) else "nothing"
  harness.must(*make(torn))
  same = _files(whole, "*.array_record") == _files(torn, "*.array_record")
  return _row(
    "kill -9 while caching",
    process,
    left,
    "makes the rest; byte-identical" if same else "DIFFERS",
  )


def kill_sampling(harness: Harness) -> Row:
  def sample(folder):
    return [
      *("sample", "--gin_file=test/sample.gin", *harness.data()[:1]),
      harness.data()[2],
      "--gin.TRAIN_LIMIT=None",
      f"--gin.OUTPUT_DIR={harness.folder / folder}",
      f"--gin.INITIAL_CHECKPOINT_PATH={harness.teacher}",
      *("--gin.SHARD_PROMPTS=8", "--gin.BATCH_SIZE=8"),
    ]

  harness.must(*sample("answers"))
  partial = harness.folder / ".answers_torn.partial"
  torn = sample("answers_torn")
  process = _killed_at_a_file(harness, torn, partial, "rows-*")
  shards = len(list(partial.rglob("rows-*")))
  harness.must(*torn)
  found = [
    _files(harness.folder / folder, "*.array_record")
    for folder in ("answers", "answers_torn")
  ]
  return _row(
    "kill -9 in sampling",
    process,
    f"{shards} finished shards of {len(found[0])}",
    "makes the rest; byte-identical" if found[0] == found[1] else "DIFFERS",
  )


def removed_file(harness: Harness) -> Row:
  data, make = _gsm8k(harness, "removed", [f"{n} apples?" for n in range(9)])
  harness.must(*make)
  shutil.rmtree(data / "arithmetic")
  with_cache = harness.start(make)
  missing = harness.start(
    [*make, f"--cache_dir={harness.folder / 'no_caches'}"]
  )
  return _row(
    "a data file removed",
    missing,
    "caches made before"
    + (", which serve on" if with_cache.returncode == 0 else ": LOST"),
    None,
  )


def empty_data(harness: Harness) -> Row:
  _, make = _gsm8k(harness, "empty", [])
  return _row("an empty data set", harness.start(make), "nothing", None)


def prompts_too_long(harness: Harness) -> Row:
  _, make = _gsm8k(harness, "long", ["many " * 20])
  refused = harness.start([*make, "--gin.OVERLONG=refuse"])
  cut = harness.must(*make)
  said = [line for line in cut.stderr.splitlines() if "were cut" in line]
  return _row(
    "prompts longer than the limit",
    refused,
    "nothing",
    f"with OVERLONG = 'truncate' (the default): “{said[0]}”",
  )


# What each has to end with.
FAULTS: dict[Callable[[Harness], Row], int] = {
  ctrl_c: 130,
  sigterm: 143,
  kill_training: -signal.SIGKILL,
  kill_saving: -signal.SIGKILL,
  kill_caching: -signal.SIGKILL,
  kill_sampling: -signal.SIGKILL,
  full_disk: 2,
  read_only: 2,
  removed_file: 2,
  damaged_shard: 2,
  damaged_checkpoint: 0,
  two_processes: 2,
  other_config: 2,
  not_finite: 1,
  other_tokenizer: 2,
  empty_data: 2,
  prompts_too_long: 2,
}


def verdict(row: Row, exit_code: int) -> str | None:
  """What is wrong with a row; None if it is as it has to be."""
  if row["exit_code"] != exit_code:
    return f"exit code {row['exit_code']} instead of {exit_code}"
  if any("Traceback" in line for line in row["stderr"]):
    return "a traceback"
  if exit_code != -signal.SIGKILL and not row["said"]:
    return "nothing was said"
  if any(word in str(row) for word in ("DIFFER", "LOST")):
    return "not as in an undisturbed run"
  return None


def _killed_at_a_file(
  harness: Harness, arguments: list[str], folder: Path, pattern: str
) -> subprocess.CompletedProcess:
  """A process that is killed as soon as a file of this name is there."""
  with harness.begin(arguments) as process:
    while not list(folder.rglob(pattern)):
      assert process.poll() is None, "it was too quick to be killed"
      time.sleep(0.001)
    process.kill()
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _signalled(harness: Harness, fault: str, number: signal.Signals) -> Row:
  return _run_fault(harness, fault, {**_SAMPLE, "signal": int(number)})


def _run_fault(harness: Harness, fault: str, moment: dict[str, Any]) -> Row:
  run = harness.folder / fault.replace(" ", "_")
  process = harness.start(harness.arguments(run), moment)
  return _continued(harness, fault, process, _left(run), run)


def _continued(harness, fault, process, left, run: Path) -> Row:
  """The row of a fault, after the same command again."""
  harness.must(*harness.arguments(run))
  return _row(fault, process, left, "ends " + _verdict(harness, run))


def _row(fault: str, process, left: str | None, again: str | None) -> Row:
  said = [x for x in process.stderr.splitlines() if x.startswith("gkd: ")]
  if not said:
    words = ("damaged checkpoint", "resuming")
    said = [x for x in process.stderr.splitlines() if x.startswith(words)]
  return {
    "fault": fault,
    "exit_code": process.returncode,
    "said": said[0].removeprefix("gkd: ") if said else None,
    "left": left,
    "again": again,
    "stderr": process.stderr.splitlines()[-20:],
  }


def _left(run: Path) -> str:
  """What a run's folder holds."""
  if not run.exists():
    return "nothing"
  steps = [str(int(step)) for step in checkpoints(run)]
  file = run / "metrics.jsonl"
  lines = len(file.read_text().splitlines()) if file.exists() else 0
  saved = f"checkpoints of steps {', '.join(steps)}" if steps else "no step"
  return f"{saved}, {lines} lines of metrics"


def _verdict(harness: Harness, run: Path) -> str:
  wrong = harness.differences(run)
  return f"with DIFFERENCES in {wrong}" if wrong else "bit-identical"


def _files(folder: Path, pattern: str) -> list[bytes]:
  return [file.read_bytes() for file in sorted(folder.rglob(pattern))]


def _flip_bit(file: Path) -> None:
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(bytes(content))


def _gsm8k(harness: Harness, name: str, questions: list[str]):
  """A data folder with these questions, and the command that caches them."""
  data = harness.folder / f"data_{name}"
  (data / "arithmetic").mkdir(parents=True)
  rows = [{"inputs": q, "targets": "1 + 1 = 2\n#### 2"} for q in questions]
  with gzip.open(data / "arithmetic/gsm8k_test.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
  return data, [
    *("cache", "make", "--gin_file=tasks/gsm8k.gin", "--split=test"),
    *("--gin.VOCABULARY=bytes", "--gin.EXTRA_IDS=0", f"--data_dir={data}"),
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 64}",
    f"--cache_dir={harness.folder / f'caches_{name}'}",
  ]


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
  folder.mkdir(exist_ok=True)
  _mount("-t", "tmpfs", "-o", f"size={size}", "gkd-test", str(folder))
  try:
    yield folder
  finally:
    subprocess.run(["umount", str(folder)], check=True)


def _mount(*arguments: str) -> None:
  subprocess.run(["mount", *arguments], check=True)
