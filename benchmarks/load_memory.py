"""What loading a large teacher costs: host memory beside the loaded arrays.

A T5 of random float32 arrays is generated as a Hugging Face folder, then loaded
by a process of its own onto virtual CPU devices with its parameters split over
all of them. The arrays of these devices are host memory too: what counts is the
peak beyond them and beyond what the process had before, of anonymous memory as
`benchmarks.conversion` reads it.

Usage:
  python -m benchmarks.load_memory --size=large --devices=4 --output=load.json
"""

import argparse
import json
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

import jax

from benchmarks import conversion
from gkd import partitioning
from gkd.checkpoints import source
from gkd.checkpoints.conversion import Plan
from gkd.checkpoints.conversion import write
from gkd.models import registry
from gkd.models import sizes


def measure(
  size: str, devices: int, dtype: str, scratch: Path
) -> dict[str, Any]:
  """Loads a model once, in a process that is watched.

  Args:
    size: one of T5 1.1's, see `benchmarks.conversion`.
    devices: virtual ones; the parameters are split over all of them.
    dtype: of the loaded parameters.
    scratch: an existing folder with space for the model.
  """
  model = conversion.random_model(size)
  folder = scratch / "teacher"
  write(Plan(model, "hf"), folder)
  stored = [leaf.size_bytes for leaf in model.leaves.values()]
  command = [sys.executable, "-m", "benchmarks.load_memory"]
  command += [f"--dtype={dtype}", "--load", str(folder)]
  flags = f"--xla_force_host_platform_device_count={devices}"
  environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
  loaded = conversion.watched(command, environment)
  over = loaded["peak_anonymous_mb"] - loaded["before"]["anonymous_mb"]
  on_devices = sum(loaded["device_mb"])
  return {
    "model": sizes.describe(model.config),
    "stored_mb": sum(stored) / 1e6,
    "largest_array_mb": max(stored) / 1e6,
    "devices": devices,
    "dtype": dtype,
    **loaded,
    "over_baseline_mb": over,
    "over_baseline_and_loaded_arrays_mb": over - on_devices,
    **conversion.conditions(),
  }


def _load(folder: str, dtype: str) -> None:
  """One load, in the process that is watched."""
  mesh = partitioning.make_mesh(model=jax.device_count())
  print("ready", flush=True)
  sys.stdin.readline()
  start = time.perf_counter()
  checkpoint = source.open_checkpoint(folder)
  model = registry.build(checkpoint.config)
  params = source.load_params(checkpoint, model, mesh, dtype=dtype)
  jax.block_until_ready(params)
  seconds = time.perf_counter() - start
  per_device: dict[int, int] = {}
  for array in jax.tree.leaves(params):
    for shard in array.addressable_shards:
      held = per_device.get(shard.device.id, 0)
      per_device[shard.device.id] = held + shard.data.nbytes
  result = {
    "seconds": seconds,
    "device_mb": [per_device[i] / 1e6 for i in sorted(per_device)],
    "content_sha256": checkpoint.content_sha256,
  }
  print(json.dumps(result), flush=True)
  sys.stdin.readline()


def main() -> None:
  """Measures, prints and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--size", choices=("tiny", *conversion.SIZES), default="large"
  )
  parser.add_argument("--devices", type=int, default=4)
  parser.add_argument("--dtype", default="float32")
  parser.add_argument("--scratch", help="default: a temporary folder")
  parser.add_argument("--output", default="load_memory.json")
  parser.add_argument("--load", help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.load:
    _load(args.load, args.dtype)
    return
  with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
    results = measure(args.size, args.devices, args.dtype, Path(scratch))
  conversion.report(results, args.output)


if __name__ == "__main__":
  main()
