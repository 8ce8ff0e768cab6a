"""What `ROLLOUT_STALENESS` saves where rewards on the host take time.

A run of `gkd train`'s loop, RL with distillation, whose reward sleeps: as one
that asks another program does. A step is the time from one reward to the next;
runs of staleness 0 and 1 are made in turns, on one processor.

Usage:
  python -m benchmarks.staleness --seconds=0.1 --rounds=3
"""

import argparse
import dataclasses
import json
import os
from pathlib import Path
import statistics
import tempfile
import time

import numpy as np

from gkd import host_memory
from gkd.data.loader import Loader
from gkd.losses.divergence import ReverseKL
from gkd.losses.objective import Distillation
from gkd.losses.policy import rewarded
from gkd.models import t5
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.training.scoring import Scoring
from gkd.types import Model
from tests import tiny

_STEPS, _COMPILING = 40, 5  # the first steps do not count
_STUDENT = t5.encoder_decoder(
  dataclasses.replace(
    tiny.STUDENT.config,
    emb_dim=128,
    num_heads=4,
    head_dim=32,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=256,
  )
)


def main() -> None:
  """Measures, prints and writes the medians."""
  host_memory.keep_freed()  # as the command does
  flags = argparse.ArgumentParser(description=__doc__)
  flags.add_argument("--seconds", type=float, default=0.1, help="of a reward")
  flags.add_argument("--rounds", type=int, default=3)
  flags.add_argument("--output", default="results/speed/staleness.json")
  args = flags.parse_args()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
  cases = [(x, y) for x in (0.0, args.seconds) for y in (0, 1)]
  found = {case: [] for case in cases}
  with tempfile.TemporaryDirectory() as folder:
    cache = tiny.make_cache(Path(folder) / "train", rows=4000)
    for number in range(args.rounds):
      for case in cases:
        run = Path(folder) / f"{number}_{case}"
        found[case].append(step_seconds(run, cache, *case))
  result = [
    {
      "reward_seconds": seconds,
      "staleness": staleness,
      "step_seconds": statistics.median(rounds),
      "of_rounds": rounds,
    }
    for (seconds, staleness), rounds in found.items()
  ]
  text = json.dumps(result, indent=2) + "\n"
  print(text)
  Path(args.output).write_text(text, encoding="utf-8")


def step_seconds(folder, cache, seconds: float, staleness: int) -> float:
  """Median time of a step of one run."""
  called = []

  def reward(prompts, completions, references):
    called.append(time.perf_counter())
    time.sleep(seconds)
    return [-len(text) for text in completions]

  given = {"batch_size": 64, "lengths": tiny.LENGTHS, "seed": 0}
  student = Model(_STUDENT, tiny.parameters(_STUDENT, 0))
  teacher = Model(tiny.TEACHER, tiny.parameters(tiny.TEACHER, 1))
  run = tiny.make_run(
    folder,
    {"train": cache},
    roles={"student": student, "teacher": teacher},
    objective=rewarded(0.5, Distillation(ReverseKL())),
    rollout=Rollout(1.0, staleness=staleness),
    scoring=Scoring(reward=reward),
    loader=Loader(cache, samples_per_prompt=4, **given),
    train_steps=_STEPS,
    report=_STEPS,
    checkpoint=0,
  )
  loop.train(run)
  return float(np.median(np.diff(called)[_COMPILING:]))


if __name__ == "__main__":
  main()
