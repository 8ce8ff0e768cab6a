"""Programs that take turns: one works while the others wait for their turn.

So both are measured in one run, on a machine whose speed drifts, and neither
runs beside the other.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np


class Worker:
  """The side of a program that is measured; what it prints goes to stderr."""

  def __init__(self):
    self._replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

  def wait(self) -> str:
    """The name of the next turn; "" after the last."""
    return sys.stdin.readline().strip()

  def reply(self, **values: Any) -> None:
    """Ends a turn; adds the most memory held so far."""
    values["peak_rss_bytes"] = (
      resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(json.dumps(values), file=self._replies, flush=True)


def serve(make: Callable[[argparse.Namespace], Any]) -> None:
  """Takes the steps that turns ask for, methods of what `make` returns.

  Args:
    make: called with the options, which stand as JSON after the program's name.
  """
  worker = Worker()
  steps = make(argparse.Namespace(**json.loads(sys.argv[1])))
  while turn := worker.wait():
    worker.reply(**getattr(steps, turn)())


class Peer:
  """A program that is measured, in a process of its own."""

  def __init__(self, module: str, *arguments: str):
    command = [sys.executable, "-m", module, *arguments]
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

  def turn(self, name: str) -> dict[str, Any]:
    """What it replies to a turn; waits for it."""
    print(name, file=self._process.stdin, flush=True)
    line = self._process.stdout.readline()
    assert line, f"exit status {self._process.wait()}"
    return json.loads(line)

  def end(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def take(
  peers: Mapping[str, Peer], turn: str, steps: int = 1
) -> dict[str, Any]:
  """What each replies, one after the other; of several steps the medians."""
  replies = {}
  for name, peer in peers.items():
    first, *others = (peer.turn(turn) for _ in range(steps))
    for phase in _phases(first):
      for clock in first[phase]:
        values = (one[phase][clock] for one in (first, *others))
        first[phase][clock] = statistics.median(values)
    replies[name] = first
    print(turn, name, json.dumps(first), flush=True)
  return replies


def clocks() -> tuple[float, float]:
  """Wall and process CPU seconds, of all threads."""
  return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
  """Seconds since `clocks()`."""
  wall, cpu = (b - a for a, b in zip(start, clocks(), strict=True))
  return {"wall": wall, "cpu": cpu}


def summary(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Of each peer seconds of its phases, and memory.

  Phases are what it timed by `since`. Where `gkd` has the phase too, `ratio` is
  the seconds over `gkd`'s, by round.
  """
  result = {}
  for name, last in rounds[-1].items():
    result[name] = {"peak_rss_bytes": last["peak_rss_bytes"]}
    for phase in _phases(last):
      for clock in ("wall", "cpu"):
        of = {
          peer: np.array([replies[peer][phase][clock] for replies in rounds])
          for peer in {name, "gkd"}
          if phase in rounds[-1].get(peer, {})
        }
        entry = {"seconds": spread(of[name])}
        if "gkd" in of:
          entry["ratio"] = spread(of[name] / of["gkd"])
        result[name][f"{phase}_{clock}"] = entry
  return result


def _phases(reply: Mapping[str, Any]) -> list[str]:
  """What it timed; a phase that was skipped is empty."""
  return [key for key, value in reply.items() if value and type(value) is dict]


def spread(values: np.ndarray) -> dict[str, float]:
  """Least, median and most."""
  functions = {"min": np.min, "median": np.median, "max": np.max}
  return {name: float(f(values)) for name, f in functions.items()}
