"""How fast a token cache is read, and whether memory stays flat.

Each measurement is `loader.batch(step)` in a process of its own, with the
global shuffle of training. Rows a second are given per second of CPU time, all
threads together: what one core does, also on a machine that others use.

Usage: python -m benchmarks.reading CACHE… --output=results/cache/reading.json
"""

import argparse
from collections.abc import Sequence
import datetime
import json
from pathlib import Path
import platform
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from benchmarks.caches import hardware
from gkd import files
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader

BATCH_SIZES = (32, 128, 1024)
_PARTS = 5  # of a measurement, for its spread
_SEED = 0


def measure(path: str, batch_size: int, rows: int) -> dict[str, Any]:
  """Reads `rows` rows in this process.

  Returns:
    Rows a second of CPU time and of wall time, {min, median, max} over parts of
    the measurement; resident memory in MB before the loader was made, after the
    first part and after the last one, and its peak.
  """
  before = _resident_mb()
  cache = TokenCache(path)
  loader = Loader(
    cache, batch_size=batch_size, lengths=cache.info["lengths"], seed=_SEED
  )
  # Shards are opened and compared with their sha256 when first read.
  started = time.process_time()
  cache.tokens(range(0, len(cache), max(len(cache) // 10_000, 1)))
  opening = time.process_time() - started
  steps = max(rows // (_PARTS * batch_size), 1)
  speeds: dict[str, list[float]] = {"cpu": [], "wall": []}
  resident = []
  for part in range(_PARTS):
    cpu, wall = time.process_time(), time.perf_counter()
    for step in range(part * steps, (part + 1) * steps):
      loader.batch(step)
    speeds["cpu"].append(steps * batch_size / (time.process_time() - cpu))
    speeds["wall"].append(steps * batch_size / (time.perf_counter() - wall))
    resident.append(_resident_mb())
  return {
    "rows_in_cache": len(cache),
    "shards": len(cache.info["shards"]),
    "batch_size": batch_size,
    "rows_read": _PARTS * steps * batch_size,
    "rows_per_second": {name: _spread(got) for name, got in speeds.items()},
    "opening_cpu_seconds": opening,
    "resident_mb": {
      "before": before,
      "first_part": resident[0],
      "last_part": resident[-1],
      "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    },
  }


def measure_all(
  paths: Sequence[str], batch_sizes: Sequence[int], rows: int
) -> dict[str, Any]:
  """Every cache with every batch size, one process after the other."""
  results = []
  for path in paths:
    for batch_size in batch_sizes:
      command = [sys.executable, "-m", "benchmarks.reading", path]
      command += [f"--batch_sizes={batch_size}", f"--rows={rows}", "--here"]
      done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
      results.append(json.loads(done.stdout))
      print(words(results[-1]), flush=True)
  return {
    "date": datetime.date.today().isoformat(),
    "hardware": hardware(),
    "python": platform.python_version(),
    "measured": results,
  }


def words(result: dict[str, Any]) -> str:
  """One measurement in a line."""
  speed, memory = result["rows_per_second"], result["resident_mb"]
  return (
    f"{result['rows_in_cache']:>9,} rows, batch {result['batch_size']:>4}:"
    f" {speed['cpu']['median']:>7,.0f} rows/s of CPU"
    f" ({speed['cpu']['min']:,.0f} to {speed['cpu']['max']:,.0f}),"
    f" {speed['wall']['median']:>7,.0f} of wall; memory"
    f" {memory['before']:.0f} MB before, {memory['first_part']:.0f} after the"
    f" first fifth, {memory['last_part']:.0f} at the end"
  )


def _spread(values: list[float]) -> dict[str, float]:
  return {
    "min": min(values),
    "median": statistics.median(values),
    "max": max(values),
  }


def _resident_mb() -> float:
  pages = int(Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize() / 2**20


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("caches", nargs="+", help="folders of token caches")
  parser.add_argument(
    "--batch_sizes", type=int, nargs="+", default=list(BATCH_SIZES)
  )
  parser.add_argument("--rows", type=int, default=100_000, help="rows to read")
  parser.add_argument("--output", help="JSON file of the results")
  parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.here:
    print(json.dumps(measure(args.caches[0], args.batch_sizes[0], args.rows)))
    return
  result = measure_all(args.caches, args.batch_sizes, args.rows)
  if args.output:
    files.write_text(args.output, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
  main()
