"""Layers that a loop runs are updated as stacks, to the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd.losses.objective import CrossEntropy
from gkd.models import layer_stack
from gkd.models import registry
from gkd.training import state as states
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from tests import tiny
from tests.training import test_step

SCANNED = registry.build(
  dataclasses.replace(tiny.STUDENT.config, num_encoder_layers=3),
  execution=layer_stack.Execution(scan=True),
)
PLAN = TrainStep(
  student=SCANNED,
  frozen={},
  objective=CrossEntropy(),
  optimizer=tiny.adafactor(min_dim_size_to_factor=8, clip_norm=1e-2),
)


def assert_close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
    *jax.device_get((actual, expected)),
  )


def params_of_unlike_layers():
  """Stacks of three and two layers, each ten times the one before."""
  draw = np.random.default_rng(0).normal

  def layer(i):
    return {
      "kernel": 10.0**i * draw(size=(8, 16)),
      "norm": {"scale": draw(size=8)},
    }

  tree = {
    "encoder": {f"layers_{i}": layer(i) for i in range(3)}
    | {"scale": draw(size=8)},
    "decoder": {f"layers_{i}": layer(i) for i in range(2)},
    "embedding": draw(size=(20, 8)),
  }
  return jax.tree.map(jnp.float32, tree)


@pytest.mark.parametrize("clip_norm", [None, 1e-2])
@pytest.mark.parametrize(
  "optimizer",
  [
    tiny.adamw(weight_decay=0.1),
    tiny.adafactor(min_dim_size_to_factor=8),
    tiny.adafactor(),
  ],
  ids=["adamw", "factored", "unfactored"],
)
def test_an_update_of_stacks_is_that_of_each_array(optimizer, clip_norm):
  optimizer = dataclasses.replace(optimizer, clip_norm=clip_norm)
  rule = optimizer.transformation()

  @jax.jit
  def step(params, opt_state):
    gradient = jax.tree.map(lambda x: x + jnp.cos(10 * x), params)
    update = layer_stack.over_layers(rule.update)
    updates, opt_state = update(gradient, opt_state, params)
    return optax.apply_updates(params, updates), opt_state

  params = params_of_unlike_layers()
  each = params, rule.init(params)
  stacks = layer_stack.stacked(each)
  assert stacks[0]["encoder"][layer_stack.STACK]["kernel"].shape == (3, 8, 16)
  for _ in range(2):
    each, stacks = step(*each), step(*stacks)
  assert_close(layer_stack.unstacked(stacks), each)


def test_a_step_of_stacks_is_that_of_each_array():
  def two_steps(student):
    plan = dataclasses.replace(PLAN, student=student)
    params = jax.tree.map(jnp.array, tiny.parameters(SCANNED, 0))
    state = states.create(params, plan.optimizer.transformation())
    for _ in range(2):
      state, metrics = update_step(
        plan, state, {}, test_step.make_batch(), test_step.SEED
      )
    return state, metrics

  stacks = two_steps(SCANNED)
  assert_close(
    stacks, two_steps(dataclasses.replace(SCANNED, scans_layers=False))
  )
