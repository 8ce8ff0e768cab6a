"""Whole files, and a full disk in one line."""

import os
from pathlib import Path
import threading

import pytest

from gkd import files
from gkd.errors import UserError
from tests.test_disk_errors import fail


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / "a.txt"
  files.write_text(path, "before")
  with monkeypatch.context() as patched:
    patched.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
      files.write_text(path, "after")
  assert path.read_text() == "before"
  assert list(tmp_path.iterdir()) == [path]
  files.write_text(path, "after: ä")
  assert path.read_text("utf-8") == "after: ä"


def test_two_that_write_one_file_do_not_meet(tmp_path, monkeypatch):
  """The second starts and ends while the first is about to rename its file."""
  path = tmp_path / "a.txt"
  replace = os.replace

  def meanwhile(partial, target):
    if threading.current_thread() is threading.main_thread():
      other = threading.Thread(target=files.write_text, args=(path, "other"))
      other.start()
      other.join()
      assert path.read_text() == "other"
    replace(partial, target)

  monkeypatch.setattr(os, "replace", meanwhile)
  files.write_text(path, "mine")
  assert path.read_text() == "mine"
  assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_through_a_link(tmp_path, monkeypatch):
  mine = tmp_path / "mine"
  mine.write_text("x")
  monkeypatch.setattr(os, "getpid", lambda: 7)
  thread = threading.get_native_id()
  (tmp_path / f".a.7-{thread}.partial").symlink_to(mine)
  files.write_text(tmp_path / "a", "y")
  assert (mine.read_text(), (tmp_path / "a").read_text()) == ("x", "y")


@pytest.mark.parametrize(
  ("content", "mark", "is_free"),
  [(b"", b"", True), (b"x", b"", False), (b"ab", b"a", True), (b"b", b"a", 0)],
)
def test_only_files_of_the_same_command_are_replaced(
  tmp_path, content, mark, is_free
):
  file = tmp_path / "file"
  file.write_bytes(content)
  (tmp_path / "link").symlink_to(file)
  for path, free in ((file, is_free), (tmp_path / "link", False)):
    if free:
      files.check_file(str(path), "--output", mark)
      continue
    with pytest.raises(UserError, match="is there and not what this command"):
      files.check_file(str(path), "--output", mark)


@pytest.mark.parametrize("url", ["s3://b/c", "abfs+x://b/c", "file:///b/c"])
def test_a_url_is_no_path(url):
  with pytest.raises(UserError, match=r"is no path .* such as /mnt/b/c$"):
    files.local_path(url)


@pytest.mark.parametrize("path", ["a:b", "a:/b", "x/gs://b", "//b"])
def test_a_path_may_hold_a_colon(path, monkeypatch):
  monkeypatch.setenv("HOME", "/home/x")
  assert files.local_path(path) == Path(path)
  assert files.local_path(f"~/{path}") == Path("/home/x", path.lstrip("/"))


def test_the_name_on_the_way_is_the_process_own(tmp_path, monkeypatch):
  seen = []
  monkeypatch.setattr(os, "replace", lambda partial, _: seen.append(partial))
  files.write_text(tmp_path / "a", "")
  monkeypatch.setattr(os, "getpid", lambda: 7)
  files.write_text(tmp_path / "a", "")
  assert seen[0] != seen[1]
  assert seen[1].name.startswith(".a.7-")


@pytest.mark.parametrize(
  ("content", "told"),
  [
    ('{"n": ', r"a\.json is not JSON \(.*\); restore it"),
    ('{"n": 3, "x": "\\ud800"}', "a.json is not JSON .*surrogates not allowed"),
    ("[1]", r"a\.json is not a JSON object; restore it"),
    ('{"n": true}', "has n True; expected a whole number; restore it"),
    ('{"n": 1.5}', "has n 1.5; expected a whole number; restore it"),
    ('{"tied": "no"}', "has tied 'no'; expected true or false; restore it"),
    ('{"names": 5}', "has names 5; expected a list or an object; restore it"),
  ],
)
def test_json_of_another_kind_is_one_line(tmp_path, content, told):
  file = tmp_path / "a.json"
  types = {"n": int, "tied": bool, "names": (list, dict)}
  with pytest.raises(UserError, match="cannot be read"):
    files.read_json(file, types, "restore it")
  file.write_text(content)
  with pytest.raises(UserError, match=told):
    files.read_json(file, types, "restore it")
  files.write_json(file, {"tied": None, "n": 3})
  assert files.read_json(file, types) == {"n": 3, "tied": None}


def test_a_plain_name_is_no_path():
  assert files.is_plain_name("spiece.model")
  for name in ("", ".", "..", "/etc/passwd", "../a", "a/b", "a/", "a\0", 5):
    assert not files.is_plain_name(name), name
