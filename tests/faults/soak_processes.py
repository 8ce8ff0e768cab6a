"""Kills processes of one run again and again; it has to end bit-identical.

  python -m tests.faults.soak_processes --kills=40 --steps=2600

A run of several processes, over loopback, is left alone. The same run is then
started again and again: after a while one of its processes, any of them, gets
SIGKILL or, one time in four, SIGTERM. The others have to end by themselves
within a minute, with the exit code that says so, before the same command is
given again. The signals are spread over the steps. What the run has in the end
is compared with what was left alone: parameters, optimizer state, metrics,
predictions and samples.

First a few steps are compared with one process that has all the devices. In the
end the run is to go on for longer, one process is killed, and the same command
with half as many processes finishes it.
"""

import argparse
import collections
from collections.abc import Sequence
import contextlib
import datetime
import json
import os
from pathlib import Path
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gkd import watchdog
from gkd.checkpoints import zarr_arrays
from tests.faults.harness import ROOT
from tests.faults.harness import Harness
from tests.faults.harness import checkpoints
from tests.faults.harness import differences
from tests.faults.harness import fingerprint

_ENDING_SECONDS = 60.0  # for the others, when one was killed
_SLOWEST_SECONDS = 1800.0  # for a whole run


class Group:
  """The processes of one start of a run.

  Attributes:
    processes: in the order of their numbers.
    logs: of their output; one start after the other.
  """

  def __init__(
    self,
    harness: Harness,
    arguments: Sequence[str],
    count: int,
    *,
    devices: int = 1,
  ):
    """Starts `count` processes with so many devices each."""
    with socket.socket() as free:
      free.bind(("localhost", 0))
      coordinator = f"localhost:{free.getsockname()[1]}"
    self.logs = [harness.folder / f"process{i}.log" for i in range(count)]
    # Where the log of this start begins.
    self.start = len(self.logs[0].read_text()) if self.logs[0].exists() else 0
    self.processes = []
    for index, log in enumerate(self.logs):
      flags = [
        f"--coordinator={coordinator}",
        f"--num_processes={count}",
        f"--process_id={index}",
      ]
      with log.open("a", encoding="utf-8") as output:
        self.processes.append(
          subprocess.Popen(
            [
              *(sys.executable, "-m", "tests.faults.child", "{}"),
              *(*arguments, *(flags if count > 1 else [])),
            ],
            cwd=ROOT,
            env=harness.environment(devices),
            stdout=output,
            stderr=subprocess.STDOUT,
          )
        )

  def wait(self, seconds: float) -> list[int | None]:
    """Exit codes; None for what has not ended, and then is killed."""
    end = time.monotonic() + seconds
    codes = []
    for process in self.processes:
      with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(end - time.monotonic(), 0.0))
      codes.append(process.poll())
    for process in self.processes:
      process.kill()
      process.wait()
    return codes

  def must(self) -> None:
    """The run to its end."""
    if any(codes := self.wait(_SLOWEST_SECONDS)):
      tails = [log.read_text()[-2000:] for log in self.logs]
      raise SystemExit(f"exit codes {codes}:\n" + "\n".join(tails))


def strike(
  group: Group, rng: random.Random, longest: float
) -> dict[str, Any] | None:
  """Signals one process after a while; None if the run was over before."""
  # One that dies before all have joined is waited for, by JAX.
  while "processes: " not in group.logs[0].read_text()[group.start :]:
    assert group.processes[0].poll() is None, group.logs[0].read_text()[-2000:]
    time.sleep(0.1)
  delay = rng.uniform(0, longest)
  victim = rng.randrange(len(group.processes))
  number = signal.SIGTERM if rng.random() < 0.25 else signal.SIGKILL
  with contextlib.suppress(subprocess.TimeoutExpired):
    group.processes[victim].wait(delay)
    return None
  group.processes[victim].send_signal(number)
  sent = time.monotonic()
  codes = group.wait(_ENDING_SECONDS)
  own = codes.pop(victim)
  ended = {watchdog.RESTART}
  if number == signal.SIGTERM:  # saved, or before there was anything to save
    ended = {128 + signal.SIGTERM}
  is_right = own in (-number, 128 + number) and set(codes) <= ended
  return {
    "signal": signal.Signals(number).name,
    "process": victim,
    "after_seconds": round(delay, 1),
    "others": codes,
    "ended_within_seconds": round(time.monotonic() - sent, 1),
    "as_it_should": is_right,
  }


def largest_difference(one: Path, other: Path) -> float:
  """Between the parameters of two runs of equal steps."""
  trees = [
    zarr_arrays.open_tree(run / "checkpoints" / checkpoints(run)[-1] / "state")
    for run in (one, other)
  ]
  return max(
    float(np.abs(leaf.read() - trees[1][name].read()).max())
    for name, leaf in trees[0].items()
    if name.startswith("params/")
  )


def against_one_process(one: Path, few: Path) -> dict[str, Any]:
  """How a run of several processes differs from that of a single one."""
  runs = [fingerprint(folder) for folder in (one, few)]
  losses = [
    [
      line["train/loss"]
      for line in run["metrics.jsonl"]
      if "train/loss" in line
    ]
    for run in runs
  ]
  names = differences(*runs)
  texts = [n for n in runs[0] if n.startswith(("predictions/", "samples/"))]
  return {
    "not_bit_identical": len(names),
    "of": len(runs[0]),
    "texts_that_differ": len(set(names) & set(texts)),
    "texts": len(texts),
    "largest_relative_difference_of_losses": max(
      abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)
    ),
    "largest_difference_of_parameters": largest_difference(one, few),
  }


def soak(
  harness: Harness, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
  """The trials, and what else was found."""
  count, folder = args.processes, harness.folder

  def arguments(run: str, steps: int) -> list[str]:
    return harness.arguments(
      run, f"--gin.TRAIN_STEPS={steps}", "--gin.REPORT_PERIOD=10"
    )

  found: dict[str, Any] = {}
  Group(harness, arguments("one", 12), 1, devices=count).must()
  began = time.monotonic()
  Group(harness, arguments("few", 12), count).must()
  start_seconds = time.monotonic() - began
  found["against_one_process"] = against_one_process(
    folder / "one", folder / "few"
  )
  print(found, flush=True)
  began = time.monotonic()
  Group(harness, arguments("alone", args.steps), count).must()
  found["seconds_alone"] = round(time.monotonic() - began)
  print("the run that is left alone is done", flush=True)
  # The last kill comes after four fifths of the steps, on average.
  longest = (
    args.longest or 1.6 * found["seconds_alone"] / args.kills + start_seconds
  )
  trials: list[dict[str, Any]] = []
  rng = random.Random(args.seed)
  began = time.monotonic()
  while len(trials) < args.kills:
    group = Group(harness, arguments("killed", args.steps), count)
    trial = strike(group, rng, longest)
    if trial is None:
      group.must()
      break
    trial["checkpoint"] = [None, *checkpoints(folder / "killed")][-1]
    trials.append(trial)
    print(f"{len(trials)}/{args.kills} · {trial}", flush=True)
  Group(harness, arguments("killed", args.steps), count).must()
  found["seconds_with_kills"] = round(time.monotonic() - began)
  runs = [fingerprint(folder / name) for name in ("alone", "killed")]
  found["differ_from_the_run_left_alone"] = differences(*runs)
  found["compared"] = len(runs[0])
  longer = arguments("killed", args.steps + args.steps // 5)
  last = strike(Group(harness, longer, count), rng, longest)
  before = checkpoints(folder / "killed")[-1]
  Group(harness, longer, count // 2).must()
  found["with_fewer_processes"] = {
    "processes": count // 2,
    "killed": last,
    "from": before,
    "to": checkpoints(folder / "killed")[-1],
  }
  return trials, found


def main() -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--processes", type=int, default=2)
  parser.add_argument("--kills", type=int, default=40)
  parser.add_argument("--steps", type=int, default=2600)
  parser.add_argument(
    "--longest", type=float, help="seconds until a signal, at most"
  )
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--output", default="results/reliability")
  args = parser.parse_args()
  started = time.monotonic()
  with tempfile.TemporaryDirectory() as scratch:
    harness = Harness(Path(scratch), undisturbed=False)
    trials, found = soak(harness, args)
  last = found["with_fewer_processes"]["killed"]
  wrong = [t for t in (*trials, last) if t and not t["as_it_should"]]
  report = {
    "arguments": sys.argv[1:],
    "date": datetime.date.today().isoformat(),
    "hardware": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    "processes": args.processes,
    "minutes": round((time.monotonic() - started) / 60),
    "signals": collections.Counter(trial["signal"] for trial in trials),
    "starts_from_a_checkpoint": sum(bool(t["checkpoint"]) for t in trials),
    "slowest_end_of_the_others_seconds": max(
      (trial["ended_within_seconds"] for trial in trials), default=None
    ),
    "not_as_they_should": len(wrong),
    **found,
    "trials": trials,
  }
  output = Path(args.output)
  output.mkdir(parents=True, exist_ok=True)
  file = output / f"soak_{args.processes}_processes.json"
  file.write_text(json.dumps(report, indent=2) + "\n")
  differ = found["differ_from_the_run_left_alone"]
  print(f"{len(trials)} signals, {len(wrong)} wrong; differs in {differ}")
  return int(bool(wrong or differ) or len(trials) < args.kills)


if __name__ == "__main__":
  sys.exit(main())
