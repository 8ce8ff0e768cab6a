"""A `gkd` process that dies at a chosen moment, as by `kill -9`.

Nothing in the library knows of this: the phases of the loop are found by
wrapping the timer that the loop itself uses, and the background half of a save
by wrapping what the store calls.

  python -m tests.faults.child \
    '{"phase": "sample", "count": 3, "delay": 0.01}' \
    train --gin_file=test/distill.gin …

`delay` seconds after the `count`-th time that the phase begins, the process
kills itself with SIGKILL (or the `signal` of the moment). Phases: data, sample,
update, evaluate, checkpoint (as the loop times them), commit (a save's second
half, in the background), line (a line of metrics.jsonl), anywhere (the whole
life of the process).
With {"record": FILE} nothing dies and the seconds of each phase are written
down, from which moments are drawn.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import types
from typing import Any


class Watch:
  """Counts the beginnings of phases and fires at one of them."""

  def __init__(self, moment: dict[str, Any]):
    self.moment = moment
    self.seconds: dict[str, list[float]] = {}
    self.counts: dict[str, int] = {}

  @contextlib.contextmanager
  def phase(self, name: str) -> Iterator[None]:
    self.counts[name] = self.counts.get(name, 0) + 1
    moment = self.moment
    if (name, self.counts[name]) == (moment.get("phase"), moment.get("count")):
      self.strike(moment["delay"], moment.get("signal", int(signal.SIGKILL)))
    started = time.perf_counter()
    try:
      yield
    finally:
      spent = time.perf_counter() - started
      self.seconds.setdefault(name, []).append(spent)

  def strike(self, delay: float, number: int) -> None:
    """Sends the signal after `delay` seconds, whatever else goes on."""

    def fire():
      time.sleep(delay)
      os.kill(os.getpid(), number)

    if delay > 0:
      threading.Thread(target=fire, daemon=True).start()
    else:
      os.kill(os.getpid(), number)

  def wrap(self, owner: Any, attribute: str, name: str) -> None:
    """Makes every call of `owner.attribute` a phase."""
    original = getattr(owner, attribute)

    def wrapped(*args, **kwargs):
      with self.phase(name):
        return original(*args, **kwargs)

    setattr(owner, attribute, wrapped)


def install(watch: Watch) -> None:
  """Wraps what the loop, the recorder and the store call."""
  from gkd.checkpoints import store
  from gkd.training import telemetry
  from gkd.training import writers

  timed = telemetry.PhaseTimer.__call__

  @contextlib.contextmanager
  def watched(self, phase, **options):
    with timed(self, phase, **options), watch.phase(phase):
      yield

  telemetry.PhaseTimer.__call__ = watched
  watch.wrap(store.Store, "_finish", "commit")
  watch.wrap(writers.Writers, "scalars", "line")


def keep_compiled_programs() -> None:
  """Has JAX keep what any process compiles, not only the first one.

  On a CPU the programs of the others have keys of their own: the hash of the
  topology in them is that of the process. Each start would compile them again.
  `jax_share_binary_between_hosts` looks for programs by the same keys.
  """
  from jax._src import compiler

  first = types.SimpleNamespace(process_id=0, client=None)
  compiler.distributed = types.SimpleNamespace(global_state=first)


def run(moment: dict[str, Any], arguments: Sequence[str]) -> int:
  """The command; does not return if its moment comes."""
  watch = Watch(moment)
  # As the command does, before a library that is imported here does.
  logging.basicConfig(format="%(message)s", stream=sys.stderr)
  with watch.phase("anywhere"):
    from gkd.cli.main import main

    install(watch)
    keep_compiled_programs()
    code = main(arguments)
  if "record" in moment:
    with open(moment["record"], "w", encoding="utf-8") as file:
      json.dump(watch.seconds, file)
  return code


if __name__ == "__main__":
  sys.exit(run(json.loads(sys.argv[1]), sys.argv[2:]))
