"""One update: score with student and teacher, one loss, one optimizer step.

Student and teacher are scored in the same compiled program, on the same batch.
The teacher's parameters are arguments (closed over they would be folded into
the program as constants: minutes of compile time) and come back untouched.

Usage:
  train_step = TrainStep(student=…, teacher=…, objective=…, optimizer=…)
  state, metrics = update_step(train_step, state, teacher_params, batch, seed)

Units: the loss is Σ coefficient · value, as `masks.coefficients` have it. With
the reductions "sequence" and "token" that is nats per token; with "sum", T5X's,
`loss` is the sum over the tokens of a batch, while `loss/<source>` is in every
case a mean weighted by the coefficients, that is the token mean for "sum".
"""

from collections.abc import Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
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
class TrainStep:
  """Everything static about an update; equal records share one compilation.

  Attributes:
    student: the model that learns.
    teacher: the frozen model that the objective compares it with, or None. One
      that the objective does not need costs a forward pass for metrics alone.
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


def update_step(
  train_step: TrainStep,
  state: TrainState,
  teacher_params: Params | None,
  batch: Batch,
  seed: Array,
) -> tuple[TrainState, dict[str, Mean]]:
  """One optimizer step on one global batch.

  Args:
    train_step: the static part.
    state: donated.
    teacher_params: parameters of `train_step.teacher`, None without one.
    batch: the batch as trained, rollouts included.
    seed: int scalar; dropout masks are a function of (seed, step).

  Returns:
    The next state and metrics. If the loss or the gradient is not finite, the
    state keeps its parameters and `finite` is 0; the loop stops on it. The next
    state is laid out as the given one.
  """
  layout = _layout(state)
  return _update(train_step, layout, state, teacher_params, batch, seed)


def raise_if_not_finite(means: Mapping[str, Mean], step: int) -> None:
  """Raises if the loss or the gradient of a step was not finite.

  Args:
    means: the metrics of the step, on the host.
    step: of the run.
  """
  if means["finite"].compute() == 1.0:
    return
  raise FloatingPointError(
    f"step {step}: loss {float(means['loss'].total)}, gradient norm"
    f" {float(means['grad_norm'].total)}; the parameters were not updated and"
    " the last checkpoint stands. Lower LEARNING_RATE, set clip_norm, or look"
    " at the samples of this step"
  )


def _layout(state: TrainState) -> tuple[NamedSharding | None, ...]:
  """Where the arrays of a state are; None where they are on one device.

  Static, so equal layouts have to be equal objects: P(), P(None) and P("model")
  on an axis of one device are the same to XLA but not to Python.
  """

  def spread(array: Array) -> NamedSharding | None:
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.num_devices == 1:
      return None
    sizes = sharding.mesh.shape
    spec = [
      axis if any(sizes[name] > 1 for name in _names(axis)) else None
      for axis in sharding.spec
    ]
    while spec and spec[-1] is None:
      spec.pop()
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))

  return tuple(spread(array) for array in jax.tree.leaves(state))


def _names(axis: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """Mesh axes that one dimension is split over."""
  if axis is None:
    return ()
  return axis if isinstance(axis, tuple) else (axis,)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(
  train_step: TrainStep,
  layout: tuple[NamedSharding | None, ...],
  state: TrainState,
  teacher_params: Params | None,
  batch: Batch,
  seed: Array,
) -> tuple[TrainState, dict[str, Mean]]:
  """The compiled step; see `update_step`."""
  dropout_key = keys.stream(seed, state.step, keys.Role.DROPOUT)
  target_segments = batch.segments.targets if batch.segments else None
  coefficients = masks.coefficients(
    batch.weights, train_step.reduction, target_segments
  )
  gradients, loss, parts = _gradients(
    train_step, state.params, teacher_params, batch, coefficients, dropout_key
  )
  updates, opt_state = train_step.optimizer.transformation().update(
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
    "learning_rate": Mean.of(train_step.optimizer.schedule(state.step)),
    "grad_norm": Mean.of(norm),
    "param_norm": Mean.of(trees.global_norm(params)),
    "tokens": Mean.of(jnp.sum(batch.weights)),
    "finite": Mean.of(finite),
  }
  state = _constrain(TrainState(params, opt_state, state.step + 1), layout)
  return state, parts | report


def _constrain(
  state: TrainState, layout: tuple[NamedSharding | None, ...]
) -> TrainState:
  """The state, kept where it was.

  Left to itself XLA lays Adafactor's factored slots out anew when parameters
  are split over devices, and the next step, called with other layouts, compiles
  a second time.
  """
  arrays, structure = jax.tree.flatten(state)
  return structure.unflatten(
    array
    if sharding is None
    else jax.lax.with_sharding_constraint(array, sharding)
    for array, sharding in zip(arrays, layout, strict=True)
  )


def _gradients(
  train_step: TrainStep,
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
      train_step, params, teacher_params, part, part_coefficients, key
    )
    return gradients, loss, parts

  if train_step.micro_batches == 1:
    return score(batch, coefficients, dropout_key)

  def split(array: Array) -> Array:
    # Part i takes rows i, i+M, …: each device keeps the rows that it has.
    rows = array.shape[0] // train_step.micro_batches
    array = array.reshape((rows, train_step.micro_batches) + array.shape[1:])
    return jnp.moveaxis(array, 1, 0)

  def add(total, part):
    return jax.tree.map(jnp.add, total, score(*part)), None

  parts = (
    *jax.tree.map(split, (batch, coefficients)),
    jax.random.split(dropout_key, train_step.micro_batches),
  )
  first = jax.tree.map(lambda x: x[0], parts)
  zeros = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(score, *first)
  )
  return jax.lax.scan(add, zeros, parts)[0]


def _loss(
  train_step: TrainStep,
  params: Params,
  teacher_params: Params | None,
  batch: Batch,
  coefficients: Array,
  dropout_key: Key,
) -> tuple[Array, dict[str, Mean]]:
  """Σ coefficient · value over the given rows, and their metrics."""
  student, teacher = train_step.student, train_step.teacher
  student_hidden = student.hidden_of(params, batch, dropout_key=dropout_key)
  teacher_head = teacher_hidden = None
  if teacher is not None:
    # No dropout key: the teacher is always in inference mode.
    teacher_hidden = jax.lax.stop_gradient(
      teacher.hidden_of(teacher_params, batch)
    )
    teacher_head = functools.partial(teacher.head, teacher_params)
  return train_step.objective(
    student_head=functools.partial(student.head, params),
    student_hidden=student_hidden,
    teacher_head=teacher_head,
    teacher_hidden=teacher_hidden,
    batch=batch,
    coefficients=coefficients,
    vocabulary_size=student.vocabulary_size,
  )
