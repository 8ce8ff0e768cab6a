"""Texts that are drawn one update early, and runs that go on with them."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest

from gkd import partitioning
from gkd.losses.divergence import ReverseKL
from gkd.losses.objective import Distillation
from gkd.training import loop
from gkd.training import state as states
from gkd.training.preemption import Interrupted
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.step import update_step
from gkd.types import UserError
from tests import tiny
from tests.tiny import STEPS
from tests.training.test_resume import Stop
from tests.training.test_resume import contents
from tests.training.test_scoring import make_run

# The student writes all steps but the second, also those after a checkpoint.
EVERYTHING = {
  "rollout": Rollout(0.5, staleness=1),
  "seed": 37,
  "train_steps": STEPS,
  "report": 4,
  "checkpoint": 2,
  "sample": 1,
}


@pytest.fixture(scope="module")
def straight(tmp_path_factory, caches):
  """State and files of a run that nothing stopped."""
  folder = tmp_path_factory.mktemp("straight")
  state = loop.train(make_run(folder, caches, 0.5, **EVERYTHING))
  return state, contents(folder), folder


def test_texts_are_of_the_parameters_before_the_update_before(tmp_path, caches):
  fields = {"objective": Distillation(ReverseKL()), "scoring": None}
  fields |= {"rollout": Rollout(1.0, staleness=1), "train_steps": STEPS}
  run = make_run(tmp_path, caches, 0.5, **fields)
  params, sharding = run.initial_params(), partitioning.batch_sharding(run.mesh)
  given = run.student.lm, params, run.optimizer, run.mesh
  state, older = states.initial_state(*given), params
  for step in range(STEPS):
    rolled = roll_out(
      partitioning.place(run.loader.batch(step), sharding),
      step=step,
      seed=run.seed,
      plan=run.rollout,
      student=dataclasses.replace(run.student, params=older),
      teacher=run.teacher,
      vocabulary=run.loader.vocabulary,
      staleness=min(step, 1),
    )
    older = jax.tree.map(np.array, state.params)
    frozen = {"teacher": run.teacher.params}
    seed = np.int32(run.seed)
    state, _ = update_step(run.train_step, state, frozen, rolled.batch, seed)
  tiny.assert_identical(loop.train(run), state)


def test_each_row_and_each_line_say_how_stale_the_texts_were(straight):
  _, files, folder = straight
  drawn = []
  for step in range(1, STEPS + 1):
    text = files[f"samples/step_{step:08d}.jsonl"]
    rows = [json.loads(line) for line in text.splitlines()]
    assert len({row["source"] for row in rows}) == 1
    by_student = rows[0]["source"] == "student"
    expected = min(step - 1, 1) if by_student else None
    assert {row.get("staleness") for row in rows} == {expected}
    drawn.append(expected)
  assert drawn == [0, None, 1, 1, 1, 1]
  found = [x for x in drawn[:4] if x is not None]
  line = next(x for x in tiny.lines(folder) if x["step"] == 4)
  assert line["train/staleness"] == np.mean(found)


@pytest.mark.parametrize("kill", [True, False])
def test_a_run_that_was_stopped_at_every_step_ends_the_same(
  tmp_path, caches, straight, monkeypatch, kill
):
  armed = set(range(1, STEPS + 1))

  def stopped(*args):
    done = int(args[1].step) + 1
    if done in armed:
      armed.remove(done)
      if kill:
        raise Stop
      signal.raise_signal(signal.SIGTERM)
    return update_step(*args)

  monkeypatch.setattr(loop, "update_step", stopped)
  while armed:
    with pytest.raises((Stop, Interrupted)):
      loop.train(make_run(tmp_path, caches, 0.5, **EVERYTHING))
  state = loop.train(make_run(tmp_path, caches, 0.5, **EVERYTHING))
  tiny.assert_identical(state, straight[0])
  assert contents(tmp_path) == straight[1]


def test_a_longer_run_is_as_one_that_was_as_long_from_the_start(
  tmp_path, caches, straight
):
  for steps in (3, STEPS):
    changes = EVERYTHING | {"train_steps": steps}
    state = loop.train(make_run(tmp_path, caches, 0.5, **changes))
  tiny.assert_identical(state, straight[0])


def test_the_state_is_donated_while_texts_are_drawn_with_it(
  tmp_path, caches, monkeypatch
):
  def pointers(state):
    leaves = jax.tree.leaves((state.params, state.opt_state))
    return {leaf.unsafe_buffer_pointer() for leaf in leaves}

  def watched(train_step, state, *args):
    before = pointers(state)
    after, metrics = update_step(train_step, state, *args)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert pointers(after) == before
    return after, metrics

  monkeypatch.setattr(loop, "update_step", watched)
  # A checkpoint that is being written holds the state as well.
  changes = EVERYTHING | {"checkpoint": 0, "sample": 0}
  loop.train(make_run(tmp_path, caches, 0.5, **changes))


def test_more_than_one_update_is_refused():
  with pytest.raises(
    UserError, match=r"staleness is 2; expected one of \(0, 1"
  ):
    Rollout(1.0, staleness=2)
