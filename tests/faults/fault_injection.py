"""The harms of the reliability table: each does one for real.

A function gets a scene and returns a row: `fault`, `exit_code`, what the
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

from tests.faults.harness import Scene
from tests.faults.harness import checkpoints

Row = dict[str, Any]
_SAMPLE = {"phase": "sample", "count": 8, "delay": 0.0}


def ctrl_c(scene: Scene) -> Row:
  return _signalled(scene, "ctrl-C in training", signal.SIGINT)


def sigterm(scene: Scene) -> Row:
  return _signalled(scene, "SIGTERM in training", signal.SIGTERM)


def kill_training(scene: Scene) -> Row:
  return _signalled(scene, "kill -9 in training", signal.SIGKILL)


def kill_saving(scene: Scene) -> Row:
  moment = {"phase": "commit", "count": 2, "delay": scene.seconds["commit"][1]}
  moment["delay"] /= 2
  return _run_fault(scene, "kill -9 while saving", moment)


def full_disk(scene: Scene) -> Row:
  with _small_disk(scene.folder / "disk", "4m") as disk:
    run = disk / "run"
    ballast = disk / "ballast"
    first = scene.start(scene.arguments(run), _SAMPLE)
    with contextlib.suppress(OSError), ballast.open("wb") as file:
      while True:
        file.write(b"x" * 4096)
        file.flush()
    assert first.returncode == -signal.SIGKILL, first.stderr
    failed = scene.start(scene.arguments(run))
    left = _left(run)
    ballast.unlink()
    return _continued(scene, "full disk", failed, left, run)


def read_only(scene: Scene) -> Row:
  with _small_disk(scene.folder / "disk", "8m") as disk:
    scene.start(scene.arguments(disk / "run"), _SAMPLE)
    _mount("-o", "remount,ro", str(disk))
    failed = scene.start(scene.arguments(disk / "run"))
    left = _left(disk / "run")
    _mount("-o", "remount,rw", str(disk))
    return _continued(scene, "read-only folder", failed, left, disk / "run")


def damaged_checkpoint(scene: Scene) -> Row:
  run = scene.folder / "damaged_checkpoint"
  # A signal that saves: at a kill the second save may still be under way.
  scene.start(scene.arguments(run), {**_SAMPLE, "signal": int(signal.SIGTERM)})
  newest = run / "checkpoints" / checkpoints(run)[-1]
  _flip_bit(max(newest.rglob("*"), key=lambda f: f.stat().st_size))
  return _continued(
    scene,
    "one bit flipped in the newest checkpoint",
    scene.start(scene.arguments(run)),
    None,
    run,
  )


def two_processes(scene: Scene) -> Row:
  run = scene.folder / "two_processes"
  with scene.begin(scene.arguments(run)) as first:
    lock = run / ".lock"
    while not (lock.exists() and lock.read_text()):
      time.sleep(0.05)
    second = scene.start(scene.arguments(run))
    first.communicate()  # so that its pipes do not fill
  assert first.returncode == 0
  return _row(
    "two processes started on one MODEL_DIR",
    second,
    "the first process, undisturbed",
    "the first ended " + _verdict(scene, run),
  )


def other_config(scene: Scene) -> Row:
  run = scene.folder / "other_config"
  scene.start(scene.arguments(run), _SAMPLE)
  failed = scene.start(scene.arguments(run, "--gin.LEARNING_RATE=0.5"))
  return _continued(
    scene, "a folder of another configuration", failed, _left(run), run
  )


def not_finite(scene: Scene) -> Row:
  run = scene.folder / "not_finite"
  more = ("--gin.LEARNING_RATE=1e38", "--gin.WARMUP_STEPS=0")
  failed = scene.start(scene.arguments(run, *more))
  again = scene.start(scene.arguments(run, *more))
  return _row(
    "loss not finite",
    failed,
    _left(run),
    f"stops at the same step, exit code {again.returncode}",
  )


def other_tokenizer(scene: Scene) -> Row:
  teacher = scene.folder / "other_teacher"
  shutil.copytree(scene.teacher, teacher)
  about = json.loads((teacher / "run.json").read_text())
  about["vocabulary_sha256"] = "0" * 64
  (teacher / "run.json").write_text(json.dumps(about))
  run = scene.folder / "other_tokenizer"
  failed = scene.start(
    scene.arguments(run, f"--gin.TEACHER_CHECKPOINT_PATH={teacher}")
  )
  return _row("teacher with another tokenizer", failed, _left(run), None)


def damaged_shard(scene: Scene) -> Row:
  cache = scene.folder / "train"
  shard = next(cache.glob("*.array_record"))
  whole = shard.read_bytes()
  _flip_bit(shard)
  run = scene.folder / "damaged_shard"
  failed = scene.start(scene.arguments(run))
  left = _left(run)
  shard.write_bytes(whole)
  return _continued(
    scene, "one bit flipped in a cache shard", failed, left, run
  )


def kill_caching(scene: Scene) -> Row:
  whole = scene.folder / "caches_whole"
  torn = scene.folder / "caches_torn"

  def make(folder):
    return [
      *("cache", "make", "--gin_file=tasks/chain_addition.gin"),
      *("--split=train", f"--cache_dir={folder}"),
    ]

  scene.must(*make(whole))
  process = _killed_at_a_file(scene, make(torn), torn, "rows-*")
  left = "a half-made folder" if list(torn.rglob(".*.partial")) else "nothing"
  scene.must(*make(torn))
  same = _files(whole, "*.array_record") == _files(torn, "*.array_record")
  return _row(
    "kill -9 while caching",
    process,
    left,
    "makes the rest; byte-identical" if same else "DIFFERS",
  )


def kill_sampling(scene: Scene) -> Row:
  def sample(folder):
    return [
      *("sample", "--gin_file=test/sample.gin", *scene.data()[:1]),
      scene.data()[2],
      "--gin.TRAIN_LIMIT=None",
      f"--gin.OUTPUT_DIR={scene.folder / folder}",
      f"--gin.INITIAL_CHECKPOINT_PATH={scene.teacher}",
      *("--gin.SHARD_PROMPTS=8", "--gin.BATCH_SIZE=8"),
    ]

  scene.must(*sample("answers"))
  partial = scene.folder / ".answers_torn.partial"
  process = _killed_at_a_file(scene, sample("answers_torn"), partial, "rows-*")
  shards = len(list(partial.rglob("rows-*")))
  scene.must(*sample("answers_torn"))
  found = [
    _files(scene.folder / folder, "*.array_record")
    for folder in ("answers", "answers_torn")
  ]
  return _row(
    "kill -9 in sampling",
    process,
    f"{shards} finished shards of {len(found[0])}",
    "makes the rest; byte-identical" if found[0] == found[1] else "DIFFERS",
  )


def removed_file(scene: Scene) -> Row:
  data, make = _gsm8k(scene, "removed", [f"{n} apples?" for n in range(9)])
  scene.must(*make)
  shutil.rmtree(data / "arithmetic")
  with_cache = scene.start(make)
  missing = scene.start([*make, f"--cache_dir={scene.folder / 'no_caches'}"])
  return _row(
    "a data file removed",
    missing,
    "caches made before"
    + (", which serve on" if with_cache.returncode == 0 else ": LOST"),
    None,
  )


def empty_data(scene: Scene) -> Row:
  _, make = _gsm8k(scene, "empty", [])
  return _row("an empty data set", scene.start(make), "nothing", None)


def prompts_too_long(scene: Scene) -> Row:
  _, make = _gsm8k(scene, "long", ["many " * 20])
  refused = scene.start([*make, "--gin.OVERLONG=refuse"])
  cut = scene.must(*make)
  said = [line for line in cut.stderr.splitlines() if "were cut" in line]
  return _row(
    "prompts longer than the limit",
    refused,
    "nothing",
    f"with OVERLONG = 'truncate' (the default): “{said[0]}”",
  )


# What each has to end with.
FAULTS: dict[Callable[[Scene], Row], int] = {
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
  scene: Scene, arguments: list[str], folder: Path, pattern: str
) -> subprocess.CompletedProcess:
  """A process that is killed as soon as a file of this name is there."""
  with scene.begin(arguments) as process:
    while not list(folder.rglob(pattern)):
      assert process.poll() is None, "it was too quick to be killed"
      time.sleep(0.001)
    process.kill()
    out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _signalled(scene: Scene, fault: str, number: signal.Signals) -> Row:
  return _run_fault(scene, fault, {**_SAMPLE, "signal": int(number)})


def _run_fault(scene: Scene, fault: str, moment: dict[str, Any]) -> Row:
  run = scene.folder / fault.replace(" ", "_")
  harmed = scene.start(scene.arguments(run), moment)
  return _continued(scene, fault, harmed, _left(run), run)


def _continued(scene, fault, process, left, run: Path) -> Row:
  """The row of a fault, after the same command again."""
  scene.must(*scene.arguments(run))
  return _row(fault, process, left, "ends " + _verdict(scene, run))


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


def _verdict(scene: Scene, run: Path) -> str:
  wrong = scene.harm(run)
  return f"with DIFFERENCES in {wrong}" if wrong else "bit-identical"


def _files(folder: Path, pattern: str) -> list[bytes]:
  return [file.read_bytes() for file in sorted(folder.rglob(pattern))]


def _flip_bit(file: Path) -> None:
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 1
  file.write_bytes(bytes(content))


def _gsm8k(scene: Scene, name: str, questions: list[str]):
  """A data folder with these questions, and the command that caches them."""
  data = scene.folder / f"data_{name}"
  (data / "arithmetic").mkdir(parents=True)
  rows = [{"inputs": q, "targets": "1 + 1 = 2\n#### 2"} for q in questions]
  with gzip.open(data / "arithmetic/gsm8k_test.jsonl.gz", "wt") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
  return data, [
    *("cache", "make", "--gin_file=tasks/gsm8k.gin", "--split=test"),
    *("--gin.VOCABULARY=bytes", "--gin.EXTRA_IDS=0", f"--data_dir={data}"),
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 64}",
    f"--cache_dir={scene.folder / f'caches_{name}'}",
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
