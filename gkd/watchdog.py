"""Notes where a process is, and ends it when the run cannot go on.

A process that waits for one that is gone, or stuck, waits for ever: no
exception comes out of a collective on an accelerator. A thread of each process
says on a board, which process 0 keeps, where it is, and reads what the others
say. It ends its process with a sentence and `RESTART`, for which a scheduler
starts the same command again, when

  another one has shown no sign of life for `LOST_SECONDS`,
  another one has failed: then with its exit code and its message,
  nobody moves on for `limit_seconds`: it says who is stuck and where, and
  prints the stacks of all threads.

A single process that is stuck is warned of, with its stacks, and not ended.

  of_process.at("update", step=7)
"""

from collections.abc import Iterator
import contextlib
import ctypes
import faulthandler
import json
import logging
import os
import signal
import socket
import threading
import time
from typing import Any

log = logging.getLogger("gkd")

RESTART = 75  # EX_TEMPFAIL of sysexits.h
STUCK_SECONDS = 1800.0  # without progress, unless a run says another time
BEAT_SECONDS = 2.0
LOST_SECONDS = 30.0
# After an exception, which may come of a process that is gone.
_SUSPECT_SECONDS = 4 * BEAT_SECONDS
# For the others to end by themselves, as they fail of the same cause.
_GRACE_SECONDS = 5 * BEAT_SECONDS
_BOARD = "gkd/board/"
_STDERR = 2


class Watchdog:
  """Where this process is, and the thread that looks after the others.

  Attributes:
    limit_seconds: without progress for so long is stuck; 0 for no limit.
    saved: step of the newest checkpoint that this process knows of.
  """

  def __init__(self):
    self.limit_seconds = 0.0
    self.saved: int | None = None
    self.has_failed = False
    self._index, self._count, self._client = 0, 1, None
    self._coordinator = ""
    self._waits_for_others = 0.0
    self._lost_seconds = LOST_SECONDS
    self._moves, self._moved = 0, time.monotonic()
    self._step, self._phase = 0, "start-up"
    self._beats = 0
    self._left: dict[str, Any] | None = None
    self._board: dict[int, dict[str, Any]] = {}
    self._signs: dict[int, tuple[Any, float]] = {}
    self._thread: threading.Thread | None = None
    self._stopped = threading.Event()

  def at(self, phase: str, step: int | None = None) -> None:
    """Notes that this process begins a phase, which is progress."""
    self._phase = phase
    self._step = self._step if step is None else step
    self._moves, self._moved = self._moves + 1, time.monotonic()

  def await_others(self, seconds: float) -> None:
    """For JAX's wait until all processes have come, which ends in an abort."""
    self._waits_for_others = seconds
    _on_abort(self._abort)

  def join(self, index: int, count: int, client: Any, coordinator: str) -> None:
    """Looks after the other processes from now on, over JAX's service."""
    self._index, self._count, self._client = index, count, client
    self._coordinator = coordinator
    self._waits_for_others = 0.0
    self._publish()  # one that dies before its first beat is missed, too
    self._start()

  @contextlib.contextmanager
  def limited(self, seconds: float) -> Iterator[None]:
    """While it is open, no progress for so long means stuck."""
    self.at("start-up", 0)
    self.limit_seconds = seconds
    if seconds:
      self._start()
    try:
      yield
    finally:
      self.limit_seconds = 0.0
      if self._count == 1:
        self.stop()

  def stop(self) -> None:
    """Ends the thread."""
    self._stopped.set()
    if self._thread is not None:
      self._thread.join()
    self._thread = None

  def suspect(self) -> None:
    """Waits until another process would be found to be lost.

    For the moment of an exception that may have come of it: then it does not
    return.
    """
    if self._count > 1:
      self._lost_seconds = _SUSPECT_SECONDS
      time.sleep(_SUSPECT_SECONDS + 2 * BEAT_SECONDS)

  def fail(self, code: int, text: str) -> None:
    """Tells the others that this process ends alone, with this exit code."""
    self.has_failed = True
    self._left = {"code": code, "text": text}
    self._publish()

  def end(self, code: int) -> None:
    """Ends the process at once; process 0 when the others have read why."""
    if self._index == 0:
      end = time.monotonic() + _GRACE_SECONDS + 2 * BEAT_SECONDS
      while time.monotonic() < end and not self._others_left():
        time.sleep(BEAT_SECONDS / 4)
    os._exit(code)

  def _start(self) -> None:
    if self._thread is None:
      self._stopped.clear()
      self._thread = threading.Thread(target=self._watch, daemon=True)
      self._thread.start()

  def _watch(self) -> None:
    while not self._stopped.wait(BEAT_SECONDS):
      self._beats += 1
      if self._client is not None:
        self._publish()
        self._read()
        self._end_if_lost()
      still = time.monotonic() - self._moved
      if self.limit_seconds and still > self.limit_seconds:
        self._stuck(still)

  def _publish(self) -> None:
    """Writes this process on the board."""
    content = {
      "beats": self._beats,
      "moves": self._moves,
      "host": socket.gethostname(),
      "where": self._where,
      "saved": self.saved,
      "left": self._left,
    }
    with contextlib.suppress(Exception):  # the service ends with process 0
      key = f"{_BOARD}{self._index}"
      self._client.key_value_set(key, json.dumps(content), True)

  def _read(self) -> None:
    """Reads what is on the board, by process."""
    with contextlib.suppress(Exception):
      entries = self._client.key_value_dir_get(_BOARD)
      self._board = {
        int(key.rpartition("/")[2]): json.loads(text) for key, text in entries
      }

  @property
  def _where(self) -> str:
    return f"step {self._step + 1}, {self._phase}"

  def _silence(self, index: int) -> float:
    """Seconds since another process gave a sign of life, or since it left."""
    entry, now = self._board[index], time.monotonic()
    sign = "left" if entry["left"] else entry["beats"]
    if self._signs.get(index, (None, now))[0] != sign:
      self._signs[index] = sign, now
    return now - self._signs[index][1]

  def _end_if_lost(self) -> None:
    """Ends this process if another one has failed or is gone."""
    for index in self._board.keys() - {self._index}:
      entry, seconds = self._board[index], self._silence(index)
      if left := entry["left"]:
        if seconds > _GRACE_SECONDS:
          self._end_all(left["code"], f"process {index}: {left['text']}")
      elif seconds > self._lost_seconds:
        self._end_all(
          RESTART,
          f"process {index} of {self._count} on {entry['host']} died or cannot"
          f" be reached: no sign of life for {seconds:.0f} s, last seen at"
          f" {entry['where']}",
        )

  def _stuck(self, seconds: float) -> None:
    """Says who has not moved on, and prints the stacks."""
    text = f"no progress for {seconds:.0f} s: "
    if self._count == 1:
      log.warning("%sstuck at %s; its threads are at", text, self._where)
      faulthandler.dump_traceback(_STDERR)
      self._moved = time.monotonic()
      return
    # All do the same things in the same order: who has done least holds up.
    fewest = min(entry["moves"] for entry in self._board.values())
    text += ", ".join(
      f"process {index} on {entry['host']} is stuck at {entry['where']}"
      for index, entry in sorted(self._board.items())
      if entry["moves"] == fewest
    )
    os.write(_STDERR, f"process {self._index} at {self._where}:\n".encode())
    faulthandler.dump_traceback(_STDERR)
    self._end_all(RESTART, text)

  def _end_all(self, code: int, text: str) -> None:
    """Ends this process, and tells the others why."""
    self._say(text, code)
    if not self.has_failed:
      self.fail(code, text)
    self.end(code)

  def _say(self, text: str, code: int = RESTART) -> None:
    """Prints a line, past buffers that the main thread may hold."""
    # The writer alone knows which save is complete.
    saved = self._board.get(0, {}).get("saved", self.saved)
    if code == RESTART and saved:
      text += f"; the same command goes on from checkpoint {saved}"
    elif code == RESTART:
      text += "; no checkpoint was saved yet: the same command begins again"
    os.write(_STDERR, f"\ngkd: {text}\n".encode())

  def _others_left(self) -> bool:
    self._read()
    return all(
      self._board[i]["left"] or self._silence(i) > _SUSPECT_SECONDS
      for i in self._board.keys() - {self._index}
    )

  def _abort(self) -> None:
    """JAX aborts where its service, in process 0, is gone; other aborts go on.

    It runs in the thread that aborts.
    """
    if seconds := self._waits_for_others:
      text = f"not all processes have joined within {seconds:.0f} s"
      remedy = "see that all are started and can reach process 0"
      os.write(_STDERR, f"\ngkd: {text}; {remedy}\n".encode())
      os._exit(RESTART)
    host, _, port = self._coordinator.rpartition(":")
    with contextlib.suppress(OSError):
      socket.create_connection((host.strip("[]"), int(port)), 2.0).close()
      return
    self._say(f"process 0 of {self._count} at {host} died or cannot be reached")
    os._exit(RESTART)


def _on_abort(function: Any) -> None:
  """Has SIGABRT call a function.

  A handler of Python's own would come too late: the process is gone when the
  interpreter looks for signals.
  """
  kind = ctypes.CFUNCTYPE(None, ctypes.c_int)
  _kept.append(kind(lambda number: function()))
  set_handler = ctypes.CDLL(None).signal
  set_handler.argtypes = [ctypes.c_int, kind]
  set_handler.restype = ctypes.c_void_p
  set_handler(signal.SIGABRT, _kept[-1])


_kept: list[Any] = []  # what C code calls must not be collected
of_process = Watchdog()
