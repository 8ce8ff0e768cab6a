"""An adaptive λ rises as evaluations stall, and the same after a stop."""

import json
import signal

import pytest

from gkd.training import loop
from gkd.training.adaptive_fraction import AdaptiveFraction
from gkd.training.preemption import Interrupted
from gkd.training.rollout import Rollout
from gkd.training.schedules import Adaptive
from gkd.types import UserError
from tests.tiny import assert_identical
from tests.tiny import make_evaluation
from tests.tiny import make_run
from tests.tiny import records

METRIC = "eval/sums/forward_kl_per_token"
LOSSES = [3.0, 2.0, 2.0, 2.5, 1.0, 0.95, float("nan"), 1.0]
ADAPTIVE = Adaptive(start=0.5, increment=0.25)


def test_each_evaluation_that_is_not_below_the_lowest_raises_it():
  plan = Rollout(Adaptive(METRIC, 0.1, 0.2, tolerance=0.1), mixing="example")
  saved, found = {}, []
  for step, loss in enumerate(LOSSES):
    fraction = AdaptiveFraction(plan, METRIC, saved)
    for _ in range(2):  # an evaluation that is made again counts once
      fraction.observe(step, {METRIC: loss})
    saved = json.loads(json.dumps(fraction.notes()))
    found.append(fraction.applied(plan).student_fraction)
  rises = [0, 0, 1, 2, 2, 3, 4, 5]
  assert found == pytest.approx([min(1, 0.1 + 0.2 * n) for n in rises])
  assert fraction.applied(plan).mixing == "example"
  of_the_guard = Rollout(1.0)
  assert fraction.applied(of_the_guard) is of_the_guard
  assert AdaptiveFraction(of_the_guard, "", {}).notes() == {}


def evaluate(evaluation, roles, *, step, on_answers, **others):
  """Instead of the true one, every second step."""
  del evaluation, roles, others
  on_answers([[]])
  return {METRIC: LOSSES[step // 2]}


@pytest.fixture
def make(caches, monkeypatch):
  monkeypatch.setattr(loop, "evaluate", evaluate)

  def make(folder, schedule=ADAPTIVE, **changes):
    fields = {
      "evaluations": (make_evaluation(caches["validation"]),),
      "rollout": Rollout(schedule, mixing="example"),
      "eval": 2,
      "eval_first": True,
    }
    return make_run(folder, caches, **fields | changes)

  return make


def test_a_stopped_run_goes_on_with_its_fraction(tmp_path, make, monkeypatch):
  used, original = [], loop.roll_out

  def roll_out(*args, plan, **others):
    used.append(plan.student_fraction)
    return original(*args, plan=plan, **others)

  monkeypatch.setattr(loop, "roll_out", roll_out)
  straight = loop.train(make(tmp_path / "straight"))
  assert used == [0.5] * 4 + [0.75] * 2

  def stop(step, values):
    if step == 5:
      signal.raise_signal(signal.SIGTERM)

  with pytest.raises(Interrupted):
    loop.train(make(tmp_path / "stopped"), stop)
  used.clear()
  assert_identical(loop.train(make(tmp_path / "stopped")), straight)
  assert used == [0.75]  # from the checkpoint after step 5
  assert records(tmp_path / "stopped") == records(tmp_path / "straight")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"schedule": Adaptive("eval/sums/accuracy")}, "accuracy', which no eval"),
    ({"evaluations": ()}, "is '', which no evaluation of .* an evaluated run"),
    ({"eval": 0, "eval_first": False}, "fewer than two evaluations to compare"),
  ],
)
def test_a_fraction_that_nothing_raises_is_refused(
  tmp_path, make, changes, message
):
  with pytest.raises(UserError, match=message):
    make(tmp_path, **changes)


def test_settings_out_of_range_are_refused():
  with pytest.raises(UserError, match="increment of the student fraction is 2"):
    Adaptive(increment=2)
