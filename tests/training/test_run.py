"""What a run refuses before it starts, and when it does what."""

import dataclasses

import pytest

from gkd import api
from gkd.checkpoints.retention import PreservationPolicy
from gkd.losses.objective import CrossEntropy
from gkd.models import t5
from gkd.training.rollout import Rollout
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.tiny import make_evaluation
from tests.tiny import make_run

BEST = PreservationPolicy(latest=1, best=1, metric="eval/sums/accuracy")


class Constant:
  """A share of the student that two runs cannot be told apart by."""

  def __init__(self, share):
    self.share = self.minimum = self.maximum = share

  def __call__(self, step):
    del step
    return self.share


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"micro_batches": 3}, "does not split into 3 micro-batches"),
    ({"teacher": None}, "there is none"),
    ({"model_dir": "gs://b/c"}, "gs://b/c is no path of a file system"),
    (
      {
        "teacher": None,
        "objective": CrossEntropy(),
        "rollout": Rollout(0.5, off_policy_source="teacher"),
      },
      "OFF_POLICY_SOURCE is 'teacher' but there is no",
    ),
    ({"report": 0}, "REPORT_PERIOD is 0"),
    (
      {"rollout": Rollout(Constant(0.5))},
      "STUDENT_DATA_FRACTION is a Constant, .* frozen dataclass",
    ),
    ({"preservation": BEST}, "no evaluation of this run reports"),
  ],
)
def test_impossible_runs_are_refused(changes, message, tmp_path, caches):
  with pytest.raises(UserError, match=message) as error:
    make_run(tmp_path, caches, **changes)
  assert "\n" not in str(error.value)


def test_a_run_is_described_with_objective_and_targets(tmp_path, caches):
  text = make_run(tmp_path, caches).describe()
  assert "p = teacher at temperature 1" in text
  assert "λ = 0.5" in text
  fields = {"objective": CrossEntropy(), "teacher": None, "rollout": None}
  assert "cross-entropy" in make_run(tmp_path, caches, **fields).describe()


def test_evaluations_and_checkpoints_have_schedules_of_their_own(
  tmp_path, caches
):
  evaluations = (make_evaluation(caches["validation"]),)
  run = make_run(
    tmp_path,
    caches,
    train_steps=27,
    evaluations=evaluations,
    eval=8,
    eval_log_steps=3,
    checkpoint=10,
  )
  steps = range(28)
  assert list(filter(run.evaluates, steps)) == [1, 2, 5, 8, 10, 16, 22, 24, 27]
  assert list(filter(run.saves, steps)) == [10, 20, 27]
  run = make_run(
    tmp_path,
    caches,
    evaluations=evaluations,
    eval_first=True,
    checkpoint=0,
  )
  assert list(filter(run.evaluates, range(7))) == [0, 6]
  assert list(filter(run.saves, range(7))) == [6]
  run = make_run(tmp_path, caches, evaluations=(), eval_first=True)
  assert not any(map(run.evaluates, range(7)))


def test_the_best_of_what_is_never_evaluated_is_refused(tmp_path, caches):
  fields = {
    "evaluations": (make_evaluation(caches["validation"]),),
    "train_steps": 30,
    "checkpoint": 4,
    "preservation": BEST,
  }
  make_run(tmp_path, caches, eval=6, **fields)  # both at 12 and 24
  make_run(tmp_path, caches, eval=7, **fields)  # both at 28
  with pytest.raises(UserError) as error:
    make_run(tmp_path, caches, eval=9, **fields)
  message = str(error.value)
  assert "CHECKPOINT_PERIOD is 4, EVAL_PERIOD 9, TRAIN_STEPS 30" in message
  with pytest.raises(UserError, match="no checkpoint before the last is"):
    make_run(
      tmp_path,
      caches,
      eval=1,
      **fields | {"checkpoint": 0},
    )


def test_the_best_by_an_unknown_metric_is_refused_with_the_known_ones(
  tmp_path, caches
):
  keep = PreservationPolicy(best=1, metric="eval/sums/acuracy")
  with pytest.raises(
    UserError, match=r"'eval/sums/acuracy'.* choose one of eval/sums/accuracy, "
  ):
    make_run(
      tmp_path,
      caches,
      preservation=keep,
      eval=2,
      evaluations=(make_evaluation(caches["validation"]),),
    )


@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"vocabulary_size": 9}, "{} has 9 ids but VOCABULARY has 18: different"),
    ({"pad_id": 3}, "{} pads with id 3 but VOCABULARY with 0; choose the"),
  ],
)
def test_a_model_with_other_ids_than_the_data_is_refused(
  tmp_path, caches, role, changes, message
):
  roles = make_run(tmp_path, caches).roles
  lm = t5.encoder_decoder(dataclasses.replace(roles[role].config, **changes))
  roles = roles | {role: dataclasses.replace(roles[role], lm=lm)}
  message = "the " + message.format(role)
  with pytest.raises(UserError, match=message):
    make_run(tmp_path, caches, roles=roles)
  evaluation = make_evaluation(caches["validation"])
  with pytest.raises(UserError, match=message):
    api.evaluate(roles["student"], evaluation, teacher=roles["teacher"])


def test_texts_of_another_padding_are_refused(tmp_path, caches):
  run = make_run(tmp_path, caches)
  lm = t5.encoder_decoder(dataclasses.replace(run.student.config, pad_id=3))
  model = Model(lm, run.student.params, vocabulary=run.loader.vocabulary)
  with pytest.raises(
    UserError, match="the model pads with id 3 but VOCABULARY"
  ):
    api.generate(model, ["1+2="])


def test_a_model_whose_config_is_not_frozen_is_refused(tmp_path, caches):
  """Before it is a key of a cache, where it could not be hashed."""
  unfrozen = dataclasses.make_dataclass("Unfrozen", [("width", int)])
  model = dataclasses.replace(tiny.STUDENT, config=unfrozen(16))
  with pytest.raises(UserError, match="is a Unfrozen; expected an instance of"):
    make_run(tmp_path, caches, roles={"student": Model(model, {})})
