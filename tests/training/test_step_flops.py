"""FLOPs of a step, against those of the models' own functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import flops
from gkd.metrics import Mean
from gkd.training import state as states
from gkd.training.rollout import RolledOut
from gkd.training.step_flops import StepFlops
from tests import tiny

ROWS, TOKENS = 8, 16


def of(function, *arguments) -> float:
  return flops.products(jax.jit(function).trace(*arguments).jaxpr, 1).flops


@pytest.fixture
def measured(tmp_path, caches):
  """FLOPs of a step whose rows all have so many sampled tokens, or none."""
  run = tiny.make_run(tmp_path, caches)
  student = run.student.lm
  state = states.abstract_state(student, run.optimizer, run.mesh)
  step_flops = StepFlops(
    run.train_step, {"teacher": run.teacher}, run.rollout, run.loader.vocabulary
  )
  width = tiny.LENGTHS["inputs"]
  rolled = RolledOut(run.loader.batch(0), {}, {}, input_width=width)

  def measure(**lengths):
    means = {
      name: Mean(np.float32(ROWS * length), np.float32(ROWS))
      for name, length in lengths.items()
    }
    return float(step_flops(state, rolled, rolled.batch, means).total)

  return measure, rolled.batch


def test_an_update_is_three_passes_of_the_student_and_one_of_the_teacher(
  measured,
):
  measure, batch = measured
  passes = [
    of(model.logits, model.abstract_params, batch.inputs, batch.targets)
    for model in (tiny.STUDENT, tiny.TEACHER)
  ]
  assert measure() == pytest.approx(3 * passes[0] + passes[1], rel=0.01)


@pytest.mark.parametrize("prefix", ["", "teacher_"])
def test_a_rollout_counts_by_the_tokens_that_were_written(measured, prefix):
  measure, batch = measured
  model = tiny.TEACHER if prefix else tiny.STUDENT
  params, mask = model.abstract_params, np.ones((ROWS, 8), bool)

  def prefill(params, inputs):
    return model.prefill(params, inputs, TOKENS, input_mask=mask)

  cache, _ = jax.eval_shape(prefill, params, batch.inputs)
  start = of(prefill, params, batch.inputs)
  step = of(model.decode, params, cache, jnp.zeros(ROWS, jnp.int32))
  of_rollout = measure(**{f"{prefix}sampled_length": 5}) - measure()
  assert of_rollout == pytest.approx(start + 4 * step, rel=0.01)
