"""Mistakes of gin itself end in one line: no hang, no page of text."""

import pytest

from gkd.config import configuration
from gkd.types import UserError

OBJECTS = """
from __gin__ import dynamic_registration
from gkd.training import schedules
include 'test/distill.gin'
STUDENT_DATA_FRACTION = @schedules.Linear()
schedules.Linear.start = @schedules.Linear()
"""
CIRCLES = {
  "BATCH_SIZE=%BATCH_SIZE": "^BATCH_SIZE = %BATCH_SIZE goes round in a circle",
  "KEEP=%EVAL_PERIOD EVAL_PERIOD=%TRAIN_STEPS TRAIN_STEPS=%KEEP": "= .* = %",
  "OBJECTIVE=%OBJECTIVE": "give OBJECTIVE a value",
  "TASK_FEATURE_LENGTHS={'inputs':%TASK_FEATURE_LENGTHS}": "goes round in a",
}


@pytest.mark.parametrize("bindings", CIRCLES)
def test_macros_in_a_circle_are_refused(bindings):
  with pytest.raises(UserError, match=CIRCLES[bindings]):
    configuration.load(["test/sft.gin"], bindings.split())


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (OBJECTS, "^Linear = @Linear goes round in a circle; give Linear a value"),
    ("include 'own.gin'", "^own.gin includes itself; take out that include$"),
    ("include 'two.gin'", "^own.gin includes itself; take out that include$"),
    ("BATCH_SIZE = (1,\n", r"own.gin: \D+ in multi-line statement \(line \d\)"),
    ("BATCH_SIZE = 'a\n", "own.gin: Unable to parse value"),
    ("BATCH_SIZE = 'a\0'\n", "own.gin: "),
    ("  BATCH_SIZE\n = 3", "own.gin: "),
  ],
)
def test_a_file_that_cannot_be_parsed(text, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "own.gin").write_text(text)
  (tmp_path / "two.gin").write_text("include 'own.gin'")
  with pytest.raises(UserError, match=message) as error:
    configuration.load(["own.gin"], [])
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [r"'a\0b'", r"'\ud800'"])
def test_text_that_no_file_can_hold_is_refused(value):
  with pytest.raises(UserError, match=r"MODEL_DIR is .*; expected text"):
    configuration.load(["test/sft.gin"], [f"MODEL_DIR={value}"])


def test_one_flag_is_one_value():
  value = "8\nKEEP = 9"
  with pytest.raises(UserError, match=r"BATCH_SIZE is '8\\nKEEP = 9'; expect"):
    configuration.load(["test/sft.gin"], [f"BATCH_SIZE={value}"])


@pytest.mark.parametrize(
  ("binding", "message"),
  [
    ("TRAIN_STEPS=@schedules.Linear()", "TRAIN_STEPS is @.*a whole number"),
    ("REDUCTION=@divergence.ReverseKL()", "REDUCTION is @.* one of 'sequence'"),
    ("STUDENT=@divergence.ReverseKL()", "STUDENT is @divergence.ReverseKL"),
    ("OBJECTIVE=@divergence.ReverseKL()", "OBJECTIVE is @divergence.ReverseK"),
    ("DIVERGENCE=@divergence.ReverseKL", r"written @module.Name\(\)"),
  ],
)
def test_an_object_in_the_wrong_place_is_refused(binding, message):
  with pytest.raises(UserError, match=message):
    configuration.load(["test/distill.gin"], [binding])
