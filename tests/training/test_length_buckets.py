"""A batch is cut to its texts, and an update does not notice."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.training import loop
from gkd.training.length_buckets import cut
from gkd.training.rollout import Rollout
from gkd.training.schedules import Constant
from gkd.training.step_flops import StepFlops
from gkd.training.telemetry import PhaseTimer
from gkd.types import Model
from gkd.types import Pair
from gkd.types import UserError
from tests import tiny
from tests.training import test_step


@pytest.mark.parametrize(
  ("buckets", "lengths"),
  [(1, (16, 17)), (2, (8, 9)), (5, (8, 8)), (99, (6, 7))],
)
def test_an_update_of_a_cut_batch_is_that_of_the_whole(buckets, lengths):
  batch = test_step.make_batch(padding=10)
  columns = jnp.arange(8 * 17, dtype=jnp.float32).reshape(8, 17)
  batch = batch.replace(log_probs=columns, advantages=columns)
  timer = PhaseTimer()
  short = cut(batch, buckets, timer)
  assert (short.inputs.shape[1], short.targets.shape[1]) == lengths
  for array, whole in (
    (short.log_probs, columns),
    (short.advantages, columns),
    (short.weights, batch.weights),
  ):
    np.testing.assert_array_equal(array, whole[:, : lengths[1]])
  assert ("sample" in timer.seconds) == (buckets > 1)
  teacher = jax.tree.map(jnp.array, tiny.parameters(tiny.TEACHER, 1))
  test_step.assert_same(
    test_step.step(test_step.PLAN, short, teacher),
    test_step.step(test_step.PLAN, batch, teacher),
  )


def test_both_sides_of_a_packed_batch_are_cut():
  batch = test_step.make_batch(padding=10)
  pair = Pair(batch.inputs, batch.targets)
  batch = batch.replace(segments=pair, positions=pair)
  short = cut(batch, 2, PhaseTimer())
  for found in (short.segments, short.positions):
    assert [side.shape[1] for side in found] == [8, 9]


def test_nothing_in_use_leaves_a_column():
  batch = test_step.make_batch()
  batch = batch.replace(weights=jnp.zeros_like(batch.weights))
  assert cut(batch, 7, PhaseTimer()).targets.shape[1] == 1


def test_a_run_of_short_texts_costs_less(tmp_path, caches, monkeypatch):
  """Texts that end halfway: the same losses, fewer FLOPs."""
  fields = {
    "roles": {
      "student": Model(test_step.STUDENT, tiny.parameters(tiny.STUDENT, 0)),
      "teacher": Model(tiny.TEACHER, tiny.parameters(tiny.TEACHER, 1)),
    },
    "rollout": Rollout(1.0, horizon=Constant(0.5)),
  }
  counted = {1: [], 2: []}
  count = StepFlops.__call__

  def count_flops(self, *args):
    mean = count(self, *args)
    counted[buckets].append(float(mean.total))
    return mean

  monkeypatch.setattr(StepFlops, "__call__", count_flops)
  for buckets in (1, 2):
    run = tiny.make_run(
      tmp_path / str(buckets), caches, length_buckets=buckets, **fields
    )
    loop.train(run)
  whole, short = (tiny.lines(tmp_path / name) for name in "12")
  for ours, theirs in zip(short, whole, strict=True):
    assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-3)
  assert np.all(np.divide(counted[2], counted[1]) < 0.8)


def test_no_bucket_is_refused(tmp_path, caches):
  with pytest.raises(UserError, match="LENGTH_BUCKETS is 0; expected 1 or"):
    tiny.make_run(tmp_path, caches, length_buckets=0)
