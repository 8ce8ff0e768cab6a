"""What a step costs against its work: batch, target length, vocabulary.

  batch    time a token of sampling and update over rows of the batch
  length   the same over tokens of a target
  memory   temporaries of the compiled update over rows of the table, with the
           logits of all positions at once and in chunks; nothing is run

The models are those of `peers/t5.py`: random weights, rows sampled to their
full length, JSD(0.5), AdamW. A curve is a JSON file and a PNG.

Usage:
  python -m benchmarks.cost batch --size=t5_small --threads=2 --output=FOLDER
"""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
import functools
import itertools
import json
import os
from pathlib import Path
import statistics
from typing import Any

import jax
import numpy as np

from benchmarks.peers import t5
from benchmarks.peers import t5_gkd
from benchmarks.peers import work
from gkd import host_memory
from gkd import trees
from gkd.report import pictures
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.training.step import update_step

_PHASES = ("sample", "update")


def main() -> None:
  """Measures a curve, prints it and writes its files."""
  host_memory.keep_freed()  # as the command does
  flags = t5.parser()
  flags.add_argument("curve", choices=CURVES)
  flags.set_defaults(rounds=3, output="results/speed")
  args = work.with_defaults(flags.parse_args())
  processors = sorted(os.sched_getaffinity(0))[: args.threads]
  os.sched_setaffinity(0, processors)
  points = []
  for point in CURVES[args.curve](args):
    print(json.dumps(point), flush=True)
    points.append(point)
  folder = Path(args.output)
  folder.mkdir(parents=True, exist_ok=True)
  result = vars(args) | {"jax": jax.__version__, "points": points}
  text = json.dumps(result, indent=2) + "\n"
  (folder / f"cost_{args.curve}.json").write_text(text, encoding="utf-8")
  chart = memory_chart if args.curve == "memory" else time_chart
  print(pictures.write_png(chart(args, points), args.output))


def times(
  name: str, values: tuple[int, ...], args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
  """Milliseconds a token, medians of rounds after one that compiles."""
  for value in values:
    args = argparse.Namespace(**vars(args) | {name: value})
    steps = t5_gkd.Steps(args)
    rounds = [steps.on_policy() for _ in range(1 + args.rounds)][1:]
    tokens = args.batch_size * args.target_length
    yield {name: value} | {
      f"{phase}_{clock}_ms": statistics.median(
        1e3 * reply[phase][clock] / tokens for reply in rounds
      )
      for phase in _PHASES
      for clock in ("wall", "cpu")
    }


def memory(
  vocab_sizes: tuple[int, ...], args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
  """Bytes of an update's temporaries and of the gradient, one of them."""
  fields, size = work.SIZES[args.size], args.chunk_size or 8
  for vocab_size, chunk_size in itertools.product(vocab_sizes, (None, size)):
    work.SIZES[args.size] = fields | {"vocab_size": vocab_size}
    own = argparse.Namespace(**vars(args) | {"chunk_size": chunk_size})
    steps = t5_gkd.Steps(own)
    arguments = steps.distillation | {"batch": steps.batch}
    lowered = update_step.lower(**arguments, seed=np.int32(0))
    analysis = lowered.compile().memory_analysis()
    yield {
      "vocab_size": vocab_size,
      "chunk_size": chunk_size,
      "temporary_bytes": analysis.temp_size_in_bytes,
      "gradient_bytes": 4 * trees.num_parameters(steps.student.params),
    }


def time_chart(args: argparse.Namespace, points: list[Mapping]) -> Chart:
  name = next(iter(points[0]))
  return Chart(
    slug=f"cost_{args.curve}",
    title=f"{args.size}: wall milliseconds a sampled token",
    note=f"JSD, AdamW, {args.dtype}, medians of {args.rounds} steps.",
    kind="lines",
    series=[
      _series(phase, i, points, f"{phase}_wall_ms")
      for i, phase in enumerate(_PHASES)
    ],
    x_label=name.replace("_", " "),
    x_ticks=[str(point[name]) for point in points],
    y_scale="log",
  )


def memory_chart(args: argparse.Namespace, points: list[Mapping]) -> Chart:
  dense, chunked = (
    [one for one in points if (one["chunk_size"] is None) == is_dense]
    for is_dense in (True, False)
  )
  chunk = f"chunks of {chunked[0]['chunk_size']} positions"
  return Chart(
    slug="cost_memory",
    title=f"{args.size}: MiB of an update's temporaries",
    note=f"{args.batch_size} rows of {args.target_length} targets; the gradient"
    " is among them.",
    kind="lines",
    series=[
      _series("all logits at once", 0, dense, "temporary_bytes", 2**20),
      _series(chunk, 1, chunked, "temporary_bytes", 2**20),
      _series("gradient", 2, dense, "gradient_bytes", 2**20),
    ],
    x_label="rows of the vocabulary's table",
    x_ticks=[f"{point['vocab_size']:,}" for point in dense],
  )


def _series(
  name: str, colour: int, points: list[Mapping], key: str, scale: float = 1
) -> Series:
  ys = [point[key] / scale for point in points]
  return Series(name, colour, ys, xs=range(len(ys)))


CURVES = {
  "batch": functools.partial(times, "batch_size", (1, 2, 4, 8, 16, 32, 64)),
  "length": functools.partial(times, "target_length", (8, 16, 32, 64, 128)),
  "memory": functools.partial(memory, (8192, 16384, 32768, 65536)),
}


if __name__ == "__main__":
  main()
