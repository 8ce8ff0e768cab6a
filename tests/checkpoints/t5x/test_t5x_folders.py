"""Which folder is the checkpoint, and which is not one, or not whole."""

import json

import pytest

from gkd.checkpoints.t5x import t5x_folders
from gkd.types import UserError


def touch(path, text=""):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def orbax(folder):
  touch(folder / "state" / "_METADATA", "{}")
  for name in (".", "state", "dataset"):
    touch(folder / name / "commit_success.txt")
  about = {"commit_timestamp_nsecs": 7}
  touch(folder / "_CHECKPOINT_METADATA", json.dumps(about))
  return folder


def test_legacy_folder(tmp_path):
  index = touch(tmp_path / "checkpoint_7" / "checkpoint")
  found = t5x_folders.find(f"{tmp_path}/checkpoint_7/")
  assert (found.path, found.index) == (index.parent, index)
  assert (found.is_orbax, found.choice) == (False, "")


@pytest.mark.parametrize("given", ["", "state"])
def test_orbax_folder(tmp_path, given):
  folder = orbax(tmp_path / "checkpoint_7")
  found = t5x_folders.find(folder / given)
  assert found.path == folder
  assert found.index == folder / "state" / "_METADATA"
  assert found.is_orbax


def test_generation_between(tmp_path):
  """A msgpack file in `state`, and nothing marked as committed."""
  index = touch(tmp_path / "checkpoint_7" / "state" / "checkpoint")
  found = t5x_folders.find(tmp_path / "checkpoint_7")
  assert (found.path, found.index) == (tmp_path / "checkpoint_7", index)
  assert not found.is_orbax


def test_newest_of_a_run_by_number_and_said(tmp_path):
  for step in (900, 1000, 20):
    touch(tmp_path / f"checkpoint_{step}" / "checkpoint")
  touch(tmp_path / "checkpoint_2000.tmp-1700000000" / "checkpoint")
  touch(tmp_path / "checkpoint_5000x" / "checkpoint")
  touch(tmp_path / "config.gin")
  found = t5x_folders.find(tmp_path)
  assert found.path == tmp_path / "checkpoint_1000"
  assert found.choice == (
    f"checkpoint: checkpoint_1000, the newest of 3 in {tmp_path}"
  )


def test_home_folder_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  touch(tmp_path / "run" / "checkpoint_1" / "checkpoint")
  assert t5x_folders.find("~/run").path == tmp_path / "run" / "checkpoint_1"


def _half_written(tmp_path):
  return touch(tmp_path / "checkpoint_7.tmp-17" / "checkpoint").parent


def _half_written_orbax(tmp_path):
  name = "checkpoint_7.orbax-checkpoint-tmp-12"
  return touch(tmp_path / name / "state" / "_METADATA").parent.parent


def _item_of_half_written(tmp_path):
  name = "state.orbax-checkpoint-tmp"
  return touch(tmp_path / name / "_METADATA").parent


def _half_written_alone(tmp_path):
  return _half_written(tmp_path).parent


def _no_msgpack(tmp_path):
  array = touch(tmp_path / "checkpoint_7" / "target.a.b" / ".zarray")
  return array.parent.parent


def _no_index_in_state(tmp_path):
  return touch(tmp_path / "checkpoint_7" / "state" / "d" / "0").parents[2]


def _uncommitted(name):
  def make(tmp_path):
    folder = orbax(tmp_path / "checkpoint_7")
    (folder / name / "commit_success.txt").unlink()
    return folder

  return make


def _never_finished(tmp_path):
  folder = orbax(tmp_path / "checkpoint_7")
  about = {"commit_timestamp_nsecs": None}
  touch(folder / "_CHECKPOINT_METADATA", json.dumps(about))
  return folder


def _damaged_metadata(tmp_path):
  folder = orbax(tmp_path / "checkpoint_7")
  touch(folder / "_CHECKPOINT_METADATA", '{"commit_times')
  return folder


def _tensorflow(tmp_path):
  touch(tmp_path / "model.ckpt-0.index")
  return touch(tmp_path / "checkpoint", "model_checkpoint_path: …").parent


def _another(tmp_path):
  return touch(tmp_path / "notes.txt").parent


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda path: path / "none", "none does not exist"),
    (_half_written, "checkpoint_7.tmp-17 is a half-written checkpoint"),
    (_half_written_orbax, "tmp-12 is a half-written checkpoint"),
    (_item_of_half_written, "state.orbax-checkpoint-tmp is a half-written"),
    (_half_written_alone, r"only half-written .*\(checkpoint_7.tmp-17, …\)"),
    (_no_msgpack, "has arrays, but not the file 'checkpoint'"),
    (_no_index_in_state, "state has neither '_METADATA' nor 'checkpoint'"),
    (_uncommitted("."), "checkpoint_7/commit_success.txt is missing"),
    (_uncommitted("state"), "state/commit_success.txt is missing"),
    (_uncommitted("dataset"), "dataset/commit_success.txt is missing"),
    (_never_finished, "_CHECKPOINT_METADATA says .* never finished"),
    (_damaged_metadata, "_CHECKPOINT_METADATA cannot be read"),
    (_tensorflow, "is a TensorFlow checkpoint .*convert_tf_checkpoint.py"),
    (_another, "holds no T5X checkpoint"),
  ],
)
def test_what_is_not_whole_is_refused_in_one_line(tmp_path, make, message):
  path = make(tmp_path)
  with pytest.raises(UserError, match=message) as error:
    t5x_folders.find(path)
  assert "\n" not in str(error.value)
  assert str(tmp_path) in str(error.value)
