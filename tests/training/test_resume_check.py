"""What may change when a run goes on, and what is refused with both values."""

import copy
import dataclasses
import json
import os
import shutil

import jax
import numpy as np
import pytest

from gkd import api
from gkd.checkpoints.retention import PreservationPolicy
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.losses import divergence
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.models import t5
from gkd.sampling.params import SamplingParams
from gkd.training import loop
from gkd.training import resume_check
from gkd.training import run_description
from gkd.training.rollout import Rollout
from gkd.training.schedules import Linear
from gkd.types import Model
from gkd.types import UserError
from tests import second_family
from tests import tiny
from tests.checkpoints import tiny_models


@pytest.fixture(scope="module")
def other_rows(tmp_path_factory):
  return tiny.make_cache(tmp_path_factory.mktemp("other") / "cache", rows=24)


@pytest.fixture
def begin(tmp_path, caches):
  """Writes down a run as its first checkpoint finds it; asks for another."""

  def begin(**fields):
    first = tiny.make_run(tmp_path / "run", caches, **fields)
    first.folder.mkdir()
    description = run_description.describe(first)
    run_description.write(first, description, resumed=False)
    (first.folder / "checkpoints" / "00000002").mkdir(parents=True)

    def ask(**changes) -> list[str]:
      run = tiny.make_run(first.folder, caches, **fields | changes)
      return resume_check.changes(run, run_description.describe(run))

    return ask

  return begin


def refused(ask, **changes) -> str:
  with pytest.raises(UserError) as error:
    ask(**changes)
  message = str(error.value)
  assert "\n" not in message
  assert "holds a run of another configuration: " in message
  assert "Choose another MODEL_DIR" in message
  return message


def distil(beta=0.5, **changes):
  return Distillation(divergence.GeneralizedJSD(beta), **changes)


def test_the_same_run_goes_on(begin):
  assert begin()() == []


def test_a_run_built_in_a_program_is_compared(tmp_path, caches):
  """Not the old model in silence, as another objective was asked for."""
  loop.train(tiny.make_run(tmp_path, caches, train_steps=2))
  other = tiny.make_run(
    tmp_path,
    caches,
    train_steps=2,
    objective=Distillation(divergence.ReverseKL()),
    optimizer=tiny.adamw(warmup_steps=2, learning_rate=1e-3),
  )
  with pytest.raises(UserError, match="of another configuration") as error:
    loop.train(other)
  assert "DIVERGENCE: GeneralizedJSD(beta=0.5) → ReverseKL()" in str(
    error.value
  )
  assert "0.01 → 0.001" in str(error.value)


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"objective": distil(0.1)}, "DIVERGENCE.beta: 0.5 → 0.1"),
    (
      {"objective": distil(teacher_temperature=0.1)},
      "TEACHER_TEMPERATURE: 1.0 → 0.1",
    ),
    (
      {"objective": CrossEntropy()},
      "OBJECTIVE: Distillation(",
    ),
    ({"rollout": Rollout(1.0)}, "STUDENT_DATA_FRACTION: 0.5 → 1.0"),
    ({"rollout": Rollout(0.5, mixing="example")}, "MIXING: 'step' → 'exampl"),
    (
      {"rollout": Rollout(0.5, decoding=SamplingParams(0.5))},
      "SAMPLING_TEMPERATURE: 1.0 → 0.5",
    ),
    ({"rollout": None}, "→ None"),
    ({"seed": 4}, "RANDOM_SEED: 3 → 4"),
    ({"reduction": "token"}, "REDUCTION: 'sequence' → 'token'"),
    ({"micro_batches": 2}, "MICRO_BATCHES: 1 → 2"),
    (
      {"teacher": None, "objective": CrossEntropy()},
      "TEACHER_MODEL: T5Config(",
    ),
  ],
)
def test_what_changes_a_step_is_refused_with_both_values(begin, changes, line):
  assert line in refused(begin(), **changes)


def test_many_differences_are_counted(begin):
  fields = {"seed": 4, "reduction": "token", "micro_batches": 2}
  rule = tiny.adamw(learning_rate=1.0, warmup_steps=3, cooldown_steps=1)
  rule = dataclasses.replace(rule, clip_norm=1.0, b1=0.5)
  message = refused(begin(), **fields, optimizer=rule)
  assert message.count(" → ") == 6
  assert "; 2 more. Choose" in message


def test_other_data_is_refused(begin, caches, other_rows):
  ask = begin()
  sizes = {"batch_size": 4, "lengths": tiny.LENGTHS, "seed": 0}
  message = refused(ask, loader=Loader(caches["train"], **sizes))
  assert "BATCH_SIZE: 8 → 4" in message
  message = refused(ask, loader=Loader(other_rows, **sizes | {"batch_size": 8}))
  assert "the content of the training data: '" in message


@pytest.fixture
def with_student(tmp_path, caches):
  """Roles of the run whose student has other fields."""
  roles = tiny.make_run(tmp_path / "run", caches).roles
  return lambda **fields: (
    roles | {"student": dataclasses.replace(roles["student"], **fields)}
  )


def test_another_model_is_refused(begin, with_student):
  config = dataclasses.replace(tiny.STUDENT.config, dropout_rate=0.2)
  lm = dataclasses.replace(tiny.STUDENT, config=config)
  message = refused(begin(), roles=with_student(lm=lm))
  assert "STUDENT_MODEL.dropout_rate: 0.1 → 0.2" in message


def test_a_student_that_starts_from_a_checkpoint_is_another(
  begin, with_student
):
  ask = begin()
  message = refused(ask, roles=with_student(path="runs/sft"))
  assert "INITIAL_CHECKPOINT_PATH: '' → 'runs/sft'" in message
  # Layers of the teacher have no path.
  message = refused(ask, roles=with_student(content_sha256="12ab"))
  assert "INITIAL_CHECKPOINT_PATH: '' → '12ab'" in message


def test_a_teacher_is_known_by_its_parameters(begin, with_student):
  """Wherever they lie; not by those of the initial student."""
  ask = begin()
  teacher = tiny.parameters(tiny.TEACHER, 1)
  assert ask(teacher=jax.tree.map(np.array, teacher)) == []
  message = refused(ask, teacher=tiny.parameters(tiny.TEACHER, 2))
  assert "the content of the teacher checkpoint: '" in message
  half = jax.tree.map(lambda x: x.astype("bfloat16"), teacher)
  message = refused(ask, teacher=half)
  assert "TEACHER_DTYPE: 'float32' → 'bfloat16'" in message
  params = tiny.parameters(tiny.STUDENT, 7)
  assert ask(roles=with_student(params=params)) == []


def test_a_model_to_compare_with_may_leave_but_not_change(begin, with_student):
  def with_judge(seed):
    params = tiny.parameters(tiny.TEACHER, seed)
    return {**with_student(), "judge": Model(tiny.TEACHER, params)}

  ask = begin(roles=with_judge(2))
  assert ask() == ask(roles=with_student()) == []
  message = refused(ask, roles=with_judge(3))
  assert "the content of the judge checkpoint: '" in message


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"report": 10}, "REPORT_PERIOD: 1 → 10"),
    ({"eval_first": True}, "EVAL_FIRST: False → True"),
    ({"train_steps": 4}, "TRAIN_STEPS: 6 → 4"),
    ({"preservation": PreservationPolicy(latest=5)}, "KEEP: 3 → 5"),
    ({"config_text": "# other"}, None),
  ],
)
def test_what_changes_no_step_may_change(begin, changes, line):
  assert begin()(**changes) == ([] if line is None else [line])


def test_an_evaluation_may_change(begin, caches, other_rows):
  first = tiny.make_evaluation(caches["validation"])
  ask = begin(evaluations=(first,))
  other = tiny.make_evaluation(caches["validation"], num_examples=4)
  assert ask(evaluations=(other,)) == ["EVAL_EXAMPLES: None → 4"]
  other = tiny.make_evaluation(other_rows)
  (line,) = ask(evaluations=(other,))
  assert line.startswith("the content of the evaluation data: '")


def test_more_steps_say_what_else_they_change(begin):
  rollout = Rollout(Linear(1.0, 0.0, 0, tiny.STEPS))
  ask = begin(rollout=rollout, optimizer=tiny.adamw(warmup_steps=2))
  longer = Rollout(Linear(1.0, 0.0, 0, 12))
  lines = ask(
    train_steps=12,
    rollout=longer,
    optimizer=tiny.adamw(warmup_steps=2, total_steps=12),
  )
  # The learning rate is constant: nothing to say about the optimizer.
  assert lines == [
    "STUDENT_DATA_FRACTION.end_step, which follows TRAIN_STEPS: 6 → 12",
    "TRAIN_STEPS: 6 → 12",
  ]
  # A schedule of its own length is not excused by TRAIN_STEPS.
  message = refused(ask, rollout=longer)
  assert "STUDENT_DATA_FRACTION.end_step: 6 → 12" in message


def test_other_ids_of_the_vocabulary_are_refused(begin, caches):
  ask = begin()
  loader = Loader(caches["train"], batch_size=8, lengths=tiny.LENGTHS, seed=0)
  vocabulary = copy.copy(loader.vocabulary)
  vocabulary.eos_ids = (1, 4)
  cache = TokenCache(caches["train"].path)
  vars(cache)["vocabulary"] = vocabulary
  other = Loader(cache, batch_size=8, lengths=tiny.LENGTHS, seed=0)
  assert "the content of the vocabulary: '" in refused(ask, loader=other)


def test_a_number_that_equals_train_steps_by_chance_may_not_change(
  begin, caches
):
  sizes = {"lengths": tiny.LENGTHS, "seed": 0}
  ask = begin(train_steps=8)
  loader = Loader(caches["train"], batch_size=16, **sizes)
  message = refused(ask, train_steps=16, loader=loader)
  assert "BATCH_SIZE: 8 → 16" in message


def test_a_longer_cooldown_is_told(begin):
  ask = begin(optimizer=tiny.adamw(warmup_steps=2, cooldown_steps=2))
  rule = tiny.adamw(warmup_steps=2, cooldown_steps=2, total_steps=12)
  assert ask(train_steps=12, optimizer=rule) == [
    "end of the cooldown, which follows TRAIN_STEPS: 6 → 12",
    "TRAIN_STEPS: 6 → 12",
  ]


def test_a_folder_with_nothing_to_lose_is_free(begin, tmp_path):
  ask, folder = begin(), tmp_path / "run"
  (folder / "checkpoints" / "00000002").rmdir()
  (folder / "metrics.jsonl").write_text("")
  assert ask(seed=4) == []
  # Lines alone are something to lose, before the first checkpoint.
  (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
  assert ask() == []
  assert "RANDOM_SEED" in refused(ask, seed=4)


@pytest.mark.parametrize(
  ("name", "text"),
  [
    ("metrics.jsonl", '{"step": 3, "loss": 1}\n'),
    ("checkpoints/7/weights.bin", "x"),
    ("predictions/mine-00000030.jsonl", '{"prompt": "p", "text": "t"}\n'),
    ("samples/step_00000030.jsonl", "{}\n"),
    ("config.gin", "# mine"),
    ("run.json", '{"roles": {}, "settings": {}}'),  # of gkd evaluate
    ("vocabulary/spiece.model", "x"),
  ],
)
def test_a_folder_of_somebody_else_is_refused_and_stays(
  tmp_path, caches, name, text
):
  file = tmp_path / "run" / name
  file.parent.mkdir(parents=True)
  file.write_text(text)
  (tmp_path / "run" / "train.log").write_text("of a shell, harmless")
  message = f"MODEL_DIR .*run holds {name.split('/')[0]}, which would be rep"
  with pytest.raises(UserError, match=message):
    loop.train(tiny.make_run(tmp_path / "run", caches))
  assert file.read_text() == text
  names = {f.name for f in (tmp_path / "run").iterdir()}
  assert names == {name.split("/")[0], "train.log", ".lock"}


def test_a_teacher_of_t5x_with_one_bit_flipped_is_another(
  begin, caches, t5x_checkpoint, tmp_path
):
  """Its format has no checksum; run.json has the hash of what was read."""
  saved = t5x_checkpoint("t5_1_1_tiny", "orbax", 10)
  folder = shutil.copytree(saved, tmp_path / saved.name)

  def roles():
    model = api.load(folder)
    config = dataclasses.replace(model.config, vocabulary_size=18)
    teacher = dataclasses.replace(model, lm=t5.encoder_decoder(config))
    return tiny.make_run(tmp_path, caches).roles | {"teacher": teacher}

  ask = begin(roles=roles())
  assert ask(roles=roles()) == []
  file = max(folder.rglob("d/*"), key=lambda file: file.stat().st_size)
  tiny_models.flip_a_bit(file, file.stat().st_size * 9 // 10)
  message = refused(ask, roles=roles())
  assert "the content of the teacher checkpoint: '" in message


def test_metrics_that_are_a_pipe_are_not_waited_for(begin, tmp_path, caches):
  begin()
  os.mkfifo(tmp_path / "run" / "metrics.jsonl")
  with pytest.raises(UserError, match=r"metrics\.jsonl: it is no regular file"):
    loop.train(tiny.make_run(tmp_path / "run", caches))


def test_a_run_of_an_earlier_version_is_refused(begin, tmp_path):
  ask, file = begin(), tmp_path / "run" / "run.json"
  file.write_text(json.dumps({"contents": {}}))
  with pytest.raises(UserError, match=r"cannot be compared: its run\.json is"):
    ask()
  file.unlink()
  with pytest.raises(UserError, match=r"cannot be compared: its run\.json is"):
    ask()


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"settings": []}, r"has settings \[\]; expected an object; restore"),
    ({"roles": {"student": 5}}, r"roles\.student 5; expected an object"),
    ({"contents": {"teacher": 5}}, r"contents\.teacher 5; expected text"),
    ({"settings": {"teacher": 5}}, "has teacher 5; expected an object"),
  ],
)
def test_a_description_of_another_kind_is_one_line(
  begin, tmp_path, change, message
):
  ask, file = begin(), tmp_path / "run" / "run.json"
  file.write_text(json.dumps(json.loads(file.read_text()) | change))
  with pytest.raises(UserError, match=message):
    ask()


def test_the_model_of_another_family_is_named_as_it_was_bound(tmp_path, caches):
  models = {"teacher": tiny.TEACHER, "student": second_family.model()}
  roles = {role: Model(lm, {}) for role, lm in models.items()}
  run = tiny.make_run(tmp_path, caches, roles=roles)
  found = run_description.other_settings(run)
  assert found["teacher"][1] == "TEACHER_MODEL"
  assert found["student"][1] == "STUDENT"
