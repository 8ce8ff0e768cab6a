"""An update is the same however the batch is padded, split or laid out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gkd import partitioning
from gkd.losses import divergence
from gkd.losses.objective import CrossEntropy
from gkd.losses.objective import Distillation
from gkd.metrics import Mean
from gkd.models import t5
from gkd.models.layer_stack import Execution
from gkd.training import state as states
from gkd.training.step import TrainStep
from gkd.training.step import raise_if_not_finite
from gkd.training.step import update_step
from gkd.training.telemetry import CompileCounter
from gkd.types import Batch
from gkd.types import Model
from tests import tiny

STUDENT = t5.encoder_decoder(
  dataclasses.replace(tiny.STUDENT.config, dropout_rate=0.0)
)
TEACHER = tiny.TEACHER
PLAN = TrainStep(
  student=STUDENT,
  frozen={"teacher": TEACHER},
  objective=Distillation(divergence=divergence.ReverseKL()),
  optimizer=tiny.adamw(total_steps=10),
)
SEED = np.int32(0)


def make_batch(padding: int = 0) -> Batch:
  """Eight rows of unequal length, one of them empty."""
  random = np.random.default_rng(0)
  inputs = random.integers(3, tiny.VOCABULARY.size, (8, 6))
  targets = random.integers(3, tiny.VOCABULARY.size, (8, 7))
  weights = np.ones((8, 7), np.float32)
  for row, length in enumerate([7, 1, 3, 5, 2, 7, 0, 4]):
    targets[row, max(length - 1, 0)] = 1
    targets[row, length:] = 0
    weights[row, length:] = 0
  width = ((0, 0), (0, padding))
  return Batch(
    inputs=jnp.asarray(np.pad(inputs, width), jnp.int32),
    input_mask=jnp.asarray(np.pad(inputs, width) > 0),
    targets=jnp.asarray(np.pad(targets, width), jnp.int32),
    weights=jnp.asarray(np.pad(weights, width)),
    rows=jnp.arange(8, dtype=jnp.int32),
    source=jnp.asarray([0, 1] * 4, jnp.int32),
  )


def start():
  """The student's parameters, new each time: a step donates them."""
  return jax.tree.map(jnp.array, tiny.parameters(STUDENT, 0))


@pytest.fixture(scope="module")
def teacher_params():
  return jax.tree.map(jnp.array, tiny.parameters(TEACHER, 1))


def step(plan, batch, teacher_params, mesh=None):
  params = start()
  if mesh is not None:
    student, teacher = (
      partitioning.place_model(
        Model(partitioning.partitioned(lm, mesh), own), mesh
      )
      for lm, own in ((STUDENT, params), (TEACHER, teacher_params))
    )
    plan = dataclasses.replace(
      plan, mesh=mesh, student=student.lm, frozen={"teacher": teacher.lm}
    )
    params, teacher_params = student.params, teacher.params
    batch = jax.device_put(batch, partitioning.batch_sharding(mesh))
  state = states.create(params, plan.optimizer.transformation())
  frozen = {"teacher": teacher_params} if plan.frozen else {}
  state, metrics = update_step(plan, state, frozen, batch, SEED)
  values = {name: mean.compute() for name, mean in metrics.items()}
  return jax.device_get(state.params), values


@pytest.fixture(scope="module")
def straight(teacher_params):
  return step(PLAN, make_batch(), teacher_params)


def assert_same(actual, expected, rtol=2e-5):
  assert actual[1].keys() == expected[1].keys()
  for name, value in expected[1].items():
    np.testing.assert_allclose(actual[1][name], value, rtol=rtol, err_msg=name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
    actual[0],
    expected[0],
  )


@pytest.mark.parametrize("reduction", ["sequence", "token"])
def test_micro_batches_equal_the_whole_batch(reduction, teacher_params):
  plan = dataclasses.replace(PLAN, reduction=reduction)
  if reduction != "sequence":  # one objective is enough for the other
    plan = dataclasses.replace(plan, objective=CrossEntropy(), frozen={})
  whole = step(plan, make_batch(), teacher_params)
  split = step(
    dataclasses.replace(plan, micro_batches=4), make_batch(), teacher_params
  )
  assert_same(split, whole)


def test_padding_changes_nothing(straight, teacher_params):
  assert_same(step(PLAN, make_batch(padding=5), teacher_params), straight)


@pytest.mark.parametrize(("model", "fsdp"), [(1, 1), (1, 4), (2, 2)])
def test_four_devices_equal_one(model, fsdp, straight, teacher_params):
  mesh = partitioning.make_mesh(model, fsdp=fsdp)
  assert_same(step(PLAN, make_batch(), teacher_params, mesh), straight)


def test_teacher_is_untouched_and_student_moves(teacher_params):
  before = jax.tree.map(np.array, teacher_params)
  params, _ = step(PLAN, make_batch(), teacher_params)
  jax.tree.map(np.testing.assert_array_equal, before, teacher_params)
  moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), params, start())
  assert max(jax.tree.leaves(moved)) > 1e-3


def test_a_step_that_is_not_finite_keeps_the_parameters(teacher_params):
  broken = jax.tree.map(lambda x: x * jnp.nan, teacher_params)
  params, metrics = step(PLAN, make_batch(), broken)
  assert metrics["finite"] == 0
  jax.tree.map(np.testing.assert_array_equal, params, start())


# Decay times rate is infinite; gradient and loss are not.
OVERFLOWING = tiny.adamw(learning_rate=3e38, weight_decay=3e38)


def test_an_update_that_is_not_finite_is_told(teacher_params):
  plan = dataclasses.replace(PLAN, optimizer=OVERFLOWING)
  _, metrics = step(plan, make_batch(), teacher_params)
  assert np.isfinite([metrics["loss"], metrics["grad_norm"]]).all()
  assert metrics["finite"] == 0


@pytest.mark.parametrize(
  ("broken", "cause"),
  [
    (["teacher_entropy", "loss", "grad_norm"], "the teacher's logits are not"),
    (["student_entropy", "loss"], "lower LEARNING_RATE or, at the first"),
    (["student_entropy", "teacher_entropy"], "look at the token ids of the"),
    (["loss", "grad_norm"], "the loss is not; look at DIVERGENCE"),
    (["grad_norm"], "its gradient is not; .* a DIVERGENCE of your own"),
    ([], "the updated parameters or optimizer slots are not finite"),
  ],
)
def test_numbers_that_are_not_finite_are_told_by_their_cause(broken, cause):
  names = ("loss", "grad_norm", "student_entropy", "teacher_entropy")
  values = dict.fromkeys(names, 1.0) | dict.fromkeys(broken, np.nan)
  means = {name: Mean.of(jnp.float32(x)) for name, x in values.items()}
  raise_if_not_finite(means | {"finite": Mean.of(jnp.float32(1))}, 7)
  with pytest.raises(FloatingPointError, match=rf"step 7: loss .*: .*{cause}"):
    raise_if_not_finite(means | {"finite": Mean.of(jnp.float32(0))}, 7)


@pytest.mark.parametrize("clip_norm", [1e-3, None])
def test_a_gradient_whose_square_overflows_is_clipped_or_stops(clip_norm):
  """By a power of two, 7e19: clipped, the same gradient to a rounding."""
  plan = dataclasses.replace(
    PLAN,
    frozen={},
    objective=CrossEntropy(),
    reduction="sum",
    optimizer=tiny.adamw(clip_norm=clip_norm),
  )
  batch, factor = make_batch(), 2.0**66
  plain = step(plan, batch, None)
  large = step(plan, batch.replace(weights=batch.weights * factor), None)
  norms = [metrics["grad_norm"] for _, metrics in (plain, large)]
  np.testing.assert_allclose(norms[1], norms[0] * factor, rtol=1e-5)
  assert large[1]["finite"] == (clip_norm is not None)
  if clip_norm is not None:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
      *(large[0], plain[0]),
    )


def test_dropout_changes_with_the_seed_and_only_then():
  config = dataclasses.replace(STUDENT.config, dropout_rate=0.5)
  plan = dataclasses.replace(
    PLAN,
    student=t5.encoder_decoder(config),
    frozen={},
    objective=CrossEntropy(),
  )

  def loss(seed):
    state = states.create(start(), plan.optimizer.transformation())
    _, metrics = update_step(plan, state, {}, make_batch(), np.int32(seed))
    return metrics["loss"].compute()

  assert loss(0) == loss(0)
  assert loss(0) != loss(1)


FACTORED = tiny.adafactor(min_dim_size_to_factor=8)


@pytest.mark.parametrize(
  ("optimizer", "fsdp", "scan"),
  [(tiny.adamw(), 1, False), (FACTORED, 1, False), (FACTORED, 2, True)],
)
def test_a_state_split_over_devices_compiles_once(optimizer, fsdp, scan):
  mesh = partitioning.make_mesh(model=2, fsdp=fsdp)
  student = t5.encoder_decoder(STUDENT.config, Execution(scan))
  plan = TrainStep(
    student=partitioning.partitioned(student, mesh),
    frozen={},
    objective=CrossEntropy(),
    optimizer=optimizer,
    mesh=mesh,
  )
  params = states.random_params(plan.student, jax.random.key(0), mesh)
  state = states.initial_state(plan.student, params, optimizer, mesh)
  layout = jax.tree.map(lambda x: x.sharding, state)
  batch = jax.device_put(make_batch(), partitioning.batch_sharding(mesh))
  counts = []
  with CompileCounter() as compiles:
    for _ in range(3):
      state, _ = update_step(plan, state, {}, batch, SEED)
      counts.append(compiles.count)
  assert counts == [counts[0]] * 3
  kept = jax.tree.map(
    lambda x, y: x.sharding.is_equivalent_to(y, x.ndim), state, layout
  )
  assert all(jax.tree.leaves(kept))


def test_gradients_are_clipped_after_their_norm_is_taken():
  """The norm is NumPy's of an independent gradient, in both runs."""
  plan = dataclasses.replace(
    PLAN, frozen={}, objective=CrossEntropy(), reduction="token"
  )
  batch = make_batch()

  def loss(params):
    logits = STUDENT.logits(params, batch.inputs, batch.targets)
    nats = -jax.nn.log_softmax(logits)
    nats = jnp.take_along_axis(nats, batch.targets[..., None], -1)[..., 0]
    return jnp.sum(nats * batch.weights) / jnp.sum(batch.weights)

  params = start()
  gradients = jax.device_get(jax.jit(jax.grad(loss))(params))
  leaves = [np.float64(x) for x in jax.tree.leaves(gradients)]
  norm = np.sqrt(sum(np.sum(x**2) for x in leaves))
  # AdamW's first moment after a step is (1 - b1) of the clipped gradient.
  for limit, expected in ((None, norm), (norm / 4, norm / 4)):
    optimizer = dataclasses.replace(PLAN.optimizer, clip_norm=limit)
    state = states.create(start(), optimizer.transformation())
    state, metrics = update_step(
      dataclasses.replace(plan, optimizer=optimizer), state, {}, batch, SEED
    )
    np.testing.assert_allclose(metrics["grad_norm"].compute(), norm, rtol=1e-5)
    moment = optax.tree_utils.tree_get(state.opt_state, "mu")
    squares = [np.sum(np.float64(x) ** 2) for x in jax.tree.leaves(moment)]
    np.testing.assert_allclose(np.sqrt(sum(squares)), 0.1 * expected, rtol=1e-5)
