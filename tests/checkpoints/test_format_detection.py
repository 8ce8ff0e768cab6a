"""What a folder is, or in one line why it is none of the three."""

import pickle

import pytest

from gkd.checkpoints import format_detection
from gkd.checkpoints.native import native_checkpoint
from gkd.types import UserError
from tests.checkpoints import tiny_models


def touch(file, content=b"{}"):
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(content)


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    (["config.json", "model.safetensors", "spiece.model"], "hf"),
    (["config.json", "pytorch_model.bin"], "hf"),  # refused by its reader
    (["model.safetensors"], "hf"),
    (["config.json", "model.safetensors", "metadata.json"], "hf"),
    (["run.json"], "gkd"),  # that has no checkpoint yet
    (["checkpoint", "target.encoder.encoder_norm.scale/0"], "t5x"),
    (["target.encoder.encoder_norm.scale/0"], "t5x"),  # half-written
    (["state/checkpoint"], "t5x"),
    (["_METADATA", "checkpoint"], "t5x"),
    (["checkpoint_10/checkpoint", "config.gin"], "t5x"),
    (["metadata.json", "sha256.json", "state/_METADATA"], "gkd"),
    (["checkpoints/00000001/notes.json", "run.json"], "gkd"),
    (["notes.json", "sha256.json"], "gkd"),
  ],
)
def test_the_format_follows_from_the_names_of_files(tmp_path, files, expected):
  for name in files:
    touch(tmp_path / name)
  assert format_detection.detect(tmp_path) == expected


def test_two_layouts_of_orbax_are_told_apart(tmp_path, t5x_checkpoint):
  """Both have state/_METADATA; T5X's tree has a `target`."""
  assert (
    format_detection.detect(t5x_checkpoint("t5_1_1_tiny", "orbax", 10)) == "t5x"
  )
  native_checkpoint.write(tmp_path, tiny_models.make())
  (tmp_path / "metadata.json").unlink()
  assert format_detection.detect(tmp_path) == "gkd"
  half_written = tmp_path / "checkpoint_100.tmp-1700000000"
  half_written.mkdir()  # known by its name
  assert format_detection.detect(half_written) == "t5x"


def test_steps_within_a_folder_of_checkpoints(tmp_path):
  for name in ("checkpoint_10", "checkpoint_9", "checkpoint_20.tmp-7"):
    (tmp_path / "t5x" / name).mkdir(parents=True)
  (tmp_path / "run" / "checkpoints" / "00000012").mkdir(parents=True)
  assert sorted(format_detection.steps_within(tmp_path / "t5x")) == [9, 10]
  found = format_detection.steps_within(tmp_path / "run")
  assert found == {12: tmp_path / "run" / "checkpoints" / "00000012"}
  assert format_detection.steps_within(tmp_path) == {}


@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("google/flan-t5-small", r"hf download google/flan-t5-small --local-dir"),
    ("gs://t5-data/x/checkpoint_1", r"gsutil -m cp -r gs://t5-data/x/checkp"),
    (
      "https://huggingface.co/google/flan-t5-base/tree/main",
      r"hf download google/flan-t5-base --local-dir flan-t5-base",
    ),
    ("s3://models/t5", r"not on this machine; download it first: copy it"),
    ("/nowhere/at/all", r"there is no folder /nowhere/at/all; expected a run"),
  ],
)
def test_what_is_not_on_this_machine_is_said(path, message):
  with pytest.raises(UserError, match=message) as error:
    format_detection.detect(path)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("names", "path", "message"),
  [
    ([], ".", "is empty; expected a run or saved model"),
    (["thesis.tex"], ".", r"\(with thesis.tex, …\) is no checkpoint"),
    (["thesis.tex"], "thesis.tex", "is a file; give its folder"),
    *(
      (["m.ckpt-7.index", "m.ckpt-7.meta"], path, "Mesh TensorFlow checkpoint")
      for path in (".", "m.ckpt-7", "m.ckpt-7.index")
    ),
  ],
)
def test_files_and_foreign_folders_are_said(tmp_path, names, path, message):
  for name in names:
    touch(tmp_path / name)
  with pytest.raises(UserError, match=message) as error:
    format_detection.detect(tmp_path / path)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "name", ["pytorch_model.bin", "x.pt", "x.ckpt", "x.h5", "x.pkl", "x.pth"]
)
def test_pickles_are_refused_with_the_command_that_converts_them(
  tmp_path, name
):
  touch(tmp_path / "model" / name, pickle.dumps({}))
  for path in (tmp_path / "model", tmp_path / "model" / name):
    with pytest.raises(
      UserError, match=r"can hold code.*python -c .*from_pretrained"
    ) as error:
      format_detection.detect(path)
    assert "\n" not in str(error.value)
