"""What the system refuses is one line; what our code does wrong is not."""

import errno
import os
import re

import pytest

from gkd import disk_errors
from gkd.errors import UserError


def fail(*args):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, args[-1:]))


def caused():
  try:
    fail("x")
  except OSError as error:
    raise RuntimeError("a library's own") from error


def quoted():
  raise ValueError("RESOURCE_EXHAUSTED: [OS error: No space left on device]")


def grouped():
  raise ExceptionGroup("several", [KeyError("a"), OSError(errno.EROFS, "x")])


@pytest.mark.parametrize("raising", [fail, caused, quoted, grouped])
def test_a_full_disk_is_one_line_however_it_is_told(raising):
  with (
    pytest.raises(UserError, match=r"cannot write y: .*(free some|read and)"),
    disk_errors.explaining("cannot write y"),
  ):
    raising()


@pytest.mark.parametrize(
  ("number", "remedy"),
  [
    (errno.EMFILE, "ulimit -n"),
    (errno.EFBIG, "ulimit -f"),
    (errno.EIO, "look after the disk"),
    (errno.ESTALE, "mount the file server again"),
    (errno.EACCES, "give a place that may be read"),
    (errno.ENAMETOOLONG, "give a shorter name"),
  ],
)
def test_what_the_system_refuses_has_its_own_remedy(number, remedy):
  text = os.strerror(number)
  for error in (OSError(number, text, "x"), ValueError(f"INTERNAL: [{text}]")):
    told = disk_errors.reason(error)
    assert re.search(f"{text}; .*{remedy}", told)
    assert "space" not in told


def bug():
  raise KeyError("a bug")


def bug_about_a_refusal():
  raise TypeError(f"not {os.strerror(errno.EACCES)!r}")


def bug_in_the_handling():
  try:
    fail("x")
  except OSError:
    bug()


def out_of_memory():
  raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes")


def mistake():
  raise UserError(os.strerror(errno.ENOSPC))


def missing():
  raise FileNotFoundError(errno.ENOENT, "No such file", "x")


@pytest.mark.parametrize(
  ("raising", "kind"),
  [
    (bug, KeyError),
    (bug_about_a_refusal, TypeError),
    (bug_in_the_handling, KeyError),
    (out_of_memory, RuntimeError),
    (missing, OSError),
    (mistake, UserError),
  ],
)
def test_other_errors_stay_what_they_are(raising, kind):
  with pytest.raises(kind) as error, disk_errors.explaining("cannot write y"):
    raising()
  assert "cannot write y" not in str(error.value)
