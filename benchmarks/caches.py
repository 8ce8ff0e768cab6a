"""What making a token cache costs, beside plain seqio tokenisation.

Rows are those of Tatoeba English–German with T5's vocabulary; for a million
they are repeated. Each measurement runs in a process of its own, whose memory
is then its own too. Wall time and the CPU time of all processes are both given:
on a shared machine only the second can be compared.

Usage:
  python -m benchmarks.caches --data_dir=data --output=results.json
"""

import argparse
from collections.abc import Iterator
import datetime
import itertools
import json
import multiprocessing
import os
from pathlib import Path
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

from gkd import files
from gkd.data.builder.build_cache import find_or_build
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.text import vocabulary as vocabularies

TASK = "tatoeba_ende"
REPEATED_TASK = "tatoeba_ende_repeated"
LENGTHS = {"inputs": 64, "targets": 64}
MILLION = 1_000_000
_VOCABULARY_FILE = "vocab/t5_spiece.model"
_SAMPLE = 20_000  # rows of the comparison with seqio
_WARM_UP = 1_000


def register(data_dir, vocabulary) -> None:
  """The task itself, and one that repeats its training rows without end."""
  from gkd.tasks import features
  from gkd.tasks import sources
  from gkd.tasks import translation
  from gkd.text import metrics
  from gkd.text import postprocess

  translation.register(data_dir, vocabulary)
  import seqio

  source = seqio.TaskRegistry.get(TASK).source

  def rows(split) -> Iterator[dict[str, Any]]:
    while True:
      yield from source.examples(split)

  features.add_task(
    REPEATED_TASK,
    sources.rows_source(
      lambda split: itertools.islice(rows("train"), int(split)),
      (str(MILLION),),
      with_references=True,
    ),
    vocabulary,
    postprocess=postprocess.references,
    metrics=[metrics.bleu],
  )


def making(data_dir: str, workers: int) -> dict[str, Any]:
  """The training split, as `gkd cache make` would."""
  return _making(data_dir, workers, TASK, "train")


def making_a_million(data_dir: str, workers: int) -> dict[str, Any]:
  """A million rows, streamed."""
  return _making(data_dir, workers, REPEATED_TASK, str(MILLION))


def tokenising(data_dir: str, workers: int) -> dict[str, Any]:
  """CPU time a row of seqio's preprocessors, and of a worker's tokenisation.

  The texts are in memory before, and nothing is written: no more than the ids.
  """
  del workers
  import seqio
  import tensorflow as tf

  from gkd.tasks import features

  vocabulary = _vocabulary(data_dir)
  register(data_dir, vocabulary)
  rows = seqio.TaskRegistry.get(TASK).source.examples("train")
  rows = list(itertools.islice(rows, _WARM_UP + _SAMPLE))
  texts = {n: [row[n] for row in rows] for n in ("inputs", "targets")}
  feature = seqio.Feature(features.seqio_vocabulary(vocabulary), add_eos=True)
  prep = seqio.preprocessors
  dataset = prep.append_eos(
    prep.tokenize(
      tf.data.Dataset.from_tensor_slices(texts), dict.fromkeys(texts, feature)
    ),
    dict.fromkeys(texts, feature),
  )
  examples = dataset.as_numpy_iterator()
  theirs = list(itertools.islice(examples, _WARM_UP))
  start = time.process_time()
  theirs += list(examples)
  by_seqio = (time.process_time() - start) / _SAMPLE
  ours = {}
  for name in texts:
    vocabulary.encode_batch(texts[name][:_WARM_UP])
  start = time.process_time()
  for name in texts:
    ids = vocabulary.encode_batch(texts[name][_WARM_UP:])
    ours[name] = [i + [vocabulary.eos_ids[0]] for i in ids]
  in_batches = (time.process_time() - start) / _SAMPLE
  for place, example in enumerate(theirs[_WARM_UP:]):
    for name in texts:
      assert example[name].tolist() == ours[name][place]
  return {
    "rows": _SAMPLE,
    "seqio_cpu_us_per_row": by_seqio * 1e6,
    "batched_cpu_us_per_row": in_batches * 1e6,
    "ratio": by_seqio / in_batches,
  }


MEASUREMENTS = {
  function.__name__: function
  for function in (tokenising, making, making_a_million)
}


def _making(
  data_dir: str, workers: int, task: str, split: str
) -> dict[str, Any]:
  vocabulary = _vocabulary(data_dir)
  start, cpu = time.perf_counter(), _cpu_seconds()
  import seqio  # noqa: F401

  imported, memory_before = time.perf_counter() - start, _peak_memory()
  with tempfile.TemporaryDirectory() as folder, _Memory() as memory:
    spec = CacheSpec(
      task=task,
      split=split,
      cache_dir=folder,
      lengths=LENGTHS,
      task_module="benchmarks.caches",
      data_dir=data_dir,
      vocabulary=vocabulary,
    )
    path = find_or_build(spec, num_workers=workers)
    wall = time.perf_counter() - start
    rows = len(TokenCache(path))
    size = sum(f["bytes"] for f in TokenCache(path).info["files"].values())
  cpu = _cpu_seconds() - cpu
  return {
    "task": task,
    "rows": rows,
    "workers": workers,
    "wall_seconds": wall,
    "wall_seconds_importing_tensorflow": imported,
    "cpu_seconds": cpu,
    "rows_per_second": rows / wall,
    "cpu_us_per_row": cpu / rows * 1e6,
    "minutes_per_million_rows": wall / rows * MILLION / 60,
    "bytes": size,
    "peak_memory_mb": {
      "parent": _peak_memory(),
      "parent_before": memory_before,
      "workers": sorted(memory.peaks.values()),
    },
  }


def _peak_memory() -> float:
  """Of this process so far, in MB; Linux counts in KB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Memory:
  """Peak resident memory of the processes that this one starts, in MB.

  getrusage has but one number for all of them, and that includes what a new
  process shares with its parent until it runs its own program.
  """

  def __init__(self):
    self.peaks: dict[int, float] = {}
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._watch)

  def __enter__(self) -> "_Memory":
    self._thread.start()
    return self

  def __exit__(self, *exception: Any) -> None:
    self._stop.set()
    self._thread.join()

  def _watch(self) -> None:
    while not self._stop.wait(0.2):
      for process in multiprocessing.active_children():
        if peak := _peak_memory_of(process.pid):
          self.peaks[process.pid] = peak


def _peak_memory_of(pid: int) -> float | None:
  """VmHWM of a process, a little before its end; Linux."""
  try:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
  except OSError:
    return None
  peaks = [line.split()[1] for line in lines if line.startswith("VmHWM")]
  return int(peaks[0]) / 1024 if peaks else None


def _cpu_seconds() -> float:
  """Of this process, its threads, and the children that have ended."""
  return sum(os.times()[:4])


def _vocabulary(data_dir: str) -> vocabularies.Vocabulary:
  return vocabularies.load(Path(data_dir) / _VOCABULARY_FILE, extra_ids=100)


def hardware() -> str:
  """Processor and number of cores, as a reader of results wants to know."""
  names = []
  if Path("/proc/cpuinfo").is_file():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [x.partition(":")[2].strip() for x in lines if "model name" in x]
  cores = len(os.sched_getaffinity(0))
  return f"{names[0] if names else platform.machine()}, {cores} cores"


def main() -> None:
  """Runs the measurements and writes them, each under its name."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--data_dir", default=os.environ.get("GKD_DATA_DIR", ""))
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--output", default="results.json")
  parser.add_argument(
    "--only", action="append", choices=MEASUREMENTS, help="default: all"
  )
  parser.add_argument("--in_this_process", action="store_true")
  args = parser.parse_args()
  output = Path(args.output)
  results = json.loads(output.read_text()) if output.is_file() else {}
  for name in args.only or MEASUREMENTS:
    if args.in_this_process:
      results[name] = MEASUREMENTS[name](args.data_dir, args.workers)
      results[name] |= {
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "load_average": os.getloadavg()[1],  # of five minutes
        "python": platform.python_version(),
      }
      files.write_text(output, json.dumps(results, indent=2) + "\n")
      print(name, json.dumps(results[name], indent=2))
    else:
      command = [sys.executable, "-m", "benchmarks.caches", "--in_this_process"]
      command += [f"--data_dir={args.data_dir}", f"--workers={args.workers}"]
      command += [f"--output={args.output}", f"--only={name}"]
      subprocess.run(command, check=True)


if __name__ == "__main__":
  main()
