"""Layers that a loop runs are stacks, with the same numbers and files."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd import partitioning
from gkd.checkpoints.retention import PreservationPolicy
from gkd.checkpoints.source import load_params
from gkd.checkpoints.source import open_checkpoint
from gkd.checkpoints.store import Store
from gkd.losses.objective import CrossEntropy
from gkd.models import layer_stack
from gkd.models import registry
from gkd.training import loop
from gkd.training import state as states
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from gkd.types import Model
from tests import tiny
from tests.training import test_step

CONFIG = dataclasses.replace(
  tiny.STUDENT.config, num_encoder_layers=3, dropout_rate=0.0
)
SCANNED = registry.build(CONFIG, execution=layer_stack.Execution(scan=True))
PLAN = TrainStep(
  student=SCANNED,
  frozen={},
  objective=CrossEntropy(),
  optimizer=tiny.adafactor(min_dim_size_to_factor=8, clip_norm=1e-2),
)


def assert_close(actual, expected, tolerance=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance),
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
    params = tiny.parameters(registry.build(CONFIG), 0)
    params = jax.tree.map(jnp.array, params)
    if student is SCANNED:
      params = layer_stack.stacked(params)
    plan = dataclasses.replace(PLAN, student=student)
    state = states.create(params, plan.optimizer.transformation())
    for _ in range(2):
      state, metrics = update_step(
        plan, state, {}, test_step.make_batch(), test_step.SEED
      )
    return state, metrics

  stacks = two_steps(SCANNED)
  assert layer_stack.is_stacked(stacks[0].params)
  assert_close(layer_stack.unstacked(stacks), two_steps(registry.build(CONFIG)))


@pytest.fixture(scope="module")
def make(caches):
  def make(folder, *, scan=True, **changes):
    def role(config, seed):
      config = dataclasses.replace(config, dropout_rate=0.0)
      params = tiny.parameters(registry.build(config), seed)
      model = registry.build(config, execution=layer_stack.Execution(scan))
      return Model(model, layer_stack.stacked(params) if scan else params)

    roles = {
      "student": role(tiny.STUDENT.config, 0),
      "teacher": role(tiny.TEACHER.config, 1),
    }
    return tiny.make_run(
      folder,
      caches,
      roles=roles,
      optimizer=PLAN.optimizer,
      evaluations=(tiny.make_evaluation(caches["validation"]),),
      preservation=PreservationPolicy(latest=9),
      **changes,
    )

  return make


@pytest.fixture(scope="module")
def looped(tmp_path_factory, make):
  """Folder and last state of a run whose models loop over their layers."""
  folder = tmp_path_factory.mktemp("looped")
  return folder, loop.train(make(folder))


def test_a_run_of_stacks_is_that_of_plain_layers(tmp_path, make, looped):
  """To rounding, rollouts and evaluations included, in the same files."""
  loop.train(make(tmp_path, scan=False))
  for one, other in zip(*map(tiny.records, (looped[0], tmp_path)), strict=True):
    assert one.keys() == other.keys()
    for name in one.keys() - {"step"}:
      if not name.startswith("time/"):
        np.testing.assert_allclose(
          one[name], other[name], rtol=2e-3, atol=1e-5, err_msg=name
        )
  stacks, plain = map(open_checkpoint, (looped[0], tmp_path))
  assert stacks.leaves.keys() == plain.leaves.keys()
  assert stacks.slots.keys() == plain.slots.keys()
  for name, leaf in plain.leaves.items():
    np.testing.assert_allclose(
      stacks.leaves[name].read(), leaf.read(), atol=1e-4, err_msg=name
    )


@pytest.mark.parametrize("fsdp", [1, 4])
def test_a_run_of_stacks_goes_on_where_it_was(tmp_path, make, looped, fsdp):
  """To the bit on the same device, to rounding on others."""
  for number in (2, 4):
    name = f"checkpoints/{number:08d}"
    shutil.copytree(looped[0] / name, tmp_path / name)
  shutil.copy(looped[0] / "run.json", tmp_path)
  changes = {"mesh": partitioning.make_mesh(fsdp=4)} if fsdp == 4 else {}
  state = loop.train(make(tmp_path, **changes))
  if fsdp == 1:
    tiny.assert_identical(state, looped[1])
  else:
    assert_close(state, looped[1], 1e-4)


def test_stacks_start_from_the_slots_of_each_array(tmp_path, make, looped):
  """Those of a checkpoint, so that four steps and two are six."""
  four = open_checkpoint(looped[0] / "checkpoints/00000004")
  slots = {name: leaf.read() for name, leaf in four.slots.items()}
  run = make(tmp_path)
  student = run.student.lm
  params = load_params(four, student, run.mesh)
  rule = PLAN.optimizer
  state = states.initial_state(student, params, rule, run.mesh, slots)
  saved = Store(looped[0] / "checkpoints").restore(
    4, layer_stack.unstacked(states.abstract_state(student, rule, run.mesh))
  )
  plain = states.without_stacks(state)
  like = layer_stack.unstacked(states.abstract_state(student, rule, run.mesh))
  assert states.shardings(plain) == states.shardings(like)
  tiny.assert_identical(plain.params, saved.params)
  factored = [
    [x for x in jax.tree.leaves(s.opt_state) if x.ndim] for s in (plain, saved)
  ]
  tiny.assert_identical(*factored)
