"""A model family of the user's own, bound in a gin file, in every command."""

import json
import re

import jax
import pytest

from gkd.checkpoints.native import native_checkpoint
from gkd.cli import main as command
from gkd.data.cache import TokenCache
from gkd.models import registry
from tests import second_family
from tests.checkpoints.tiny_models import save_params
from tests.cli.test_main import error_of

MODULE = """
import dataclasses

from gkd.models import t5
from tests import tiny


@dataclasses.dataclass(frozen=True)
class OwnConfig:
  width: int


@dataclasses.dataclass
class Unfrozen:
  width: int = 16


def unfrozen():
  return dataclasses.replace(tiny.STUDENT, config=Unfrozen())


def model(width=16):
  config = dataclasses.replace(tiny.STUDENT.config, emb_dim=width)
  functions = t5.encoder_decoder(config)
  return dataclasses.replace(functions, config=OwnConfig(width))
"""
GIN = """
from __gin__ import dynamic_registration

import own_family
from tests import second_family

STUDENT = @student/own_family.model()
TEACHER = @teacher/own_family.model()
teacher/own_family.model.width = 24
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
  """A gin file that binds models of a module beside it."""
  (tmp_path / "own_family.py").write_text(MODULE)
  (tmp_path / "own.gin").write_text(GIN)
  monkeypatch.syspath_prepend(tmp_path)
  return f"--gin_file={tmp_path / 'own.gin'}"


@pytest.fixture
def run(own_file, caches):
  def run(name, file, *bindings):
    given = [
      f"TRAIN_CACHE={caches['train'].path}",
      f"EVAL_CACHE={caches['validation'].path}",
      f"TASK_FEATURE_LENGTHS={caches['train'].info['lengths']}",
      *bindings,
    ]
    if name == "sample":
      given = [x for x in given if not x.startswith("EVAL")]
    if name == "evaluate":
      given = [x for x in given if not x.startswith("TRAIN")]
    files = [f"--gin_file={file}", own_file]
    assert (
      command.main([name, *files, *(f"--gin.{given}" for given in given)]) == 0
    )

  return run


def test_it_is_trained_taught_evaluated_and_sampled_from(run, tmp_path):
  steps = ["TRAIN_STEPS=1", "TRAIN_LIMIT=8", "BATCH_SIZE=4", "EVAL_EXAMPLES=4"]
  teacher, student = f"{tmp_path}/teacher", f"{tmp_path}/student"
  run(
    "train",
    "test/sft.gin",
    *steps,
    "STUDENT=@teacher/own_family.model()",
    f"MODEL_DIR={teacher}",
  )
  taught = [f"TEACHER_CHECKPOINT_PATH={teacher}", f"MODEL_DIR={student}"]
  run("train", "test/distill.gin", *steps, *taught, "TEACHER_DTYPE=bfloat16")
  saved = json.loads((tmp_path / "student" / "run.json").read_text())
  assert saved["family"] == "own_family.OwnConfig"
  assert saved["model"] == {"width": 16}
  start = f"INITIAL_CHECKPOINT_PATH={student}"
  scores = f"MODEL_DIR={tmp_path}/scores"
  run("evaluate", "test/evaluate.gin", start, scores, "EVAL_EXAMPLES=4")
  assert (tmp_path / "scores" / "metrics.json").is_file()
  answers = f"OUTPUT_DIR={tmp_path}/answers"
  run("sample", "test/sample.gin", start, answers, "TRAIN_LIMIT=4")
  assert len(TokenCache(tmp_path / "answers")) == 8


@pytest.fixture
def saved(tmp_path):
  """A model of a family that no gin file names."""
  config = second_family.BigramConfig(rows=18)
  params = second_family.build(config).init(jax.random.key(0))
  about = native_checkpoint.description(config)
  save_params(tmp_path / "saved", params, about)
  return tmp_path / "saved"


@pytest.fixture
def refusal(saved, caches, tmp_path, capsys):
  """The one line of a run that starts from the saved model."""

  def refusal(bindings, *files):
    given = [
      f"MODEL_DIR={tmp_path / 'run'}",
      f"INITIAL_CHECKPOINT_PATH={saved}",
      f"TRAIN_CACHE={caches['train'].path}",
      f"EVAL_CACHE={caches['validation'].path}",
      f"TASK_FEATURE_LENGTHS={caches['train'].info['lengths']}",
      *bindings,
    ]
    flags = [f"--gin.{x}" for x in given]
    return error_of(
      ["train", "--gin_file=test/sft.gin", *files, *flags], capsys
    )

  return refusal


NO_FIELD = (
  r"but INITIAL_CHECKPOINT_PATH .*/saved holds .*'bigram', whose config"
)


@pytest.mark.parametrize(
  ("bindings", "registered", "message"),
  [
    (
      ["EVERY_KTH_LAYER=2"],
      False,
      r"EVERY_KTH_LAYER is for T5; .*BigramConfig",
    ),
    (
      [],
      False,
      r"INITIAL_CHECKPOINT_PATH .*/saved holds a model of the family"
      r" 'tests\.second_family\.BigramConfig', .*import the module .*--gin_file"
      r" and bind STUDENT = @module\.function",
    ),
    (["DROPOUT_RATE=0.1"], True, rf"DROPOUT_RATE is 0\.1 {NO_FIELD}"),
    (["DTYPE=bfloat16"], True, rf"DTYPE is 'bfloat16' {NO_FIELD}"),
  ],
)
def test_what_the_family_of_a_checkpoint_does_not_have_is_refused(
  bindings, registered, message, refusal, monkeypatch
):
  monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
  if registered:
    second_family.register()
  line = refusal(["STUDENT_MODEL=None", *bindings])
  assert re.search(message, line), line


@pytest.mark.parametrize(
  ("bindings", "message"),
  [
    ([], r"STUDENT is of the model family 'own_family\.OwnConfig', but INIT"),
    (["EVERY_KTH_LAYER=2"], r"but STUDENT is of .*OwnConfig', not a T5; leave"),
    (
      ["STUDENT=@second_family.model()", "second_family.model.rows=20"],
      r"'vocabulary_size': 18 in STUDENT if",
    ),
    (
      ["STUDENT=@own_family.unfrozen()", "INITIAL_CHECKPOINT_PATH="],
      r"LanguageModel\.config is a Unfrozen; expected .* a frozen dataclass",
    ),
  ],
)
def test_a_bound_model_that_does_not_fit_is_called_student(
  bindings, message, refusal, own_file
):
  line = refusal(bindings, own_file)
  assert re.search(message, line), line
