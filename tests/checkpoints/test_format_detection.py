"""What a folder is, or in one line why it is none of the three."""

import pytest

from gkd.checkpoints import format_detection
from gkd.types import UserError
from tests.checkpoints import tiny_models


def touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    (["config.json", "model.safetensors", "spiece.model"], "hf"),
    (["model.safetensors"], "hf"),
    (["model.safetensors.index.json"], "hf"),
    (["config.json", "model.safetensors", "metadata.json"], "hf"),
    (["config.json", "model.safetensors", "pytorch_model.bin"], "hf"),
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
  touch(tmp_path, *files)
  assert format_detection.detect(tmp_path) == expected


def test_two_layouts_of_orbax_are_told_apart(tmp_path, t5x_checkpoint):
  """Both have state/_METADATA; T5X's tree has a `target`."""
  t5x = t5x_checkpoint("t5_1_1_tiny", "orbax", 10)
  assert format_detection.detect(t5x) == "t5x"
  tiny_models.save(tmp_path / "gkd", tiny_models.make())
  (tmp_path / "gkd" / "metadata.json").unlink()
  assert format_detection.detect(tmp_path / "gkd") == "gkd"


def test_steps_within_a_folder_of_checkpoints(tmp_path):
  for name in ("checkpoint_10", "checkpoint_9", "checkpoint_20.tmp-7"):
    (tmp_path / "t5x" / name).mkdir(parents=True)
  (tmp_path / "run" / "checkpoints" / "00000012").mkdir(parents=True)
  assert sorted(format_detection.steps_within(tmp_path / "t5x")) == [9, 10]
  steps = format_detection.steps_within(tmp_path / "run")
  assert steps == {12: tmp_path / "run" / "checkpoints" / "00000012"}
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
  assert_refused(path, message)


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (
      ["adapter_config.json", "adapter_model.safetensors"],
      r"PEFT adapters, .*merge_and_unload\(\)\.save_pre.*/m-merged'\)\"; give",
    ),
    (
      ["zero_to_fp32.py", "latest", "global_step7/x_optim_states.pt"],
      "DeepSpeed; .*: python zero_to_fp32.py .*/m .*/m-joined --safe_ser",
    ),
    (["mp_rank_00_model_states.pt"], "DeepSpeed"),
    (["__0_0.distcp", ".metadata"], "FSDP; .* accelerate merge-weights .*/m "),
  ],
)
def test_parts_of_a_model_are_told_with_what_joins_them(
  tmp_path, names, message
):
  touch(tmp_path / "m", *names)
  assert_refused(tmp_path / "m", message)


HALF = "is a half-written checkpoint, as its name says"


@pytest.mark.parametrize(
  ("names", "path", "message"),
  [
    ([], ".", "is empty; expected a run or saved model"),
    (["thesis.tex"], ".", r"\(with thesis.tex, …\) is no checkpoint"),
    (["thesis.tex"], "thesis.tex", "is a file; give its folder"),
    (
      ["checkpoint-500/config.json", "checkpoint-1000/config.json"],
      *(
        ".",
        "of a trainer; give one of them, as the newest, .*/checkpoint-1000",
      ),
    ),
    *(
      (["checkpoint", "m.ckpt-7.index"], path, "Mesh TensorFlow .*_tf_checkp")
      for path in (".", "m.ckpt-7", "m.ckpt-7.index")
    ),
    *(
      ([f"{name}/checkpoint"], name, f"{name} {HALF}")
      for name in (
        "checkpoint_7.tmp-17",
        "checkpoint_7.orbax-checkpoint-tmp-12",
        "state.orbax-checkpoint-tmp",
        "mine.orbax-checkpoint-tmp-3",
      )
    ),
    (["checkpoint_7.tmp-17/state/x"], "checkpoint_7.tmp-17/state", HALF),
  ],
)
def test_files_and_foreign_folders_are_said(tmp_path, names, path, message):
  touch(tmp_path, *names)
  assert_refused(tmp_path / path, message)


@pytest.mark.parametrize(
  ("name", "option"),
  [
    *(
      (name, "")
      for name in (
        *("pytorch_model.bin", "pytorch_model.bin.index.json"),
        *("x.pt", "x.ckpt", "x.pkl", "x.pth"),
      )
    ),
    ("tf_model.h5", ", from_tf=True"),
    ("flax_model.msgpack", ", from_flax=True"),
  ],
)
def test_pickles_are_refused_with_the_command_that_converts_them(
  tmp_path, name, option
):
  folder = tmp_path / "model"
  touch(folder, name)
  command = rf"can hold code.*python -c .*from_pretrained\('{folder}'{option}\)"
  assert_refused(folder, command)
  assert_refused(folder / name, command)
  touch(folder, "config.json")  # the family is looked at first
  assert format_detection.detect(folder) == "hf"


def assert_refused(path, message):
  with pytest.raises(UserError, match=message) as error:
    format_detection.detect(path)
  assert "\n" not in str(error.value)
