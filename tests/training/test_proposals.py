"""Rollouts of student and teacher together, and of a growing length."""

import numpy as np
import pytest

from gkd import keys
from gkd.losses.minillm import MiniLLM
from gkd.losses.policy import SampledTokenKL
from gkd.sampling import generate
from gkd.sampling.two_models import Interleaved
from gkd.sampling.two_models import Mixture
from gkd.training import rollout
from gkd.training import scoring
from gkd.training.rollout import Rollout
from gkd.training.schedules import Adaptive
from gkd.training.schedules import Linear
from gkd.types import Model
from gkd.types import Source
from gkd.types import UserError
from tests.training import test_rollout as cases
from tests.training.test_rollout import T
from tests.training.test_rollout import roll_out


def test_rows_of_a_proposal_are_the_students_and_keep_their_log_probs():
  plan = Rollout(0.5, mixing="example", proposal=Interleaved(2))
  batch, means = roll_out(cases._batch(), step=1, plan=plan)
  own = np.asarray(batch.source) == Source.STUDENT
  assert 0 < own.sum() < len(own)
  counted = (np.asarray(batch.weights) > 0) & own[:, None]
  log_probs = np.asarray(batch.log_probs)
  assert (log_probs[counted] < 0).all()
  assert not log_probs[~counted].any()
  assert 0 < means["redrawn_rate"].compute() < 1
  assert means["redrawn_rate"].count == counted.sum()
  # A step without samples has the same fields: no second compile of the update.
  fixed, _ = roll_out(
    cases._batch(), step=1, plan=Rollout(0.0, proposal=Mixture(0.5))
  )
  assert fixed.log_probs.shape == log_probs.shape


class Unweighed(SampledTokenKL):
  """An objective that does not read `Batch.log_probs`."""

  weighs_samples = False


def test_a_proposal_is_refused_where_it_cannot_be():
  plan = Rollout(1.0, proposal=Mixture(0.2))
  with pytest.raises(
    UserError, match=r"PROPOSAL is Mixture\(.* there is none;"
  ):
    plan.check_teacher(None)
  others = {"staleness": 1}, {"sampling_dtype": "bfloat16"}
  for own in (plan, *(Rollout(1.0, **other) for other in others)):
    with pytest.raises(UserError, match="student draws alone; leave them"):
      scoring.check(None, Unweighed(), own, "sequence", 1)
    for objective in (SampledTokenKL(), MiniLLM()):
      scoring.check(None, objective, own, "sequence", 1)
  broken = Model(cases.MODEL, {"table": cases.TEACHER["table"] * np.nan})
  with pytest.raises(
    FloatingPointError, match="the student's or the teacher's"
  ):
    roll_out(cases._batch(), step=0, plan=plan, teacher=broken)


def test_a_horizon_grows_without_compiling_and_truncates_what_is_longer():
  plan = Rollout(1.0, horizon=Linear(0.0, 1.0, 0, 4))
  whole = cases._expected(cases.STUDENT, keys.Role.STUDENT_SAMPLE, 3)
  compiled = []
  for step, length in enumerate([1, 2, 3, 4, T]):
    batch, means = roll_out(cases._batch(), step=step, plan=plan)
    compiled.append(generate._generate._cache_size())
    assert means["rollout_horizon"].compute() == length
    assert np.asarray(batch.weights)[:, length:].sum() == 0
    if step == 3:
      np.testing.assert_array_equal(
        batch.targets[:, :length], whole.tokens[:, :length]
      )
      rate = np.mean(whole.truncated | (np.asarray(whole.lengths) > length))
      assert means["truncation_rate"].compute() == pytest.approx(rate)
  assert len(set(compiled)) == 1


@pytest.mark.parametrize(
  ("horizon", "message"),
  [
    (
      Adaptive(),
      r"ROLLOUT_HORIZON is Adaptive\(.*; expected @schedules.Linear",
    ),
    (64, "ROLLOUT_HORIZON is 64; expected @schedules.Linear"),
    (Linear, "minimum of the rollout horizon"),
  ],
)
def test_a_horizon_that_is_no_schedule_is_named(horizon, message):
  with pytest.raises(UserError, match=message):
    Rollout(1.0, horizon=horizon)


def test_the_plan_says_who_draws_and_how_far():
  plan = Rollout(
    1.0, proposal=Interleaved(25), horizon=Linear(0.25, 1.0, 0, 100)
  )
  assert plan.describe() == (
    "on-policy: every batch is answered by the current student at temperature"
    " 1, a token outside the teacher's top 25 drawn by the teacher, up to"
    " 0.25 → 1 (steps 0–100) of the target length"
  )
  assert (
    rollout.Rollout(1.0, proposal=Mixture(0.2))
    .describe()
    .endswith(", 0.2 · teacher + 0.8 · student for each token")
  )
