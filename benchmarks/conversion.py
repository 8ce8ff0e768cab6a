"""What converting a large model costs: memory beside its largest array, time.

A T5 of random float32 arrays is generated, array by array, as a Hugging Face
folder, then converted to our layout, to T5X and back; at the end the files of
both folders are compared byte by byte. Each step is a process of its own, which
converts a tiny model first, so that libraries and threads are there before the
clock starts. Another process watches it: files that are mapped into memory
count as resident though the system may drop them at any time, so anonymous
memory (RssAnon of /proc/PID/status), which it may not, is told apart.

Usage:
  python -m benchmarks.conversion --size=large --output=memory.json
"""

import argparse
import datetime
import filecmp
import json
import os
from pathlib import Path
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any
import zlib

import jax
import numpy as np

from benchmarks import caches
from gkd import files
from gkd.checkpoints import conversion
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.models import sizes
from gkd.models import t5_params
from gkd.models.t5 import T5Config

# First the format that is generated; the last has to equal it.
ROUTE: tuple[Format, ...] = ("hf", "gkd", "t5x", "hf")
SIZES = ("small", "base", "large", "xl")
_TINY = {
  "vocab_size": 96,
  "emb_dim": 16,
  "num_heads": 2,
  "num_encoder_layers": 1,
  "num_decoder_layers": 1,
  "head_dim": 4,
  "mlp_dim": 24,
  "mlp_activations": ("gelu", "linear"),
}
_GENERATED = "generated"
# Names the folders that it was made from, and so differs.
_CARD = "README.md"
_PAUSE_SECONDS = 0.005


def random_model(size: str) -> Checkpoint:
  """A T5 1.1 whose arrays are drawn when they are read, and not kept."""
  fields = _TINY if size == "tiny" else sizes.named(f"T5_1_1_{size.upper()}")
  config = T5Config(**fields)
  return Checkpoint(
    path=Path(_GENERATED),
    format="hf",
    layout="random numbers",
    config=config,
    leaves={
      name: Leaf(row.shape, "float32", _drawn(name, row.shape))
      for name, row in t5_params.table(config).items()
    },
  )


def measure(size: str, scratch: Path) -> dict[str, Any]:
  """All steps of the route, and whether the last folder equals the first.

  Args:
    size: one of T5 1.1's.
    scratch: an existing folder with space for four models; emptied again.
  """
  model = random_model(size)
  sizes_bytes = [leaf.size_bytes for leaf in model.leaves.values()]
  folders = [scratch / f"{i}_{to}" for i, to in enumerate(ROUTE)]
  sources = [Path(_GENERATED), *folders]
  steps = []
  try:
    for source, folder, to in zip(sources, folders, ROUTE, strict=False):
      steps.append(_watched(size, source, folder, to))
      step = steps[-1]
      print(f"{step['step']}: {step['seconds']:.1f} s", file=sys.stderr)
    same = _compared(folders[0], folders[-1])
  finally:
    for folder in folders:
      shutil.rmtree(folder, ignore_errors=True)
  largest = max(sizes_bytes) / 1e6
  for step in steps:
    over = step["peak_anonymous_mb"] - step["before"]["anonymous_mb"]
    step["anonymous_over_baseline_mb"] = over
    step["over_baseline_in_largest_arrays"] = over / largest
  return {
    "model": sizes.describe(model.config),
    "megabytes": sum(sizes_bytes) / 1e6,
    "arrays": len(sizes_bytes),
    "largest_array_mb": largest,
    "steps": steps,
    "equal_files": same,
    **conditions(),
  }


def conditions() -> dict[str, Any]:
  """What a time depends on."""
  return {
    "date": datetime.date.today().isoformat(),
    "hardware": caches.hardware(),
    "load_average": os.getloadavg()[1],  # of five minutes
    "python": platform.python_version(),
  }


def report(results: dict[str, Any], output: str) -> None:
  """Prints and writes the results."""
  text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
  files.write_text(Path(output), text)
  print(text)


def _drawn(name: str, shape: tuple[int, ...]):
  def read() -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.standard_normal(shape, np.float32)

  return read


def _step(size: str, source: str, destination: str, to: Format) -> None:
  """One conversion, in the process that is watched."""
  jax.config.update("jax_platforms", "cpu")
  with tempfile.TemporaryDirectory() as folder:
    tiny = Path(folder) / "tiny"
    format = ROUTE[0] if source == _GENERATED else _format_of(Path(source))
    conversion.write(conversion.Plan(random_model("tiny"), format), tiny)
    _convert("tiny", str(tiny), str(Path(folder) / "converted"), to)
  print("ready", flush=True)
  sys.stdin.readline()
  start, cpu = time.perf_counter(), time.process_time()
  _convert(size, source, destination, to)
  seconds = time.perf_counter() - start
  used = time.process_time() - cpu
  print(json.dumps({"seconds": seconds, "cpu_seconds": used}), flush=True)
  sys.stdin.readline()


def _convert(size: str, source: str, destination: str, to: Format) -> None:
  if source == _GENERATED:
    planned = conversion.Plan(random_model(size), to)
  else:
    tokenizer = None if to == "t5x" else "none"
    planned = conversion.plan(source, to=to, tokenizer=tokenizer)
  conversion.write(planned, destination)


def _format_of(folder: Path) -> Format:
  return ROUTE[int(folder.name.partition("_")[0])]


def _watched(
  size: str, source: Path, destination: Path, to: Format
) -> dict[str, Any]:
  """Runs one step in a process, and reads its memory every few ms."""
  command = [sys.executable, "-m", "benchmarks.conversion", f"--size={size}"]
  command += ["--step", str(source), str(destination), to]
  start = "generate" if str(source) == _GENERATED else source.name
  return {"step": f"{start} → {to}", **watched(command)}


def watched(
  command: list[str], environment: dict[str, str] | None = None
) -> dict[str, Any]:
  """What a process prints as JSON, and its memory meanwhile.

  Args:
    command: prints "ready", waits for a line, works, prints a line of JSON and
      waits for another line.
    environment: of the process; None for that of this one.
  """
  with subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  ) as process:
    assert process.stdout is not None
    assert process.stdin is not None
    if process.stdout.readline() != "ready\n":
      raise RuntimeError(f"{command} ended before it began, see above")
    before = _memory(process.pid)
    _forget_peak(process.pid)
    process.stdin.write("\n")
    process.stdin.flush()
    os.set_blocking(process.stdout.fileno(), False)
    peaks = dict(before)
    line = ""
    while not line.endswith("\n") and process.poll() is None:
      now = _memory(process.pid)
      peaks = {name: max(peaks[name], now.get(name, 0)) for name in peaks}
      line += process.stdout.readline() or ""
      time.sleep(_PAUSE_SECONDS)
    if not line:
      raise RuntimeError(f"{command} failed, see above")
    peak = _memory(process.pid)["peak_mb"]
    process.stdin.write("\n")
    process.stdin.flush()
  return {
    **json.loads(line),
    "before": before,
    "peak_anonymous_mb": peaks["anonymous_mb"],
    "peak_mapped_mb": peaks["mapped_mb"],
    "peak_mb": peak,
  }


def _memory(pid: int) -> dict[str, float]:
  """Anonymous, file-backed, and peak resident memory of a process; Linux."""
  kept = {"RssAnon": "anonymous_mb", "RssFile": "mapped_mb", "VmHWM": "peak_mb"}
  lines = Path(f"/proc/{pid}/status").read_text().splitlines()
  fields = (line.split() for line in lines)
  return {
    kept[words[0].rstrip(":")]: int(words[1]) * 1024 / 1e6
    for words in fields
    if words and words[0].rstrip(":") in kept
  }


def _forget_peak(pid: int) -> None:
  """Starts VmHWM anew, so that it is of what comes."""
  Path(f"/proc/{pid}/clear_refs").write_text("5")


def _compared(first: Path, last: Path) -> int:
  """How many files there are, all of which are equal byte by byte."""
  names = [
    sorted(
      str(file.relative_to(folder))
      for file in folder.rglob("*")
      if file.is_file() and file.name != _CARD
    )
    for folder in (first, last)
  ]
  if names[0] != names[1]:
    raise RuntimeError(f"{first} and {last} have other files")
  _, unequal, unread = filecmp.cmpfiles(first, last, names[0], shallow=False)
  if unequal or unread:
    raise RuntimeError(f"{len(unequal + unread)} files of {first} differ")
  return len(names[0])


def main() -> None:
  """Measures, prints and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--size", choices=("tiny", *SIZES), default="large")
  parser.add_argument("--scratch", help="default: a temporary folder")
  parser.add_argument("--output", default="memory.json")
  parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.step:
    _step(args.size, *args.step)
    return
  with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
    report(measure(args.size, Path(scratch)), args.output)


if __name__ == "__main__":
  main()
