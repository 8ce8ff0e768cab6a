"""Each method, divergence and reward trains a tiny model by its command."""

import numpy as np
import pytest

from gkd.cli import main as command
from gkd.config import configuration
from tests import tiny
from tests.cli.command_lines import arguments
from tests.cli.command_lines import write_caches


def files(kind, *left_out):
  found = (configuration.config_folder() / kind).glob("*.gin")
  return sorted({file.stem for file in found} - {*left_out})


REWARDED = ("rl_gkd", "reinforce", "rlef")
# In test_train_command.py, as they need data of their own: another prompt, a
# mixture; sft is test/sft.gin.
METHODS = files(
  "methods", "privileged", "opsd", "sdft", "live_teacher", "teachers", "sft"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("methods")


@pytest.fixture(scope="module")
def macros(folder):
  """Of two updates from a trained student with a trained teacher."""
  macros = {**write_caches(folder), "TRAIN_STEPS": 2, "BATCH_SIZE": 4}
  macros |= {"SAMPLE_PERIOD": 0, "CHECKPOINT_PERIOD": 0, "REPORT_PERIOD": 1}
  for name in ("student", "teacher"):
    model = {"STUDENT_MODEL": "%TINY"} if name == "student" else {}
    sft = macros | model | {"MODEL_DIR": folder / name}
    assert command.main(arguments("train", file="test/sft.gin", **sft)) == 0
  return macros | {
    "INITIAL_CHECKPOINT_PATH": folder / "student",
    "TEACHER_CHECKPOINT_PATH": folder / "teacher",
  }


@pytest.fixture
def trained(macros, tmp_path, capsys):
  """Trains by files and macros; the last line of metrics.jsonl."""

  def trained(*files, **changes):
    own = macros | {"MODEL_DIR": tmp_path / "run"} | changes
    own = {name: value for name, value in own.items() if value is not None}
    more = [f"--gin_file={file}.gin" for file in files]
    line = arguments("train", *more, file="test/distill.gin", **own)
    assert command.main(line) == 0, capsys.readouterr().err
    return tiny.records(tmp_path / "run")[-1]

  return trained


@pytest.mark.parametrize("name", METHODS)
def test_a_method(name, trained, macros):
  changes = {
    "distillm": {"EVAL_PERIOD": 1, "TRAIN_STEPS": 3},
    "reinforce": {"TEACHER_CHECKPOINT_PATH": None},
    "rl_gkd": {"ALPHA": 0.5},
    "rlef": {"ALPHA": 0.5},
    "self_distillation": {
      "TEACHER_MODEL": "%TINY",
      "TEACHER_CHECKPOINT_PATH": macros["INITIAL_CHECKPOINT_PATH"],
    },
    "skd": {"TEACHER_TOP_K": 3, "SAMPLING_DTYPE": "bfloat16"},
  }
  rewards = ["rewards/length"] if name in REWARDED else []
  last = trained(f"methods/{name}", *rewards, **changes.get(name, {}))
  assert np.isfinite(last["train/loss"])
  # Rewards of such short runs are all the same.
  assert last["train/grad_norm"] > 0 or name == "reinforce"
  assert ("train/reward" in last) == (name in REWARDED)


@pytest.mark.parametrize("name", files("divergences"))
def test_a_divergence(name, trained):
  last = trained("methods/gkd_on_policy", f"divergences/{name}")
  assert last["train/loss"] > 0
  assert last["train/grad_norm"] > 0


# An entailment model is in tests/rewards.
@pytest.mark.parametrize("name", files("rewards", "entailment"))
def test_a_reward(name, trained):
  rewarded = "methods/rl_gkd", f"rewards/{name}", "divergences/reverse_kl"
  last = trained(*rewarded, ALPHA=0.5)
  assert np.isfinite(last["train/reward"])
