"""Where a model can go, and that nothing is left where it could not."""

import pytest

from gkd import locks
from gkd.checkpoints import atomic_dir
from gkd.checkpoints import conversion
from gkd.checkpoints import source
from gkd.checkpoints.native import native_checkpoint
from gkd.types import UserError
from tests.checkpoints import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("destinations") / "model"
  folder.mkdir()
  native_checkpoint.write(folder, tiny_models.make())
  return folder


def left_in(folder):
  return sorted(entry.name for entry in folder.iterdir())


def test_nothing_is_replaced_and_an_empty_folder_is_filled(model, tmp_path):
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "thesis.tex").write_text("x")
  (tmp_path / "file").write_text("x")
  (tmp_path / "link").symlink_to(tmp_path / "gone")
  for name in ("full", "file", "link"):
    with pytest.raises(UserError, match=r"exists and nothing is replaced"):
      conversion.convert(model, tmp_path / name, to="gkd")
  (tmp_path / "empty").mkdir()
  conversion.convert(model, tmp_path / "empty", to="gkd")
  source.open_checkpoint(tmp_path / "empty")
  assert left_in(tmp_path) == ["empty", "file", "full", "link"]
  assert left_in(tmp_path / "full") == ["thesis.tex"]


def test_the_source_stays_as_it_is(model, tmp_path):
  """A folder in it would be no part of what its hashes say."""
  (tmp_path / "link").symlink_to(model)
  before = tiny_models.files_of(model)
  for folder, out in (
    (model, model / "out"),
    (model, model / "deep" / "er" / "out"),
    (model, tmp_path / "link" / "out"),
    (tmp_path / "link", model / ".." / model.name / "out"),
  ):
    with pytest.raises(UserError, match=r"is in .*/model, the folder to conv"):
      conversion.convert(folder, out, to="gkd")
  assert tiny_models.files_of(model) == before
  assert not (model / "deep").exists()


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("n" * 250, r"cannot write .*\(File name too long\); give another"),
    ("n" * 300 + "/out", r"cannot write .*\(File name too long\); give"),
    ("file/deep/out", r"cannot write .*/out, since .*/file is a file; give"),
    ("loop/out", r"cannot write .*; give a"),
    ("/proc/foo", r"cannot write to /proc \(.*; give a folder that can be"),
  ],
)
def test_a_place_where_nothing_can_be_is_one_line(
  model, tmp_path, name, message
):
  (tmp_path / "file").write_text("x")
  (tmp_path / "loop").symlink_to("loop")
  with pytest.raises(UserError, match=message) as error:
    conversion.convert(model, tmp_path / name, to="gkd")
  assert "\n" not in str(error.value)
  assert left_in(tmp_path) == ["file", "loop"]


def test_a_folder_that_may_not_be_written_to_is_refused(
  model, tmp_path, monkeypatch
):
  monkeypatch.setattr(atomic_dir.os, "access", lambda *_: False)
  with pytest.raises(UserError, match=r"since .* may not be written to; give"):
    conversion.convert(model, tmp_path / "deep" / "out", to="gkd")


def test_what_others_put_there_meanwhile_is_kept(model, tmp_path):
  out = tmp_path / "deep" / "out"
  planned = conversion.plan(model, to="t5x")
  name, leaf = list(planned.checkpoint.leaves.items())[-1]

  def read():
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    return leaf.read()

  planned.checkpoint.leaves[name] = type(leaf)(leaf.shape, leaf.dtype, read)
  with pytest.raises(UserError, match="exists and nothing is replaced"):
    conversion.write(planned, out)
  assert left_in(tmp_path / "deep") == ["out"]
  assert left_in(out) == ["thesis.tex"]


def test_two_at_once_are_refused(model, tmp_path):
  with (
    locks.hold(tmp_path / ".out.lock", "x"),
    pytest.raises(UserError, match=r"out is in use by process"),
  ):
    conversion.convert(model, tmp_path / "out", to="gkd")
  assert not (tmp_path / "out").exists()
