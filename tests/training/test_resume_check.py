"""What may change when a run goes on, and what is refused with both values."""

import json

import pytest

from gkd.training import resume_check
from gkd.types import UserError

CONFIG = """
from __gin__ import dynamic_registration
from gkd.config import command_records

# Macros:
# ==============================================================================
BATCH_SIZE = 16
COOLDOWN_STEPS = 0
EVAL_TEMPERATURES = (0.0, %WARM)
EXPERT_STEPS = %TRAIN_STEPS
LEARNING_RATE = 0.003
MODEL_DIR = 'runs/a'
REPORT_PERIOD = 50
STUDENT_MODEL = %TINY
TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 32}
TEACHER_CHECKPOINT_PATH = 'runs/teacher'
TINY = \\
    {'emb_dim': 16,
     'vocab_size': 18}
TRAIN_CACHE = 'caches/a'
TRAIN_STEPS = 20
WARM = 1.0

# Parameters for command_records.TrainConfig:
# ==============================================================================
command_records.TrainConfig.batch_size = %BATCH_SIZE
command_records.TrainConfig.keep = 3
command_records.TrainConfig.model_dir = %MODEL_DIR
command_records.TrainConfig.report_period = %REPORT_PERIOD
command_records.TrainConfig.teacher_checkpoint = %TEACHER_CHECKPOINT_PATH
command_records.TrainConfig.train_steps = %TRAIN_STEPS
records.EvalConfig.temperatures = %EVAL_TEMPERATURES
train/records.DataConfig.cache = %TRAIN_CACHE
train/records.DataConfig.lengths = %TASK_FEATURE_LENGTHS
train/records.DataConfig.split = 'train'
eval/records.DataConfig.split = 'validation'
student/t5.T5Config.from_size.size = %STUDENT_MODEL
optimizer.Optimizer.cooldown_steps = %COOLDOWN_STEPS
optimizer.Optimizer.learning_rate = %LEARNING_RATE
optimizer.Optimizer.total_steps = %TRAIN_STEPS
schedules.Linear.end_step = %EXPERT_STEPS
"""
CONTENTS = {"training_data": "d" * 64, "teacher_checkpoint": "a" * 64}


@pytest.fixture
def kept(tmp_path):
  """A run with a checkpoint; returns what the next one is asked."""
  (tmp_path / "config.gin").write_text(CONFIG)
  (tmp_path / "run.json").write_text(json.dumps({"contents": CONTENTS}))
  (tmp_path / "checkpoints" / "00000010").mkdir(parents=True)

  def ask(*replaced, contents=CONTENTS):
    text = CONFIG
    for before, now in replaced:
      assert before in text
      text = text.replace(before, now)
    return resume_check.changes(tmp_path, text, {"contents": contents})

  return ask


def refused(ask, *replaced, **more) -> str:
  with pytest.raises(UserError) as error:
    ask(*replaced, **more)
  message = str(error.value)
  assert "\n" not in message
  assert "holds a run of another configuration" in message
  assert "Choose another MODEL_DIR" in message
  return message


def test_the_same_configuration_goes_on(kept):
  assert kept() == []
  # Written otherwise: other spaces, lines and macros, the same values.
  assert kept(("\\\n    {'emb_dim': 16,\n     ", "{'emb_dim': 16, ")) == []
  assert kept(("learning_rate = %LEARNING_RATE", "learning_rate = 0.003")) == []


def test_every_difference_is_named_with_both_values(kept):
  message = refused(
    kept,
    ("RATE = 0.003", "RATE = 0.001"),
    ("BATCH_SIZE = 16", "BATCH_SIZE = 8"),
    ("'targets': 32", "'targets': 64"),
    ("split = 'train'", "split = 'test'"),
  )
  assert "LEARNING_RATE: 0.003 → 0.001" in message
  assert "BATCH_SIZE: 16 → 8" in message
  assert (
    "TASK_FEATURE_LENGTHS: {'inputs': 16, 'targets': 32} → {'inputs': 16,"
    " 'targets': 64}" in message
  )
  assert "train/records.DataConfig.split: 'train' → 'test'" in message


def test_a_macro_behind_a_macro_is_followed(kept):
  message = refused(kept, ("'emb_dim': 16", "'emb_dim': 32"))
  assert (
    "STUDENT_MODEL: {'emb_dim': 16, 'vocab_size': 18} → {'emb_dim': 32"
    in (message)
  )


def test_models_as_an_earlier_version_wrote_them_are_the_same(kept):
  earlier = "student/t5.T5Config.from_size.size = %STUDENT_MODEL"
  today = "student/model_spec.t5.size = %STUDENT_MODEL"
  model = "command_records.TrainConfig.student = "
  built = f"{model}@student/t5.encoder_decoder()"
  config = (
    "student/t5.encoder_decoder.config = @student/t5.T5Config.from_size()"
  )
  assert kept((earlier, today)) == []
  assert resume_check._parsed("\n".join([earlier, built, config])) == (
    resume_check._parsed(f"{today}\n{model}@student/model_spec.t5()")
  )
  message = refused(kept, (earlier, today), ("'emb_dim': 16", "'emb_dim': 32"))
  assert "STUDENT_MODEL: {'emb_dim': 16" in message


@pytest.mark.parametrize("given_first", [True, False])
def test_sizes_of_the_checkpoint_or_given_are_the_same(
  tmp_path, kept, given_first
):
  model = {"emb_dim": 16, "mlp_activations": ("gelu",), "dropout_rate": 0.0}
  size = "student/model_spec.t5.size = "
  texts = f"{size}None\n", f"{size}{{'emb_dim': 16}}\n"
  before, now = texts[::-1] if given_first else texts
  (tmp_path / "config.gin").write_text(CONFIG + before)
  about = json.dumps({"model": model, "contents": CONTENTS})
  (tmp_path / "run.json").write_text(about)

  def ask(**changed):
    asked = {"model": model | changed, "contents": CONTENTS}
    return resume_check.changes(tmp_path, CONFIG + now, asked)

  assert ask() == []
  assert ask(dropout_rate=0.1) == []  # a binding of its own says it
  with pytest.raises(UserError, match=r"student/model_spec\.t5\.size: .* → "):
    ask(emb_dim=32)
  with pytest.raises(UserError, match=r"student/model_spec\.t5\.size: .* → "):
    ask(more=1)


def test_a_value_that_only_one_of_them_has_is_a_difference(kept):
  message = refused(kept, ("optimizer.Optimizer.learning_rate", "x.Y.z"))
  assert "optimizer.Optimizer.learning_rate: 0.003 → not set" in message
  assert "x.Y.z: not set → 0.003" in message


def test_what_a_newer_version_has_besides_is_no_difference_at_none(kept):
  part = "train/records.DataConfig"
  split = f"{part}.split = 'train'"
  assert kept((split, f"{split}\n{part}.fraction = None")) == []
  message = refused(kept, (split, f"{split}\n{part}.fraction = 1"))
  assert f"{part}.fraction: not set → 1" in message


def test_many_differences_are_counted(kept):
  more = "\n".join(f"other.Thing.field{n} = {n}" for n in range(9))
  message = refused(kept, ("split = 'train'", f"split = 'train'\n{more}"))
  assert message.count("not set →") == 6
  assert "; 3 more." in message


@pytest.mark.parametrize(
  ("before", "now", "line"),
  [
    ("PERIOD = 50", "PERIOD = 10", "REPORT_PERIOD: 50 → 10"),
    ("'runs/a'", "'runs/b'", "MODEL_DIR: 'runs/a' → 'runs/b'"),
    ("keep = 3", "keep = 5", "command_records.TrainConfig.keep: 3 → 5"),
    (
      "'validation'",
      "'test'",
      "eval/records.DataConfig.split: 'validation' → 'test'",
    ),
    (
      "WARM = 1.0",
      "WARM = 0.5",
      "EVAL_TEMPERATURES: (0.0, 1.0) → (0.0, 0.5)",
    ),
  ],
)
def test_what_changes_no_step_may_change(kept, before, now, line):
  assert kept((before, now)) == [line]


def test_more_steps_say_what_else_they_change(kept, tmp_path):
  longer = ("TRAIN_STEPS = 20", "TRAIN_STEPS = 40")
  # The learning rate is constant: nothing to say about the optimizer.
  length, schedule = sorted(kept(longer))
  assert length == "TRAIN_STEPS: 20 → 40"
  assert schedule.startswith(
    "schedules.Linear.end_step, which follows TRAIN_STE"
  )
  cooling = CONFIG.replace("COOLDOWN_STEPS = 0", "COOLDOWN_STEPS = 5")
  (tmp_path / "config.gin").write_text(cooling)
  lines = kept(longer, ("COOLDOWN_STEPS = 0", "COOLDOWN_STEPS = 5"))
  assert len(lines) == 3
  assert any("moves the cooldown over the last 5 steps" in x for x in lines)
  # A schedule of its own length is not excused by TRAIN_STEPS.
  message = refused(
    kept, longer, ("EXPERT_STEPS = %TRAIN_STEPS", "EXPERT_STEPS = 40")
  )
  assert "EXPERT_STEPS: 20 → 40" in message


def test_a_path_may_move_if_its_content_stays(kept):
  moved = (("'runs/teacher'", "'elsewhere'"), ("'caches/a'", "'b'"))
  assert kept(*moved) == []
  without = {"training_data": CONTENTS["training_data"]}
  message = refused(kept, *moved, contents=without)
  assert "TEACHER_CHECKPOINT_PATH: 'runs/teacher' → 'elsewhere'" in message


def test_another_content_at_the_same_path_is_refused(kept):
  message = refused(kept, contents=CONTENTS | {"teacher_checkpoint": "b" * 64})
  assert "content of the teacher checkpoint: aaaaaaaaaaaa → bbbbbbbbbbbb" in (
    message
  )


def test_a_folder_without_checkpoints_has_nothing_to_lose(kept, tmp_path):
  (tmp_path / "checkpoints" / "00000010").rmdir()
  assert kept(("RATE = 0.003", "RATE = 0.001")) == []
  assert resume_check.changes(tmp_path / "new", CONFIG, {}) == []


def test_lines_alone_are_something_to_lose(kept, tmp_path):
  """Before the first checkpoint; the same command starts again freely."""
  (tmp_path / "checkpoints" / "00000010").rmdir()
  (tmp_path / "metrics.jsonl").write_text("")
  other = ("RATE = 0.003", "RATE = 0.001")
  assert kept(other) == []
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
  assert kept() == []
  assert "LEARNING_RATE: 0.003 → 0.001" in refused(kept, other)


def test_other_evaluation_data_is_told(kept, tmp_path):
  before = CONTENTS | {"evaluation_data": "e" * 64}
  (tmp_path / "run.json").write_text(json.dumps({"contents": before}))
  assert kept(contents=before) == []
  assert kept(contents=CONTENTS | {"evaluation_data": "f" * 64}) == [
    "the content of the evaluation data: eeeeeeeeeeee → ffffffffffff"
  ]


def test_a_run_that_was_built_in_a_program_has_no_text_to_compare(
  kept, tmp_path
):
  assert resume_check.changes(tmp_path, "", {"contents": CONTENTS}) == []
  with pytest.raises(UserError, match="content of the training data"):
    resume_check.changes(tmp_path, "", {"contents": {"training_data": "x"}})
