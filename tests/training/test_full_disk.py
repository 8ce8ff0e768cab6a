"""A full disk is one line; the same command goes on once there is space."""

import errno
import os
import shutil

import pytest

from gkd.checkpoints import checksums
from gkd.checkpoints.native import native_arrays
from gkd.checkpoints.store import Store
from gkd.training import loop
from gkd.training import run_description
from gkd.training import writers
from gkd.types import UserError
from tests.tiny import assert_identical
from tests.tiny import make_run
from tests.tiny import records

FULL = r"cannot write to .*; what was saved stands, and the same command"


@pytest.fixture
def make(caches):
  return lambda folder: make_run(folder, caches, sample=2)


def check_same(state, folder, undisturbed):
  assert_identical(state, undisturbed[0])
  assert records(folder) == records(undisturbed[1])
  steps = Store(folder / "checkpoints").steps()
  assert steps == Store(undisturbed[1] / "checkpoints").steps()


# What is free, as a part of what the run needs: nearly nothing, a part of the
# first checkpoint, then of later ones. Not nearly all: what a failed save
# leaves counts as used, and the next one begins by removing it.
@pytest.mark.filterwarnings(
  "error::pytest.PytestUnhandledThreadExceptionWarning"
)
def test_a_disk_that_fills_up_and_is_freed(small_disk, make, undisturbed):
  needed = sum(f.stat().st_blocks * 512 for f in undisturbed[1].rglob("*"))
  disk = small_disk("8m")
  folder, ballast = disk / "run", disk / "ballast"
  last = []
  for part in (0.02, 0.2, 0.45, 0.6):
    used = sum(f.stat().st_blocks * 512 for f in folder.rglob("*"))
    space = shutil.disk_usage(disk)
    wanted = int(part * needed) - used
    with ballast.open("wb") as file:
      file.write(bytes(max(space.free - wanted, 0)))
    with pytest.raises(UserError, match=FULL) as error:
      loop.train(make(folder))
    assert "No space left on device" in str(error.value)
    assert "\n" not in str(error.value)
    last.append(Store(folder / "checkpoints").latest_step() or 0)
    ballast.unlink()
  assert last[0] == 0 < last[-1] < 6
  assert last == sorted(last)
  check_same(loop.train(make(folder)), folder, undisturbed)


def no_space(*_, **__):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_space_in_tensorstore(*_, **__):
  raise ValueError(
    'RESOURCE_EXHAUSTED: Error writing "d/1" [system error: No space left on'
    " device]"
  )


@pytest.mark.parametrize(
  ("module", "name", "raising"),
  [
    (writers.Writers, "scalars", no_space),
    (writers.Writers, "samples", no_space),
    (writers.Writers, "sync", no_space),
    (native_arrays, "save_async", no_space_in_tensorstore),
    (checksums, "write_hashes", no_space),
  ],
)
def test_wherever_there_is_no_space(
  tmp_path, make, undisturbed, monkeypatch, module, name, raising
):
  """At the second call, when there is a checkpoint or a line already."""
  original, calls = getattr(module, name), []

  def once(*args, **kwargs):
    calls.append(1)
    return (raising if len(calls) == 2 else original)(*args, **kwargs)

  with monkeypatch.context() as patched:
    patched.setattr(module, name, once)
    with pytest.raises(UserError, match=FULL):
      loop.train(make(tmp_path))
  check_same(loop.train(make(tmp_path)), tmp_path, undisturbed)


def test_a_folder_that_may_not_be_written(tmp_path, make, monkeypatch):
  def read_only(*_, **__):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

  monkeypatch.setattr(run_description, "write", read_only)
  with pytest.raises(UserError, match=FULL + r".*Read-only file system"):
    loop.train(make(tmp_path))
