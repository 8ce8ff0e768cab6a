"""A folder is there whole or not at all; nothing is left where it failed."""

import pytest

from gkd import locks
from gkd.checkpoints import atomic_dir
from gkd.types import UserError
from tests.checkpoints import tiny_models


def left_in(folder):
  return sorted(entry.name for entry in folder.iterdir())


def write(destination, meanwhile=lambda: None):
  with atomic_dir.create(destination) as partial:
    (partial / "below").mkdir()
    (partial / "below" / "file").write_text("x")
    meanwhile()


@pytest.fixture
def source(tmp_path):
  """`source/model/weights`, beside what may be in the way."""
  folder = tmp_path / "source" / "model"
  folder.mkdir(parents=True)
  (folder / "weights").write_text("w")
  return folder


def test_nothing_is_replaced_and_an_empty_folder_is_filled(tmp_path, source):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "thesis.tex").write_text("x")
  (tmp_path / "file").write_text("x")
  (tmp_path / "link").symlink_to(tmp_path / "gone")
  for name in ("full", "file", "link"):
    for refuse in (atomic_dir.check, lambda _, to: write(to)):
      with pytest.raises(UserError, match=r"exists and nothing is replaced"):
        refuse(source, tmp_path / name)
  (tmp_path / "empty").mkdir()
  atomic_dir.check(source, tmp_path / "empty")
  write(tmp_path / "empty")
  assert tiny_models.files_of(tmp_path / "empty") == {"below/file": b"x"}
  assert left_in(tmp_path) == ["empty", "file", "full", "link", "source"]
  assert left_in(tmp_path / "full") == ["thesis.tex"]


def test_the_source_stays_as_it_is(tmp_path, source):
  """A folder in it would be no part of what its hashes say."""
  (tmp_path / "link").symlink_to(source)
  for folder, out in (
    (source, source / "out"),
    (source, source / "deep" / "er" / "out"),
    (source, tmp_path / "link" / "out"),
    (tmp_path / "link", source / ".." / source.name / "out"),
  ):
    with pytest.raises(UserError, match=r"is in .*/model, the folder to conv"):
      atomic_dir.check(folder, out)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("n" * 250, r"cannot write .*\(File name too long\); give another"),
    ("n" * 300 + "/out", r"cannot write .*\(File name too long\); give"),
    (
      "file/deep/out",
      r"cannot write .*/deep/out: folder .*/file is a file; give",
    ),
    ("loop/out", r"cannot write .*; give a"),
    ("/proc/foo", r"cannot write to /proc \(.*; give"),
  ],
)
def test_a_place_where_nothing_can_be_is_one_line(
  tmp_path, source, name, message
):
  (tmp_path / "file").write_text("x")
  (tmp_path / "loop").symlink_to("loop")

  def both():
    atomic_dir.check(source, tmp_path / name)
    write(tmp_path / name)

  with pytest.raises(UserError, match=message) as error:
    both()
  assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_written_to_is_refused(
  tmp_path, source, monkeypatch
):
  monkeypatch.setattr(atomic_dir.os, "access", lambda *_: False)
  with pytest.raises(
    UserError, match=r"cannot write .*/deep/out: .* cannot be written to; give"
  ):
    atomic_dir.check(source, tmp_path / "deep" / "out")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_middle_leaves_nothing(tmp_path, error):
  def fail():
    raise error("in the middle")

  with pytest.raises(error, match="in the middle"):
    write(tmp_path / "deep" / "er" / "out", fail)
  assert left_in(tmp_path) == []


def test_what_a_kill_left_is_cleaned_up(tmp_path, monkeypatch):
  with monkeypatch.context() as killed:
    killed.setattr(atomic_dir.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
      write(tmp_path / "out", interrupted)
  assert left_in(tmp_path) == [".out.partial"]
  (tmp_path / ".out.lock").write_text("process 1 on elsewhere")
  write(tmp_path / "out")
  assert left_in(tmp_path) == ["out"]
  assert tiny_models.files_of(tmp_path / "out") == {"below/file": b"x"}


def test_a_kill_before_the_mark_is_in_nobodys_way(tmp_path):
  (tmp_path / ".out.partial").mkdir()
  write(tmp_path / "out")
  assert left_in(tmp_path) == ["out"]


def interrupted():
  raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_another_program_has_under_the_temporary_name_stays(
  tmp_path, kind
):
  place, other = tmp_path / ".out.partial", tmp_path / "other"
  other.mkdir()
  (other / "thesis.tex").write_text("x")
  if kind == "link":
    place.symlink_to(other)
  else:
    other.rename(place)
  with pytest.raises(UserError, match="is in the way and of another program"):
    write(tmp_path / "out")
  assert left_in(place) == ["thesis.tex"]


def test_what_others_put_there_meanwhile_is_kept(tmp_path):
  out = tmp_path / "deep" / "out"

  def others():
    out.mkdir()
    (out / "thesis.tex").write_text("x")

  with pytest.raises(UserError, match="exists and nothing is replaced"):
    write(out, others)
  assert left_in(tmp_path / "deep") == ["out"]
  assert left_in(out) == ["thesis.tex"]


def test_two_at_once_are_refused(tmp_path):
  with (
    locks.hold(tmp_path / ".out.lock", "x"),
    pytest.raises(UserError, match=r"out is in use by process"),
  ):
    write(tmp_path / "out")
  assert not (tmp_path / "out").exists()
