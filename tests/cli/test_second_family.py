"""A family of one's own is trained, evaluated, sampled from and distilled."""

import json
import pathlib

import pytest

from gkd.checkpoints import source
from gkd.cli import main as command
from gkd.data.cache import TokenCache
from gkd.models import registry
from tests import second_family
from tests import tiny

HEADER = """
from __gin__ import dynamic_registration
from tests import second_family
include 'test/{0}.gin'
"""
STUDENT = "STUDENT = @student/second_family.model()\n"
TEACHER = """TEACHER = @teacher/second_family.model()
teacher/second_family.model.width = 12
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("family")
  tiny.make_cache(folder / "train")
  tiny.make_cache(folder / "eval", split="validation")
  return folder


def run(folder, name, config, bindings, *arguments, text=STUDENT):
  """Runs a command with a gin file that binds the family."""
  file = folder / f"{config}_{len(text)}.gin"
  file.write_text(HEADER.format(config) + text)
  given = [f"TASK_FEATURE_LENGTHS={tiny.LENGTHS}", *bindings]
  flags = [f"--gin.{binding}" for binding in given]
  assert command.main([name, f"--gin_file={file}", *flags, *arguments]) == 0


def trained(folder, name, config, text, *bindings):
  data = [f"TRAIN_CACHE={folder / 'train'}", f"EVAL_CACHE={folder / 'eval'}"]
  steps = ["TRAIN_STEPS=2", "CHECKPOINT_PERIOD=1", "TRAIN_LIMIT=None"]
  steps += ["BATCH_SIZE=8", "EVAL_EXAMPLES=8", "SAMPLE_PERIOD=0"]
  model_dir = f"MODEL_DIR={folder / name}"
  run(folder, "train", config, [*data, *steps, model_dir, *bindings], text=text)
  return folder / name


@pytest.fixture(scope="module")
def teacher(folder):
  text = STUDENT + "student/second_family.model.width = 12\n"
  return trained(folder, "teacher", "sft", text)


@pytest.fixture(scope="module")
def student(folder, teacher):
  path = f"TEACHER_CHECKPOINT_PATH={teacher}"
  return trained(folder, "student", "distill", STUDENT + TEACHER, path)


def test_its_runs_name_it_and_open(student):
  described = json.loads((student / "run.json").read_text())
  name = "tests.second_family.BigramConfig"
  assert described["family"] == name
  assert described["model"] == {"rows": 18, "width": 8, "scales": [1.0, 0.5]}
  checkpoint = source.open_checkpoint(student)
  assert (checkpoint.family, checkpoint.step) == (name, 2)
  assert list(checkpoint.leaves) == ["head", "previous", "prompt"]


def test_it_starts_from_its_own_checkpoint_and_is_evaluated(
  folder, teacher, student
):
  path = f"INITIAL_CHECKPOINT_PATH={student}"
  again = trained(folder, "again", "sft", STUDENT, path)
  assert json.loads((again / "run.json").read_text())["model"]["width"] == 8
  scores = folder / "scores"
  bindings = [f"MODEL_DIR={scores}", f"EVAL_CACHE={folder / 'eval'}", path]
  run(folder, "evaluate", "evaluate", [*bindings, "EVAL_EXAMPLES=8"])
  assert "accuracy" in (scores / "metrics.json").read_text()


def test_it_is_sampled_from(folder, teacher):
  answers = folder / "answers"
  bindings = [f"TRAIN_CACHE={folder / 'train'}", f"OUTPUT_DIR={answers}"]
  bindings += [f"INITIAL_CHECKPOINT_PATH={teacher}", "TRAIN_LIMIT=8"]
  text = STUDENT + "student/second_family.model.width = 12\n"
  run(folder, "sample", "sample", bindings, text=text)
  assert len(TokenCache(answers)) == 16


def test_another_family_than_the_checkpoints_is_refused(
  folder, teacher, capsys
):
  bindings = [f"MODEL_DIR={folder / 'no'}", f"EVAL_CACHE={folder / 'eval'}"]
  bindings += [f"TASK_FEATURE_LENGTHS={tiny.LENGTHS}"]
  bindings += [f"INITIAL_CHECKPOINT_PATH={teacher}"]
  flags = [f"--gin.{binding}" for binding in bindings]
  file = "--gin_file=test/evaluate.gin"
  assert command.main(["evaluate", file, *flags]) == 2
  line = capsys.readouterr().err.splitlines()[-1]
  assert "STUDENT_MODEL is of the model family 't5', but" in line
  # Without sizes it is taken from the checkpoint, which names no known family.
  assert command.main(["evaluate", file, *flags, "--gin.STUDENT_MODEL=None"])
  line = capsys.readouterr().err.splitlines()[-1]
  assert "is of a family that gkd does not know; bind its LanguageModel" in line


def test_registered_it_is_taken_from_the_checkpoint(
  folder, tmp_path, monkeypatch
):
  monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
  second_family.register()
  text = STUDENT + "student/second_family.model.width = 6\n"
  saved = trained(folder, "registered", "sft", text)
  assert json.loads((saved / "run.json").read_text())["family"] == "bigram"
  bindings = [f"MODEL_DIR={tmp_path}", f"EVAL_CACHE={folder / 'eval'}"]
  bindings += [f"INITIAL_CHECKPOINT_PATH={saved}", "STUDENT_MODEL=None"]
  run(folder, "evaluate", "evaluate", [*bindings, "EVAL_EXAMPLES=8"], text="")
  assert pathlib.Path(tmp_path / "metrics.json").exists()
