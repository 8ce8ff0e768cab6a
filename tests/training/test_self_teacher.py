"""A teacher made of the student follows it as its equation says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import partitioning
from gkd.losses.objective import CrossEntropy
from gkd.models import layer_stack
from gkd.models import registry
from gkd.sampling.two_models import Interleaved
from gkd.training import loop
from gkd.training import state as states
from gkd.training.guard import Guard
from gkd.training.rollout import Rollout
from gkd.training.step import TrainStep
from gkd.training.step import update_step
from gkd.types import UserError
from tests import tiny
from tests.training import test_step

STUDENT = test_step.STUDENT
PRIVILEGED = dataclasses.replace(STUDENT, privileged=True)
SEED = test_step.SEED


def plan(decay, student=STUDENT, **changes) -> TrainStep:
  return dataclasses.replace(
    test_step.PLAN,
    student=student,
    frozen={"teacher": dataclasses.replace(student, privileged=True)},
    teacher_decay=decay,
    **changes,
  )


def told(batch=None):
  """A batch whose teacher reads another prompt."""
  batch = batch or test_step.make_batch()
  other = jnp.flip(batch.inputs, axis=0)
  return batch.replace(teacher_inputs=other, teacher_input_mask=other > 0)


def begun(made: TrainStep, like=STUDENT):
  rule = made.optimizer.transformation()
  params = jax.tree.map(jnp.array, tiny.parameters(like, 0))
  if layer_stack.is_stacked(made.student.abstract_params):
    params = layer_stack.stacked(params)
  return states.create(params, rule, made.teacher_decay)


def close(actual, expected, tolerance=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance, rtol=0),
    *jax.device_get((actual, expected)),
  )


def test_average_is_the_recursion_over_the_students_parameters():
  made, decay = plan(0.75), 0.75
  state = begun(made)

  def doubles(tree):
    return jax.tree.map(np.float64, jax.device_get(tree))

  expected = doubles(state.params)
  for _ in range(4):
    state, _ = update_step(made, state, {}, told(), SEED)
    expected = jax.tree.map(
      lambda old, new: decay * old + (1 - decay) * new,
      *(expected, doubles(state.params)),
    )
  close(state.average, expected)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected, state.params)
  assert max(jax.tree.leaves(moved)) > 1e-3


def test_the_average_is_what_the_student_is_compared_with():
  made = plan(0.75)
  state, _ = update_step(made, begun(made), {}, told(), SEED)
  teacher = jax.tree.map(jnp.array, state.average)
  frozen = dataclasses.replace(made, teacher_decay=None)
  own = jax.tree.map(jnp.array, state.replace(average=None))
  expected, metrics = update_step(
    frozen, own, {"teacher": teacher}, told(), SEED
  )
  state, found = update_step(made, state, {}, told(), SEED)
  close(state.params, expected.params)
  assert found["loss"].compute() == pytest.approx(metrics["loss"].compute())


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_a_live_teacher_is_a_copy_of_the_student_that_has_no_gradient(
  micro_batches,
):
  made = plan(0.0, micro_batches=micro_batches)
  frozen = dataclasses.replace(plan(None))
  state, copied = begun(made), begun(frozen)
  assert state.average is None
  for _ in range(2):
    teacher = {"teacher": jax.tree.map(jnp.array, copied.params)}
    copied, expected = update_step(frozen, copied, teacher, told(), SEED)
    state, metrics = update_step(made, state, {}, told(), SEED)
    for name in ("loss", "grad_norm"):
      value = expected[name].compute()
      assert metrics[name].compute() == pytest.approx(value, rel=1e-5)
      assert value > 1e-3
  close(state.params, copied.params, 1e-5)


def test_a_live_teacher_that_reads_the_same_prompt_teaches_nothing():
  made = plan(0.0)
  state = begun(made)
  _, metrics = update_step(made, state, {}, test_step.make_batch(), SEED)
  for name in ("forward_kl", "reverse_kl", "loss", "grad_norm"):
    assert abs(metrics[name].compute()) < 1e-6


def test_a_skipped_update_leaves_the_average_as_it_was():
  made = plan(0.75)
  state = begun(made)
  before = jax.device_get(state.average)
  broken = jax.tree.map(lambda x: x * jnp.nan, state.params)
  state = state.replace(params=broken)
  state, metrics = update_step(made, state, {}, told(), SEED)
  assert metrics["finite"].compute() == 0
  tiny.assert_identical(state.average, before)


def test_stacked_layers_have_the_same_average():
  config = dataclasses.replace(STUDENT.config, num_encoder_layers=3)
  plain, stacks = (
    registry.build(config, "", layer_stack.Execution(scan))
    for scan in (False, True)
  )
  averages = []
  for student in (plain, stacks):
    made = plan(0.5, student)
    state = begun(made, plain)
    for _ in range(2):
      state, _ = update_step(made, state, {}, told(), SEED)
    averages.append(state.average)
  assert layer_stack.is_stacked(averages[1])
  # The loss does not read the row of an id that no text has.
  average = jax.tree.map(jnp.array, state.average)
  table = average["token_embedder"]["embedding"]
  average["token_embedder"]["embedding"] = table.at[-1].set(jnp.inf)
  _, metrics = update_step(
    made, state.replace(average=average), {}, told(), SEED
  )
  assert np.isfinite(metrics["loss"].compute())
  assert metrics["finite"].compute() == 0
  close(averages[0], layer_stack.unstacked(averages[1]), 1e-5)


def test_the_average_is_laid_out_like_the_student_and_has_the_same_values():
  def steps(mesh):
    student = partitioning.partitioned(STUDENT, mesh)
    made = plan(0.5, student, mesh=mesh)
    params = jax.tree.map(jnp.array, tiny.parameters(STUDENT, 0))
    state = states.initial_state(
      student, params, made.optimizer, mesh, None, 0.5
    )
    for _ in range(2):
      batch = jax.device_put(told(), partitioning.batch_sharding(mesh))
      state, _ = update_step(made, state, {}, batch, SEED)
    return state

  split = steps(partitioning.make_mesh(2, fsdp=2))
  layouts = [
    jax.tree.map(lambda x: x.sharding, tree)
    for tree in (split.average, split.params)
  ]
  assert layouts[0] == layouts[1]
  kernel = split.average["token_embedder"]["embedding"]
  assert not kernel.sharding.is_fully_replicated
  one = steps(partitioning.make_mesh(devices=jax.devices()[:1]))
  close(split.average, one.average, 1e-5)


class Stop(Exception):
  """A run that is killed."""


ROLLOUTS = {
  "teacher writes": Rollout(0.5, off_policy_source="teacher"),
  "both write": Rollout(1.0, proposal=Interleaved(3)),
}


@pytest.mark.parametrize("rollout", ROLLOUTS)
def test_a_run_that_was_killed_ends_to_the_bit_like_another(
  rollout, tmp_path, caches, monkeypatch
):
  def make(name):
    return tiny.make_run(
      tmp_path / name,
      caches,
      teacher=None,
      teacher_decay=0.9,
      rollout=ROLLOUTS[rollout],
      evaluations=(tiny.make_evaluation(caches["validation"]),),
      sample=3,
      eval=3,
    )

  straight = loop.train(make("straight"))
  update = loop.update_step

  def killed(made, state, *others):
    if int(state.step) == 4:
      raise Stop
    return update(made, state, *others)

  monkeypatch.setattr(loop, "update_step", killed)
  with pytest.raises(Stop):
    loop.train(make("killed"))
  monkeypatch.undo()
  tiny.assert_identical(loop.train(make("killed")), straight)
  folders = tmp_path / "killed", tmp_path / "straight"
  records = [tiny.records(folder) for folder in folders]
  assert records[0] == records[1]
  last = records[0][-1]
  assert last["eval/sums/forward_kl"] > 0
  assert "eval/sums/teacher_accuracy" in last


def test_the_teachers_of_two_evaluations_are_not_the_same(tmp_path, caches):
  run = tiny.make_run(
    tmp_path,
    caches,
    teacher=None,
    teacher_decay=0.5,
    evaluations=(tiny.make_evaluation(caches["validation"]),),
    eval=3,
    eval_first=True,
  )
  assert not run.followed_metric  # by the guard: they do not compare
  loop.train(run)
  found = [
    line["eval/sums/teacher_length"]
    for line in tiny.records(tmp_path)
    if "eval/sums/teacher_length" in line
  ]
  assert len(found) == 3
  assert len(set(found)) > 1


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"teacher_decay": 1.0}, "TEACHER_DECAY is 1.0; expected .* below 1"),
    ({"teacher_decay": -0.1}, "TEACHER_DECAY is -0.1; expected"),
    ({"teacher_decay": True}, "TEACHER_DECAY is True; expected"),
    (
      {"teacher_decay": 0.0},
      "but for temperatures and dropout it has nothing to teach",
    ),
    ({"guard": Guard(mode="stop")}, "a teacher that stays as it is"),
    ({"teacher": tiny.parameters(tiny.TEACHER, 1)}, "is another teacher"),
    ({"objective": CrossEntropy(), "rollout": None}, "compares with no teach"),
  ],
)
def test_a_teacher_that_could_not_teach_is_refused(
  changes, message, tmp_path, caches
):
  fields = {"teacher": None, "teacher_decay": 0.9, **changes}
  with pytest.raises(UserError, match=message) as error:
    tiny.make_run(tmp_path, caches, **fields)
  assert "\n" not in str(error.value)


def test_a_run_goes_on_with_the_decay_that_it_had(tmp_path, caches):
  def train(decay):
    changes = {"teacher": None, "teacher_decay": decay, "train_steps": 2}
    loop.train(tiny.make_run(tmp_path, caches, **changes))

  train(0.9)
  with pytest.raises(UserError, match=r"TEACHER_DECAY: 0\.9 → 0\.5"):
    train(0.5)
