"""Programs that take turns: one works while the others wait for their turn.

So both are measured in one run, on a machine whose speed drifts, and neither
runs beside the other.
"""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any


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


def clocks() -> tuple[float, float]:
  """Wall and process CPU seconds, of all threads."""
  return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
  """Seconds since `clocks()`."""
  wall, cpu = (b - a for a, b in zip(start, clocks(), strict=True))
  return {"wall": wall, "cpu": cpu}
