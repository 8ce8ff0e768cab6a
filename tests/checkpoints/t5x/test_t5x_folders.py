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


@pytest.mark.parametrize(
  ("index", "given"),
  [
    ("checkpoint", ""),
    ("state/_METADATA", ""),
    ("state/_METADATA", "state"),
    # A generation between, in which nothing is marked as committed.
    ("state/checkpoint", ""),
  ],
)
def test_the_index_of_each_generation_is_found(tmp_path, index, given):
  folder = tmp_path / "checkpoint_7"
  if "_METADATA" in index:
    orbax(folder)
  touch(folder / index)
  found = t5x_folders.find(f"{folder / given}/")
  assert (found.path, found.index) == (folder, folder / index)
  assert found.is_orbax == ("_METADATA" in index)
  assert found.choice == ""


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


def _files(*names, given="."):
  def make(tmp_path):
    for name in names:
      touch(tmp_path / name)
    return tmp_path / given

  return make


def _orbax(change):
  def make(tmp_path):
    folder = orbax(tmp_path / "checkpoint_7")
    change(folder)
    return folder

  return make


def _uncommitted(name):
  return _orbax(lambda folder: (folder / name / "commit_success.txt").unlink())


def _metadata(text):
  return _orbax(lambda folder: touch(folder / "_CHECKPOINT_METADATA", text))


HALF = "checkpoint_7.tmp-17"
ORBAX_HALF = "checkpoint_7.orbax-checkpoint-tmp-12"
STATE_HALF = "state.orbax-checkpoint-tmp"


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (_files(given="none"), "none does not exist"),
    (
      _files(f"{HALF}/checkpoint", given=HALF),
      "checkpoint_7.tmp-17 is a half-written checkpoint",
    ),
    (
      _files(f"{ORBAX_HALF}/state/_METADATA", given=ORBAX_HALF),
      "tmp-12 is a half-written checkpoint",
    ),
    (
      _files(f"{STATE_HALF}/_METADATA", given=STATE_HALF),
      "state.orbax-checkpoint-tmp is a half-written",
    ),
    (
      _files(f"{HALF}/checkpoint"),
      r"only half-written .*\(checkpoint_7.tmp-17, …\)",
    ),
    (_files("target.a.b/.zarray"), "has arrays, but not the file 'checkpoint'"),
    (
      _files("checkpoint_7/state/d/0", given="checkpoint_7"),
      "state has neither '_METADATA' nor 'checkpoint'",
    ),
    (_uncommitted("."), "checkpoint_7/commit_success.txt is missing"),
    (_uncommitted("state"), "state/commit_success.txt is missing"),
    (_uncommitted("dataset"), "dataset/commit_success.txt is missing"),
    (
      _metadata('{"commit_timestamp_nsecs": null}'),
      "_CHECKPOINT_METADATA says .* never finished",
    ),
    (_metadata('{"commit_times'), "_CHECKPOINT_METADATA cannot be read"),
    (
      _files("model.ckpt-0.index", "checkpoint"),
      "is a TensorFlow checkpoint .*convert_tf_checkpoint.py",
    ),
    (_files("notes.txt"), "holds no T5X checkpoint"),
  ],
)
def test_what_is_not_whole_is_refused_in_one_line(tmp_path, make, message):
  path = make(tmp_path)
  with pytest.raises(UserError, match=message) as error:
    t5x_folders.find(path)
  assert "\n" not in str(error.value)
  assert str(tmp_path) in str(error.value)
