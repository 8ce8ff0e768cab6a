"""Families beside T5, one of the user's own among them, in the commands."""

import dataclasses
import json
import re

import jax
import pytest

from gkd import api
from gkd.checkpoints.native import native_checkpoint
from gkd.cli import main as command
from gkd.data.cache import TokenCache
from gkd.models import registry
from tests import second_family
from tests import tiny
from tests.checkpoints.tiny_models import save_params
from tests.cli.command_lines import arguments
from tests.cli.command_lines import error_of

GIN = """
from __gin__ import dynamic_registration

from tests import second_family

STUDENT = @student/second_family.model()
TEACHER = @teacher/second_family.model()
teacher/second_family.model.width = 12
"""


@pytest.fixture
def own_file(tmp_path):
  """A gin file that binds models of a family which nothing registers."""
  (tmp_path / "own.gin").write_text(GIN)
  return f"--gin_file={tmp_path / 'own.gin'}"


@pytest.fixture
def data(caches):
  """What each command reads."""
  lengths = {"TASK_FEATURE_LENGTHS": caches["train"].info["lengths"]}
  train = {"TRAIN_CACHE": caches["train"].path} | lengths
  evaluation = {"EVAL_CACHE": caches["validation"].path} | lengths
  return {
    "train": train | evaluation,
    "evaluate": evaluation,
    "sample": train,
  }


def test_it_is_trained_taught_evaluated_and_sampled_from(
  own_file, data, tmp_path
):
  def run(name, file, **macros):
    flags = arguments(name, own_file, file=file, **data[name], **macros)
    assert command.main(flags) == 0

  few = {"EVAL_EXAMPLES": 4}
  steps = {"TRAIN_STEPS": 1, "TRAIN_LIMIT": 8, "BATCH_SIZE": 4, **few}
  teacher, student = tmp_path / "teacher", tmp_path / "student"
  own = "@teacher/second_family.model()"
  run("train", "test/sft.gin", **steps, STUDENT=own, MODEL_DIR=teacher)
  taught = {"TEACHER_CHECKPOINT_PATH": teacher, "TEACHER_DTYPE": "bfloat16"}
  run("train", "test/distill.gin", **steps, **taught, MODEL_DIR=student)
  saved = json.loads((student / "run.json").read_text())
  assert saved["family"] == "tests.second_family.BigramConfig"
  assert saved["model"] == {"rows": 18, "width": 8, "scales": [1.0, 0.5]}
  start = {"INITIAL_CHECKPOINT_PATH": student}
  scores = tmp_path / "scores"
  run("evaluate", "test/evaluate.gin", **start, **few, MODEL_DIR=scores)
  assert (scores / "metrics.json").is_file()
  answers = tmp_path / "answers"
  run("sample", "test/sample.gin", **start, OUTPUT_DIR=answers, TRAIN_LIMIT=4)
  assert len(TokenCache(answers)) == 8


def test_a_decoder_teaches_some_of_its_own_layers(data, tmp_path):
  config = tiny.DECODER
  params = tiny.parameters(registry.build(config), 0)
  about = native_checkpoint.description(config)
  save_params(tmp_path / "teacher", params, about)
  flags = arguments(
    "train",
    file="test/distill.gin",
    **{"STUDENT_MODEL": None, "TEACHER_MODEL": None, "KEEP_LAYERS": "0,2"},
    **{"TRAIN_STEPS": 1, "TRAIN_LIMIT": 8, "BATCH_SIZE": 4, "EVAL_EXAMPLES": 4},
    LEARNING_RATE=1e-30,
    MODEL_DIR=tmp_path / "run",
    TEACHER_CHECKPOINT_PATH=tmp_path / "teacher",
    **data["train"],
  )
  assert command.main(flags) == 0
  student = api.load(tmp_path / "run")
  assert student.config == dataclasses.replace(config, num_layers=2)
  layers = student.params["decoder"], params["decoder"]
  tiny.assert_identical(layers[0]["layers_1"], layers[1]["layers_2"])


@pytest.fixture
def saved(tmp_path):
  """A model of a family that no gin file names."""
  config = second_family.BigramConfig(rows=18)
  params = second_family.build(config).init(jax.random.key(0))
  about = native_checkpoint.description(config)
  save_params(tmp_path / "saved", params, about)
  return tmp_path / "saved"


@pytest.fixture
def refusal(saved, data, tmp_path, capsys):
  """The one line of a run that starts from the saved model."""

  def refusal(bindings, *files):
    start = {"MODEL_DIR": tmp_path / "run", "INITIAL_CHECKPOINT_PATH": saved}
    train = arguments(
      "train", *files, file="test/sft.gin", **start, **data["train"]
    )
    return error_of([*train, *(f"--gin.{x}" for x in bindings)], capsys)

  return refusal


NO_FIELD = (
  r"but INITIAL_CHECKPOINT_PATH .*/saved holds .*'bigram', whose config"
)


@pytest.mark.parametrize(
  ("binding", "registered", "message"),
  [
    (
      "EVERY_KTH_LAYER=2",
      False,
      r"LAYER is for T5, T5Gemma and decoder-only models; .*BigramConfig",
    ),
    (
      "STUDENT_MODEL=None",
      False,
      r"INITIAL_CHECKPOINT_PATH .*/saved holds a model of the family"
      r" 'tests\.second_family\.BigramConfig', .*import the module .*--gin_file"
      r" and bind STUDENT = @module\.function",
    ),
    ("DROPOUT_RATE=0.1", True, rf"DROPOUT_RATE is 0\.1 {NO_FIELD}"),
    ("DTYPE=bfloat16", True, rf"DTYPE is 'bfloat16' {NO_FIELD}"),
  ],
)
def test_what_the_family_of_a_checkpoint_does_not_have_is_refused(
  binding, registered, message, refusal, monkeypatch
):
  monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
  if registered:
    second_family.register()
  line = refusal(["STUDENT_MODEL=None", binding])
  assert re.search(message, line), line


@pytest.mark.parametrize(
  ("bindings", "message"),
  [
    (
      ["INITIAL_CHECKPOINT_PATH={t5}"],
      r"STUDENT is of the model family '.*\.BigramConfig', but INITIAL_CH",
    ),
    (["EVERY_KTH_LAYER=2"], r"EVERY_KTH_LAYER is 2 and STUDENT is given: the"),
    (["second_family.model.rows=20"], r"'vocabulary_size': 18 in STUDENT if"),
    (
      ["STUDENT=@second_family.unfrozen()", "INITIAL_CHECKPOINT_PATH="],
      r"LanguageModel\.config is a Unfrozen; expected .* a frozen dataclass",
    ),
  ],
)
def test_a_bound_model_that_does_not_fit_is_called_student(
  bindings, message, refusal, own_file, tmp_path
):
  about = native_checkpoint.description(tiny.STUDENT.config)
  params = tiny.parameters(tiny.STUDENT, 0)
  save_params(tmp_path / "t5", params, about)
  line = refusal([x.format(t5=tmp_path / "t5") for x in bindings], own_file)
  assert re.search(message, line), line
