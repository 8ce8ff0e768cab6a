"""One update: score with student and teacher, one loss, one optimizer step.

Student and teacher are scored in the same compiled program, on the same batch.
The teacher's parameters are arguments (closed over they would be folded into
the program as constants: minutes of compile time) and come back untouched.

Usage:
  plan = Update(student=…, teacher=…, objective=…, optimizer=…)
  state, metrics = update_step(plan, state, teacher_params, batch, seed)
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from gkd import keys
from gkd import masks
from gkd import trees
from gkd.losses import objective as objectives
from gkd.metrics import Mean
from gkd.training.optimizer import Optimizer
from gkd.training.state import TrainState
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
  """Everything static about an update; equal plans share one compilation.

  Attributes:
    student: the model that learns.
    teacher: the frozen model, or None.
    objective: what is minimised.
    optimizer: how.
    reduction: the one normaliser, see `masks.coefficients`.
    micro_batches: the batch is scored in this many parts, whose gradients add
      up exactly to that of the whole.
  """

  student: LanguageModel
  teacher: LanguageModel | None
  objective: objectives.Objective
  optimizer: Optimizer
  reduction: masks.Reduction = "sequence"
  micro_batches: int = 1


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def update_step(
  plan: Update,
  state: TrainState,
  teacher_params: Params | None,
  batch: Batch,
  seed: Array,
) -> tuple[TrainState, dict[str, Mean]]:
  """One optimizer step on one global batch.

  Args:
    plan: the static part.
    state: donated.
    teacher_params: parameters of `plan.teacher`, None without one.
    batch: the batch as trained, rollouts included.
    seed: int scalar; dropout masks are a function of (seed, step).

  Returns:
    The next state and metrics. If the loss or the gradient is not finite, the
    state keeps its parameters and `finite` is 0; the loop stops on it.
  """
  dropout_key = keys.stream(seed, state.step, keys.Role.DROPOUT)
  target_segments = batch.segments.targets if batch.segments else None
  coefficients = masks.coefficients(
    batch.weights, plan.reduction, target_segments
  )
  gradients, loss, parts = _gradients(
    plan, state.params, teacher_params, batch, coefficients, dropout_key
  )
  updates, opt_state = plan.optimizer.transformation().update(
    gradients, state.opt_state, state.params
  )
  norm = trees.global_norm(gradients)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  params = optax.apply_updates(state.params, updates)
  params, opt_state = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    (params, opt_state),
    (state.params, state.opt_state),
  )
  report = {
    "loss": Mean.of(loss),
    "learning_rate": Mean.of(plan.optimizer.schedule(state.step)),
    "grad_norm": Mean.of(norm),
    "param_norm": Mean.of(trees.global_norm(params)),
    "tokens": Mean.of(jnp.sum(batch.weights)),
    "finite": Mean.of(finite),
  }
  return TrainState(params, opt_state, state.step + 1), parts | report


def _gradients(
  plan: Update,
  params: Params,
  teacher_params: Params | None,
  batch: Batch,
  coefficients: Array,
  dropout_key: Key,
) -> tuple[Params, Array, dict[str, Mean]]:
  """Gradient, loss and metrics of the whole batch, added up part by part."""
  differentiate = jax.value_and_grad(_loss, argnums=1, has_aux=True)

  def score(part: Batch, part_coefficients: Array, key: Key):
    (loss, parts), gradients = differentiate(
      plan, params, teacher_params, part, part_coefficients, key
    )
    return gradients, loss, parts

  if plan.micro_batches == 1:
    return score(batch, coefficients, dropout_key)

  def split(array: Array) -> Array:
    # Part i takes rows i, i+M, …: each device keeps the rows that it has.
    rows = array.shape[0] // plan.micro_batches
    array = array.reshape((rows, plan.micro_batches) + array.shape[1:])
    return jnp.moveaxis(array, 1, 0)

  def add(total, part):
    return jax.tree.map(jnp.add, total, score(*part)), None

  parts = (
    *jax.tree.map(split, (batch, coefficients)),
    jax.random.split(dropout_key, plan.micro_batches),
  )
  first = jax.tree.map(lambda x: x[0], parts)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(score, *first)
  )
  return jax.lax.scan(add, zeros, parts)[0]


def _loss(
  plan: Update,
  params: Params,
  teacher_params: Params | None,
  batch: Batch,
  coefficients: Array,
  dropout_key: Key,
) -> tuple[Array, dict[str, Mean]]:
  """Σ coefficient · value over the given rows, and their metrics."""
  context = {"segments": batch.segments, "positions": batch.positions}
  student, teacher = plan.student, plan.teacher
  student_hidden = student.hidden(
    params, batch.inputs, batch.targets, dropout_key=dropout_key, **context
  )
  teacher_head = teacher_hidden = None
  if teacher is not None:
    # No dropout key: the teacher is always in inference mode.
    teacher_hidden = jax.lax.stop_gradient(
      teacher.hidden(teacher_params, batch.inputs, batch.targets, **context)
    )
    teacher_head = functools.partial(teacher.head, teacher_params)
  return plan.objective(
    student_head=functools.partial(student.head, params),
    student_hidden=student_hidden,
    teacher_head=teacher_head,
    teacher_hidden=teacher_hidden,
    batch=batch,
    coefficients=coefficients,
    vocabulary_size=student.vocabulary_size,
  )
