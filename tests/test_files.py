"""A file is there whole or not at all, and a full disk is one line."""

import errno
import os

import pytest

from gkd import files
from gkd.errors import UserError


def test_text_is_there_whole_and_nothing_beside_it(tmp_path):
  path = tmp_path / "page.html"
  path.write_text("old")
  files.write_text(path, "new ‖")
  assert path.read_text("utf-8") == "new ‖"
  assert os.listdir(tmp_path) == ["page.html"]


def test_failure_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
  path = tmp_path / "page.html"
  path.write_text("old")

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", full)
  with (
    pytest.raises(UserError, match=r"cannot write \(No space left on device\)"),
    files.explaining("cannot write"),
  ):
    files.write_text(path, "new")
  assert path.read_text() == "old"
  assert os.listdir(tmp_path) == ["page.html"]
