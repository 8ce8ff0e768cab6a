"""Which folder is the checkpoint, and which is not one, or not whole."""

import json

import pytest

from gkd.checkpoints.t5x import t5x_folders
from gkd.types import UserError


def touch(path, text=""):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def orbax(folder):
  touch(folder / "state" / "_METADATA", "{}")
  for name in (".", "state", "dataset"):
    touch(folder / name / "commit_success.txt")
  about = {"commit_timestamp_nsecs": 7}
  touch(folder / "_CHECKPOINT_METADATA", json.dumps(about))


@pytest.mark.parametrize(
  ("index", "below"),
  [
    ("checkpoint", ""),
    ("state/_METADATA", ""),
    ("state/_METADATA", "state"),
    # A generation between, in which nothing is marked as committed.
    ("state/checkpoint", ""),
  ],
)
def test_the_index_of_each_generation_is_found(tmp_path, index, below):
  folder = tmp_path / "checkpoint_7"
  if "_METADATA" in index:
    orbax(folder)
  touch(folder / index)
  location = t5x_folders.find(folder / below)
  assert (location.path, location.index) == (folder, folder / index)
  assert location.is_orbax == ("_METADATA" in index)
  assert location.choice == ""


def test_newest_of_a_run_by_number_and_said(tmp_path):
  for step in ("900", "1000", "20", "2000.tmp-1700000000", "5000x"):
    touch(tmp_path / f"checkpoint_{step}" / "checkpoint")
  touch(tmp_path / "config.gin")
  location = t5x_folders.find(tmp_path)
  assert location.path == tmp_path / "checkpoint_1000"
  assert location.choice == (
    f"checkpoint: checkpoint_1000, the newest of 3 in {tmp_path}"
  )


@pytest.mark.parametrize(
  ("name", "below", "message"),
  [
    (
      "checkpoint_7.tmp-17/checkpoint",
      ".",
      r"only half-written .*\(checkpoint_7.tmp-17, …\)",
    ),
    ("target.a.b/.zarray", ".", "has arrays, but not the file 'checkpoint'"),
    (
      "checkpoint_7/state/d/0",
      "checkpoint_7",
      "state has neither '_METADATA' nor 'checkpoint'",
    ),
    ("notes.txt", ".", "holds no T5X checkpoint"),
  ],
)
def test_what_is_not_whole_is_refused_in_one_line(
  tmp_path, name, below, message
):
  touch(tmp_path / name)
  assert_refused(tmp_path / below, message)


@pytest.mark.parametrize(
  ("name", "text", "message"),
  [
    *(
      (f"{folder}/commit_success.txt", None, "commit_success.txt is missing")
      for folder in (".", "state", "dataset")
    ),
    (
      "_CHECKPOINT_METADATA",
      '{"commit_timestamp_nsecs": null}',
      "_CHECKPOINT_METADATA says .* never finished",
    ),
    ("_CHECKPOINT_METADATA", '{"commit_times', "_METADATA is not JSON"),
  ],
)
def test_what_orbax_has_not_committed_is_refused(tmp_path, name, text, message):
  orbax(tmp_path)
  if text is None:
    (tmp_path / name).unlink()
  else:
    (tmp_path / name).write_text(text)
  assert_refused(tmp_path, message)


def assert_refused(path, message):
  with pytest.raises(UserError, match=message) as error:
    t5x_folders.find(path)
  assert "\n" not in str(error.value)
  assert str(path) in str(error.value)
