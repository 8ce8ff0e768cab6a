"""Who is gone, has failed or is stuck is found on the board, and said."""

import json

import pytest

from gkd import watchdog
from gkd.watchdog import Watchdog


class Board:
  """JAX's key-value store, as far as the watchdog uses it."""

  def __init__(self):
    self.entries = {}

  def key_value_set(self, key, value, allow_overwrite):
    assert allow_overwrite
    self.entries[key] = value

  def key_value_dir_get(self, folder):
    return [(k, v) for k, v in self.entries.items() if k.startswith(folder)]


class Ended(BaseException):
  """What the test has in place of the end of the process."""


@pytest.fixture
def clock(monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
  monkeypatch.setattr(watchdog.os, "_exit", _exit)
  return now


def _exit(code):
  raise Ended(code)


@pytest.fixture
def two(clock):
  """The watchdog of process 1, and what process 0 writes on the board."""
  dog, board = Watchdog(), Board()
  dog._index, dog._count, dog._client = 1, 2, board
  content = {"host": "a", "where": "step 7, data", "moves": 5, "saved": 4}

  def other(**changes):
    content.update(changes)
    board.entries["gkd/board/0"] = json.dumps({"left": None} | content)

  return dog, other


def look(dog):
  """What the thread does at each beat."""
  dog._publish()
  dog._read()
  dog._end_if_lost()


def test_a_process_without_a_sign_of_life_ends_the_others(two, clock, capfd):
  dog, other = two
  for beats in range(3):
    other(beats=beats)
    look(dog)
    clock[0] += watchdog.LOST_SECONDS
  clock[0] += 1
  with pytest.raises(Ended, match="75"):
    look(dog)
  said = capfd.readouterr().err
  assert "process 0 of 2 on a died or cannot be reached: no sign" in said
  assert "last seen at step 7, data; the same command goes on from" in said
  assert said.endswith("checkpoint 4\n")


def test_a_process_is_on_the_board_before_its_first_beat(clock):
  dog, board = Watchdog(), Board()
  dog.join(1, 2, board, "host:1")
  dog.stop()
  assert list(board.entries) == ["gkd/board/1"]


def test_a_process_that_failed_ends_the_others_with_its_code(two, clock, capfd):
  dog, other = two
  other(beats=1)
  look(dog)
  other(beats=2, left={"code": 2, "text": "the disk is full"})
  look(dog)  # it has a moment, as the others may fail of the same cause
  clock[0] += watchdog.LOST_SECONDS
  other(beats=3)
  with pytest.raises(Ended, match="2"):
    look(dog)
  assert capfd.readouterr().err.endswith("gkd: process 0: the disk is full\n")


def test_the_process_that_is_stuck_is_named_with_its_place(two, clock, capfd):
  dog, other = two
  for step in range(3):
    dog.at("update", step)
    dog.at("data", step + 1)
  other(beats=1)
  look(dog)
  clock[0] += 100
  with pytest.raises(Ended, match="75"):
    dog._stuck(100.0)
  said = capfd.readouterr().err
  assert "process 1 at step 4, data:" in said
  assert "in test_the_process_that_is_stuck_is_named" in said  # its stack
  assert "no progress for 100 s: process 0 on a is stuck at step 7" in said


def test_one_process_that_is_stuck_is_warned_of(monkeypatch, caplog, capfd):
  monkeypatch.setattr(watchdog, "BEAT_SECONDS", 0.01)
  dog = Watchdog()
  with dog.limited(0.05):
    dog.at("update", 2)
    while not caplog.messages:
      pass
  assert "stuck at step 3, update; its threads are at" in caplog.messages[0]
  assert "test_one_process_that_is_stuck" in capfd.readouterr().err
  assert dog._thread is None


def test_without_a_limit_one_process_has_no_thread():
  dog = Watchdog()
  with dog.limited(0):
    assert dog._thread is None
