"""Kills a small on-policy run again and again; it has to end bit-identical.

  python -m tests.faults.soak --kills=100 --output=results/reliability

One run is left alone. Then, for each of `kills` moments drawn from the seed,
the same command is started, dies by SIGKILL at that moment, and is started
again. Parameters, optimizer state, every line of metrics.jsonl (without what a
clock measures), every prediction and every dump of samples must be equal, bit
for bit, to those of the run that was left alone.

Moments are drawn phase by phase in turn, so that short phases get their share:
reading data, rollout, update, evaluation, both halves of a save, writing a
line, and anywhere in the life of the process.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
import platform
import random
import shutil
import sys
import tempfile
import time
from typing import Any

from tests.faults.harness import Harness

PHASES = (
  "sample",
  "update",
  "evaluate",
  "checkpoint",
  "commit",
  "line",
  "data",
  "anywhere",
)


def draw(
  phase: str, seconds: dict[str, list[float]], rng: random.Random
) -> dict[str, Any]:
  """A moment within one of the times that a phase was run."""
  count = rng.randint(1, len(seconds[phase]))
  delay = rng.uniform(0, seconds[phase][count - 1])
  return {"phase": phase, "count": count, "delay": delay}


def soak(kills: int, seed: int, folder: Path) -> list[dict[str, Any]]:
  """Runs trials until so many were killed; one record for each."""
  harness = Harness(folder)
  rng = random.Random(seed)
  trials: list[dict[str, Any]] = []
  started = time.monotonic()
  while (done := sum(trial["killed"] for trial in trials)) < kills:
    moment = draw(PHASES[len(trials) % len(PHASES)], harness.seconds, rng)
    run = f"run{len(trials)}"
    killed = harness.finish(run, [moment])
    wrong = harness.differences(run)
    trials.append({**moment, "killed": killed, "differs": wrong})
    shutil.rmtree(folder / run)
    done += killed
    left = (time.monotonic() - started) / max(done, 1) * (kills - done) / 60
    print(
      f"{done}/{kills} kills · {moment['phase']} {moment['count']}"
      f" +{moment['delay'] * 1000:.1f} ms:"
      f" {f'DIFFERS in {wrong}' if wrong else 'identical'}"
      f" · {left:.0f} min left",
      flush=True,
    )
  return trials


def summary(trials: list[dict[str, Any]]) -> dict[str, Any]:
  """Counts over the trials."""

  def kills(**wanted):
    return sum(
      trial["killed"]
      for trial in trials
      if all(trial[name] == value for name, value in wanted.items())
    )

  return {
    "kills": kills(),
    "ended_identical": kills(differs=[]),
    # The phase was over sooner than in the run that was measured.
    "came_too_late": sum(trial["killed"] == 0 for trial in trials),
    "by_phase": {
      phase: {
        "kills": kills(phase=phase),
        "ended_identical": kills(phase=phase, differs=[]),
      }
      for phase in PHASES
    },
  }


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=100)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--output", default="results/reliability")
  args = parser.parse_args()
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as scratch:
    trials = soak(args.kills, args.seed, Path(scratch))
  counts = summary(trials)
  report = {
    "command": f"make soak ARGS='--kills={args.kills} --seed={args.seed}'",
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "python": platform.python_version(),
    "minutes": round((time.monotonic() - started) / 60),
    **counts,
    "trials": trials,
  }
  output = Path(args.output)
  output.mkdir(parents=True, exist_ok=True)
  (output / "soak.json").write_text(json.dumps(report, indent=2) + "\n")
  print(f"{counts['ended_identical']} of {counts['kills']} ended bit-identical")
  return int(counts["ended_identical"] < counts["kills"])


if __name__ == "__main__":
  sys.exit(main())
