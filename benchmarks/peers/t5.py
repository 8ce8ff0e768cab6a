"""One step of T5 in `gkd` and in programs written without it, in turns.

The same random weights, batch, lengths, divergence, optimizer, precision and
processors; every row is sampled to its full length. In each round all take the
turns that they know, one program after the other, of one or more steps:

  fixed       the teacher scores the batch's own targets, JSD, AdamW; losses
              and gradient norms of the first round are the same
  on_policy   the same after the student has sampled the targets
  supervised  cross-entropy of the batch's own targets, AdamW

Usage, where torch and transformers are installed too:
  python -m benchmarks.peers.t5 --size=t5_small --threads=2 --output=t5.json

In bfloat16 the student's parameters stay float32, the teacher's are bfloat16.
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
import platform
from typing import Any

import numpy as np

from benchmarks.peers import turns
from benchmarks.peers import work

PROGRAMS = {
  "gkd": "t5_gkd",
  "transformers": "torch_gkd",
  "plain_jax": "plain_jax",
}
TURNS = {
  "fixed": ("gkd", "transformers"),
  "on_policy": ("gkd", "transformers"),
  "supervised": ("gkd", "plain_jax"),
}
WARM_UP = 2
_VERSIONS = ("jax", "optax", "torch", "transformers")


def main() -> None:
  """Takes turns, prints and writes the results."""
  flags = parser()
  args = work.with_defaults(flags.parse_args())
  if args.dtype != "float32" and "plain_jax" in args.peers:
    flags.error(f"plain_jax has no {args.dtype}; give --peers gkd transformers")
  processors = sorted(os.sched_getaffinity(0))
  args.threads = min(args.threads or len(processors), len(processors))
  os.sched_setaffinity(0, processors[: args.threads])
  # What JAX does not use of a GPU is left to the others.
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  peers = {
    name: turns.Peer(f"benchmarks.peers.{module}", json.dumps(vars(args)))
    for name, module in PROGRAMS.items()
    if name in args.peers and any(name in TURNS[turn] for turn in args.turns)
  }
  rounds = [
    take_round(peers, args.turns, steps)
    for steps in [1] * WARM_UP + [args.steps] * args.rounds
  ]
  for peer in peers.values():
    peer.end()
  result = {
    **vars(args),
    "hardware": platform.processor() or platform.machine(),
    "versions": {
      name: importlib.metadata.version(name)
      for name in _VERSIONS
      if importlib.util.find_spec(name)
    },
    "python": platform.python_version(),
    **summary(rounds[WARM_UP:]),
    "warm_up": rounds[:WARM_UP],
    "rounds_measured": rounds[WARM_UP:],
  }
  text = json.dumps(result, indent=2) + "\n"
  Path(args.output).write_text(text, encoding="utf-8")
  print(describe(result))


def parser() -> argparse.ArgumentParser:
  flags = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  flags.add_argument("--size", choices=work.SIZES, default="t5_small")
  flags.add_argument("--teacher", choices=work.SIZES, help="--size's if left")
  for name in ("batch_size", "input_length", "target_length", "steps"):
    flags.add_argument(f"--{name}", type=int, help="of the size if left")
  flags.add_argument("--rounds", type=int, default=8)
  flags.add_argument("--threads", type=int, help="processors; all if left")
  flags.add_argument("--beta", type=float, default=0.5, help="of JSD(beta)")
  flags.add_argument("--dropout", type=float, default=0.0, help="the student's")
  flags.add_argument(
    "--dtype", choices=("float32", "bfloat16"), default="float32"
  )
  flags.add_argument(
    "--peers", nargs="+", choices=PROGRAMS, default=[*PROGRAMS]
  )
  flags.add_argument("--turns", nargs="+", choices=TURNS, default=[*TURNS])
  flags.add_argument("--chunk_size", type=int, help="gkd's, see Distillation")
  flags.add_argument(
    "--cache",
    choices=("dynamic", "static"),
    default="dynamic",
    help="of transformers; static: it compiles the decoding step on a GPU",
  )
  flags.add_argument(
    "--compile",
    action="store_true",
    help="transformers' teacher and loss by torch.compile; takes minutes",
  )
  flags.add_argument("--no_tf32", dest="tf32", action="store_false")
  flags.add_argument("--output", default="t5.json")
  return flags


def take_round(
  peers: Mapping[str, turns.Peer], names: Sequence[str], steps: int
) -> dict[str, dict[str, Any]]:
  """What each program replies to each turn that it knows."""
  taken = {}
  for turn in names:
    those = {n: peer for n, peer in peers.items() if n in TURNS[turn]}
    taken[turn] = turns.take(those, turn, steps)
  return taken


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """That of each turn, and how much longer `gkd` takes on-policy."""
  result = {
    turn: turns.summary([replies[turn] for replies in rounds])
    for turn in rounds[0]
  }
  if {"on_policy", "fixed"} <= result.keys() and "gkd" in result["fixed"]:
    wall, base = (
      np.array([replies[turn]["gkd"]["step"]["wall"] for replies in rounds])
      for turn in ("on_policy", "fixed")
    )
    result["on_policy_over_fixed"] = turns.spread(wall / base)
  return {"summary": result}


def describe(result: Mapping[str, Any]) -> str:
  """Medians as a table, and the losses of the first step."""
  columns = "wall ms", "of gkd", "CPU ms", "of gkd", "first loss"
  lines = [f"{'medians':34}" + "".join(f"{name:>11}" for name in columns)]
  for turn in result["turns"]:
    for name, phases in result["summary"][turn].items():
      loss = f"{result['warm_up'][0][turn][name]['loss']:11.6f}"
      for phase in ("sample", "score", "update", "step"):
        if f"{phase}_wall" not in phases:
          continue
        numbers = ""
        for clock in ("wall", "cpu"):
          entry = phases[f"{phase}_{clock}"]
          numbers += f"{1e3 * entry['seconds']['median']:11.2f}"
          ratio = f"{entry['ratio']['median']:.2f}" if "ratio" in entry else ""
          numbers += f"{ratio:>11}"
        shown = loss if phase == "step" else ""
        lines.append(f"{f'{turn} {name} {phase}':34}{numbers}{shown}")
  if ratio := result["summary"].get("on_policy_over_fixed"):
    lines.append(f"gkd, on-policy / fixed: {ratio['median']:.2f}")
  return "\n".join(lines)


if __name__ == "__main__":
  main()
