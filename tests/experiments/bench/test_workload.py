"""A workload does what the training loop does, and compiles it once."""

import jax
import numpy as np
import pytest

from gkd.experiments.bench.compile_times import CompileTimes
from gkd.experiments.bench.workload import Workload
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.types import Source
from tests.tiny import assert_identical
from tests.tiny import make_run


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_steps_are_those_of_the_training_loop(fraction, tmp_path, caches):
  trained = loop.train(
    make_run(
      *(tmp_path / "loop", caches),
      rollout=Rollout(fraction),
      train_steps=2,
      checkpoint=0,
    )
  )
  work = Workload(make_run(tmp_path / "bench", caches))
  write = work.sample if fraction else work.fixed
  for step in range(2):
    work.update(write(step, work.place(work.read(step))).batch)
  assert_identical(work.state, trained)


def test_what_is_sampled_scored_and_saved_is_the_student(tmp_path, caches):
  work = Workload(make_run(tmp_path, caches))
  batch = work.place(work.read(0))
  sampled, fixed = work.sample(0, batch).batch, work.fixed(0, batch).batch
  assert set(np.asarray(sampled.source)) == {Source.STUDENT}
  np.testing.assert_array_equal(fixed.targets, batch.targets)
  assert work.prefill(batch).tokens.shape == (8, 1)
  np.testing.assert_array_equal(
    work.prefill(batch).tokens[:, 0], sampled.targets[:, 0]
  )
  largest = work.score(fixed)
  for role, model in work.models.items():
    logits = model.lm.logits(
      *(model.params, batch.inputs, batch.targets),
      input_mask=batch.input_mask,
    )
    np.testing.assert_allclose(largest[role], np.max(logits, -1), rtol=1e-5)
  work.update(fixed)
  work.save()
  assert_identical(work.restore(), work.state)


def test_nothing_compiles_after_the_first_step_nor_to_be_counted(
  tmp_path, caches
):
  work = Workload(make_run(tmp_path, caches))

  def step(number):
    batch = work.sample(number, work.place(work.read(number))).batch
    work.score(batch)
    return jax.block_until_ready(work.update(batch))

  step(0)
  with CompileTimes() as compiles:
    step(1)
  assert compiles.programs == {}
  with CompileTimes() as compiles:
    for traced in work.traces(work.place(work.read(0))).values():
      traced.lower().compile()
  assert not {"_generate", "_score", "update_step"} & compiles.programs.keys()
