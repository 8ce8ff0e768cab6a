"""One process at a time."""

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import threading
import time

import pytest

from gkd import locks
from gkd.types import UserError


def _hold_forever(path, ready):
  with locks.hold(path, "the run"):
    ready.set()
    signal.pause()


@pytest.fixture
def other(tmp_path):
  """Another process that holds the lock; killed at the end."""
  context = multiprocessing.get_context("spawn")
  ready = context.Event()
  process = context.Process(
    target=_hold_forever, args=(tmp_path / ".lock", ready)
  )
  process.start()
  assert ready.wait(60)
  yield process
  process.kill()
  process.join()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, other):
  """And both who is refused and who asks are told who has the lock."""
  lock = tmp_path / ".lock"
  assert locks.holder(tmp_path / "none") is None
  assert str(other.pid) in locks.holder(lock)
  with (
    pytest.raises(UserError, match=f"the run is in use by process {other.pid}"),
    locks.hold(lock, "the run"),
  ):
    pass
  other.kill()
  other.join()
  assert locks.holder(lock) is None
  with locks.hold(lock, "the run"):
    assert str(os.getpid()) in locks.holder(lock)


@pytest.mark.parametrize("inherited", [False, True])
def test_a_child_may_hold_it_as_well_until_it_ends(tmp_path, inherited):
  lock = tmp_path / ".lock"
  with locks.hold(lock, "the grid", inherited=inherited):
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
  assert (locks.holder(lock) is not None) == inherited
  child.kill()
  child.wait()
  assert locks.holder(lock) is None


def test_waits_until_the_other_is_done(tmp_path, other, caplog):
  caplog.set_level("INFO", "gkd")
  killer = threading.Timer(0.3, other.kill)
  killer.start()
  with locks.hold(tmp_path / ".lock", "the cache", wait=True):
    other.join(10)
    assert not other.is_alive()
  assert f"waiting for process {other.pid}" in caplog.text


def test_who_only_asks_makes_nobody_fail(tmp_path, monkeypatch):
  lock = tmp_path / ".lock"
  lock.touch()
  with lock.open() as asking:
    fcntl.flock(asking, fcntl.LOCK_SH)
    pauses = []

    def pause(seconds):
      pauses.append(seconds)
      fcntl.flock(asking, fcntl.LOCK_UN)

    monkeypatch.setattr(locks.time, "sleep", pause)
    with locks.hold(lock, "the run"):
      assert str(os.getpid()) in lock.read_text()
  assert pauses == [0.05]


def test_one_that_is_removed_keeps_the_others_out_as_well(tmp_path):
  """Who waited for it has a file that is gone, and takes the next one."""
  lock = tmp_path / ".lock"
  inside, most, done = [], [], []

  def work():
    for _ in range(20):
      with locks.hold(lock, "it", wait=True, remove=True):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()
    done.append(1)

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(60)
  assert (len(done), len(most), max(most)) == (4, 80, 1)
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks(tmp_path, monkeypatch, code, wait):
  def flock(file, operation):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(fcntl, "flock", flock)
  with (
    pytest.raises(
      UserError, match=r"cannot lock .*lock \(.*a file system with"
    ),
    locks.hold(tmp_path / ".lock", "the run", wait=wait),
  ):
    pass


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(UserError, match=r"cannot write to .*give a folder"),
    locks.hold(tmp_path / "file" / ".lock", "the run"),
  ):
    pass


def test_a_lock_is_no_link_and_no_pipe(tmp_path):
  """A link at the name of a lock would have its file emptied."""
  mine, lock = tmp_path / "mine", tmp_path / ".lock"
  mine.write_text("x")
  lock.symlink_to(mine)
  for _ in range(2):
    with (
      pytest.raises(UserError, match="cannot write to"),
      locks.hold(lock, "it"),
    ):
      pass
    lock.unlink()
    os.mkfifo(lock)
  assert mine.read_text() == "x"
