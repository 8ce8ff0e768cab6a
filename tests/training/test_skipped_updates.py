"""A run skips as many updates as it may, and goes on as without them."""

import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses.objective import CrossEntropy
from gkd.metrics import Mean
from gkd.training import loop
from gkd.training import step
from gkd.training.skipped_updates import SkippedUpdates
from tests.tiny import make_run
from tests.tiny import records


def means(loss=1.0, grad_norm=1.0, finite=1.0):
  values = {"loss": loss, "grad_norm": grad_norm, "finite": finite}
  values |= {"student_entropy": loss, "tokens": 8.0}
  return {n: Mean(np.float32(x), np.float32(1)) for n, x in values.items()}


def test_what_is_not_finite_is_left_out_up_to_the_limit():
  skipped = SkippedUpdates(2, count=1)
  assert skipped.checked(means(), 5)["skipped_rate"].compute() == 0
  left = skipped.checked(means(loss=np.nan, finite=0.0), 6)
  assert left.keys() == {"grad_norm", "finite", "tokens", "skipped_rate"}
  assert left["skipped_rate"].compute() == 1
  assert skipped.count == 2
  with pytest.raises(FloatingPointError, match="step 7: loss nan"):
    skipped.checked(means(loss=np.nan, finite=0.0), 7)


def test_a_state_that_is_not_finite_is_never_gone_on_from():
  with pytest.raises(FloatingPointError, match="the updated parameters or"):
    SkippedUpdates(2).checked(means(finite=0.0), 3)


def test_without_a_limit_nothing_is_added():
  assert SkippedUpdates(0).checked(means(), 1).keys() == means().keys()


def test_a_run_goes_on_after_a_skipped_update(tmp_path, caches, monkeypatch):
  """The count stays over a restart, and so does the limit."""
  monkeypatch.setattr(loop, "update_step", _failing(3))
  run = {"skip_non_finite": 1, "teacher": None, "rollout": None}
  run |= {"objective": CrossEntropy(), "train_steps": 4}
  loop.train(make_run(tmp_path, caches, **run))
  rates = [line["train/skipped_rate"] for line in records(tmp_path)]
  assert rates == [0, 0, 1, 0]
  monkeypatch.setattr(loop, "update_step", _failing(5))
  with pytest.raises(FloatingPointError, match="step 5"):
    loop.train(make_run(tmp_path, caches, **run | {"train_steps": 6}))


def _failing(at):
  def update(*args):
    state, found = step.update_step(*args)
    if int(state.step) == at:
      found = {**found, "loss": Mean.of(jnp.nan), "finite": Mean.of(0.0)}
    return state, found

  return update
