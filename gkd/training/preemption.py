"""SIGTERM and ctrl-C as a request: finish the step, save it, then stop.

A handler only takes note; the loop asks `stop.requested` where it may stop.
Work that can be done again, such as an evaluation, is left at once. Outside the
main thread Python allows no handlers, and signals do what they did before.

  with PreemptionHandler() as stop:
    while not stop.requested:
      …
      values = stop.run_preemptible(evaluate)  # None if a signal cut it short
  stop.check("after step 7")
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import signal
import threading
from typing import Any
from typing import TypeVar

from gkd import processes

T = TypeVar("T")
_STDERR = 2


class Interrupted(KeyboardInterrupt):
  """A run was asked to stop, and has saved what it did.

  Attributes:
    exit_code: what a command ends with, 128 + the number of the signal.
    is_agreed: all processes of the run stop at the same step.
  """

  def __init__(self, number: int, where: str, *, is_agreed: bool = False):
    name = "ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    super().__init__(
      f"stopped by {name} {where}; the same command goes on from there"
    )
    self.exit_code = 128 + number
    self.is_agreed = is_agreed


@contextlib.contextmanager
def terminable() -> Iterator[None]:
  """SIGTERM raises `Interrupted`, as ctrl-C raises KeyboardInterrupt.

  For work that may be left at any moment: locks, bars and worker processes are
  closed as they should be. A `PreemptionHandler` inside has precedence.
  """

  def leave(number: int, frame: Any) -> None:
    del frame
    raise Interrupted(number, "before it was done")

  if threading.current_thread() is not threading.main_thread():
    yield
    return
  before = signal.signal(signal.SIGTERM, leave)
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, before)


class _Abandoned(BaseException):
  """Leaves work that will be done again; never seen outside this module."""


class PreemptionHandler:
  """Takes note of SIGTERM and of the first ctrl-C while it is entered.

  Of several processes any may get the signal. They vote between steps, and a
  vote counts one step later, when all know its result: all of them stop there.

  Args:
    second: handler of the second ctrl-C; None for the one that was there, which
      raises KeyboardInterrupt. `signal.SIG_DFL` also ends a process that is
      inside a long compile.

  Attributes:
    requested: number of the first signal that came; None before, and before all
      processes know of it.
  """

  def __init__(self, second: Any = None):
    self._noted: int | None = None  # came to this process
    self._agreed: int | None = None
    self._votes: Any = 0  # under way
    self._second = second
    self._leave = False
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "PreemptionHandler":
    if threading.current_thread() is threading.main_thread():
      for number in (signal.SIGTERM, signal.SIGINT):
        self._before[number] = signal.signal(number, self._take_note)
    return self

  def __exit__(self, *exception) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  @property
  def requested(self) -> int | None:
    return self._noted if processes.count() == 1 else self._agreed

  def vote(self) -> None:
    """Counts the votes of the last call, and gives the next one."""
    if processes.count() > 1:
      self._agreed = self._agreed or int(self._votes) or None
      self._votes = processes.largest(self._noted or 0)

  def vote_to_leave(self) -> None:
    """The same; leaves the work of `run_preemptible` if a signal came."""
    self.vote()
    if self._agreed:
      raise _Abandoned

  def run_preemptible(self, work: Callable[[], T]) -> T | None:
    """What `work` returns; None if a signal came before its end.

    Args:
      work: changes nothing that is not done again by the next call of it. With
        several processes it calls `vote_to_leave` now and then.
    """
    try:
      try:
        self._leave = processes.count() == 1
        return None if self.requested else work()
      finally:
        self._leave = False
    except _Abandoned:
      return None

  def check(self, where: str) -> None:
    """Raises `Interrupted` if a signal came."""
    if self.requested:
      raise Interrupted(self.requested, where, is_agreed=True)

  def _take_note(self, number: int, frame: Any) -> None:
    del frame
    if number == signal.SIGINT:
      second = self._second or self._before[signal.SIGINT]
      signal.signal(signal.SIGINT, second)
    if self._noted is None:
      text = "finishing this step and saving it; a second ctrl-C stops at once"
      if number != signal.SIGINT:
        name = signal.Signals(number).name
        text = f"{name}: finishing this step and saving it"
      # Past the buffer of stderr, which the signal may have found in use.
      os.write(_STDERR, f"\n{text}\n".encode())
    self._noted = self._noted or number
    if self._leave:
      self._leave = False
      raise _Abandoned
