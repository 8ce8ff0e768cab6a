"""One update: score with student and teacher, one loss, one optimizer step.

Student and teacher are scored in the same compiled program, on the same batch.
A teacher's parameters are arguments (closed over they would be folded into
the program as constants: minutes of compile time) and come back untouched.

Usage:
  train_step = TrainStep(student=…, frozen=…, objective=…, optimizer=…)
  state, metrics = update_step(train_step, state, frozen_params, batch, seed)

Units: the loss is Σ coefficient · value, as `masks.coefficients` have it. With
the reductions "sequence" and "token" that is nats per token; with "sum", T5X's,
`loss` is the sum over the tokens of a batch, while `loss/<source>` is in every
case a mean weighted by the coefficients, that is the token mean for "sum".
"""

from collections.abc import Mapping
from collections.abc import Set
import dataclasses
import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from gkd import flops
from gkd import keys
from gkd import masks
from gkd import trees
from gkd.losses import objective as objectives
from gkd.metrics import Mean
from gkd.metrics import Packed
from gkd.models import layer_stack
from gkd.training import self_teacher
from gkd.training import state as states
from gkd.training.optimizer import Optimizer
from gkd.training.state import TrainState
from gkd.training.teacher_per_row import TeacherPerRow
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params

_SQUARE_IS_FINITE = 1e18
# Else a CPU copies the moments of AdamW before it writes them where they are.
_IN_PLACE = {"xla_cpu_copy_insertion_use_region_analysis": True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainStep:
  """Everything static about an update; equal records share one compilation.

  Attributes:
    student: the model that learns.
    frozen: the models that the objective compares it with, by role. A teacher
      that the objective does not need costs a forward pass for metrics alone.
      One for each row is a `TeacherPerRow`, with parameters of each.
    objective: what is minimised.
    optimizer: how.
    reduction: the one normaliser, see `masks.coefficients`.
    micro_batches: the batch is scored in this many parts, whose gradients add
      up exactly to that of the whole.
    mesh: what a state is laid out over, and stays; None for one device.
    forbidden_ids: what the student's sampler never draws.
    teacher_decay: of a teacher that is made of the student, see `self_teacher`;
      None for one of its own.
  """

  student: LanguageModel
  frozen: Mapping[str, LanguageModel | TeacherPerRow]
  objective: objectives.Objective
  optimizer: Optimizer
  reduction: masks.Reduction = "sequence"
  micro_batches: int = 1
  mesh: jax.sharding.Mesh | None = None
  forbidden_ids: tuple[int, ...] = ()
  teacher_decay: float | None = None

  def __post_init__(self):
    hashable = flax.core.FrozenDict(self.frozen)
    object.__setattr__(self, "frozen", hashable)


@functools.partial(
  jax.jit, static_argnums=0, donate_argnums=1, compiler_options=_IN_PLACE
)
def update_step(
  train_step: TrainStep,
  state: TrainState,
  frozen_params: Mapping[str, Params],
  batch: Batch,
  seed: Array,
) -> tuple[TrainState, Packed]:
  """One optimizer step on one global batch.

  Args:
    train_step: the static part.
    state: donated.
    frozen_params: parameters of the models of `train_step.frozen`, but for a
      teacher that is made of the student.
    batch: the batch as trained, rollouts included.
    seed: int scalar; dropout masks are a function of (seed, step).

  Returns:
    The next state and metrics. If the loss or the gradient is not finite, the
    state keeps its parameters and `finite` is 0; it is also 0 if the next state
    is not finite. The loop stops on it.
  """
  dropout_key = keys.stream(seed, state.step, keys.Role.DROPOUT)
  coefficients = train_step.objective.coefficients(batch, train_step.reduction)
  gradient, loss, parts = gradients(
    train_step, state, frozen_params, batch, coefficients, dropout_key
  )
  update = train_step.optimizer.transformation().update
  updates, opt_state = layer_stack.over_layers(update)(
    gradient, state.opt_state, state.params
  )
  norm = trees.global_norm(gradient)
  finite = jnp.isfinite(loss) & jnp.isfinite(norm)
  params = optax.apply_updates(state.params, updates)
  decay = train_step.teacher_decay
  average = self_teacher.next_average(decay, state.average, params)
  params, opt_state, average = jax.tree.map(
    lambda new, old: jnp.where(finite, new, old),
    (params, opt_state, average),
    (state.params, state.opt_state, state.average),
  )
  param_norm = trees.global_norm(params)
  finite &= jnp.isfinite(param_norm) & trees.is_finite(average)
  # Slots are finite where the squares of the gradient are.
  finite &= jax.lax.cond(
    norm < _SQUARE_IS_FINITE, lambda _: True, trees.is_finite, opt_state
  )
  report = {
    "loss": Mean.of(loss),
    "learning_rate": Mean.of(train_step.optimizer.schedule(state.step)),
    "grad_norm": Mean.of(norm),
    "param_norm": Mean.of(param_norm),
    "tokens": Mean.of(jnp.sum(batch.weights)),
    "finite": Mean.of(finite),
  }
  state = TrainState(params, opt_state, state.step + 1, average)
  return _constrain(state, train_step), Packed.of(parts | report)


def model_flops(*arguments) -> float:
  """FLOPs of the matrix products of `update_step`, whose arguments it takes.

  Without what `REMAT` and `CHUNK_SIZE` compute a second time. JAX keeps the
  trace of a step that has run.
  """
  traced = update_step.trace(*arguments)
  return flops.products(traced.jaxpr, 1, recomputed=False).flops


def raise_if_not_finite(means: Mapping[str, Mean], done: int) -> None:
  """Raises if the loss, the gradient or the update of a step was not finite.

  Args:
    means: the metrics of the step, on the host.
    done: its number in metrics.jsonl, counted from 1.

  Raises:
    FloatingPointError: with what it is likely to come from.
  """
  if means["finite"].compute() == 1.0:
    return
  totals = {name: float(mean.total) for name, mean in means.items()}
  raise FloatingPointError(
    f"step {done}: loss {totals['loss']}, gradient norm {totals['grad_norm']}:"
    f" {_cause({n for n, total in totals.items() if not np.isfinite(total)})}"
  )


def _cause(broken: Set[str]) -> str:
  """What metrics that are not finite come from, and what to do about it."""
  if {"teacher_entropy", "student_entropy"} <= broken:
    return (
      "the logits of teacher and student are not finite; look at the token ids"
      " of the data, which both read"
    )
  if "teacher_entropy" in broken:
    return "the teacher's logits are not finite; look at its checkpoint"
  if "student_entropy" in broken:
    return (
      "the student's logits are not finite; lower LEARNING_RATE or, at the"
      " first step, look at its checkpoint and at the token ids of the data"
    )
  if "loss" in broken:
    return (
      "the logits are finite, the loss is not; look at DIVERGENCE where a"
      " probability is 0 (one of your own: check it with"
      " gkd.testing.check_divergence), or lower LEARNING_RATE"
    )
  if "grad_norm" in broken:
    return (
      "the loss is finite, its gradient is not; lower LEARNING_RATE, or check a"
      " DIVERGENCE of your own with gkd.testing.check_divergence"
    )
  return (
    "the updated parameters or optimizer slots are not finite; lower"
    " LEARNING_RATE or weight_decay, or set CLIP_NORM"
  )


def _constrain(state: TrainState, train_step: TrainStep) -> TrainState:
  """The state, kept where it was.

  Left to itself XLA lays Adafactor's factored slots out anew when parameters
  are split over devices, and the next step, called with other layouts, compiles
  a second time.
  """
  mesh = train_step.mesh
  if mesh is None or mesh.size == 1:
    return state
  like = states.abstract_state(
    train_step.student, train_step.optimizer, mesh, train_step.teacher_decay
  )
  return jax.lax.with_sharding_constraint(state, states.shardings(like))


def gradients(
  train_step: TrainStep,
  state: TrainState,
  frozen_params: Mapping[str, Params],
  batch: Batch,
  coefficients: Any,
  dropout_key: Key,
) -> tuple[Params, Array, dict[str, Mean]]:
  """Gradient, loss and metrics of the whole batch, added up part by part.

  The student's parameters are differentiated as the student's alone.
  """
  differentiate = jax.value_and_grad(_loss, argnums=1, has_aux=True)
  if (decay := train_step.teacher_decay) is not None:
    own = self_teacher.params_of(decay, state.params, state.average)
    frozen_params = {**frozen_params, "teacher": own}
  frozen_params = {
    role: model.on_device(frozen_params[role])
    for role, model in train_step.frozen.items()
  }

  def score(part: Batch, part_coefficients: Any, key: Key):
    (loss, parts), gradient = differentiate(
      train_step, state.params, frozen_params, part, part_coefficients, key
    )
    return gradient, loss, parts

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
  frozen_params: Mapping[str, Params],
  batch: Batch,
  coefficients: Any,
  dropout_key: Key,
) -> tuple[Array, dict[str, Mean]]:
  """Σ coefficient · value over the given rows, and their metrics."""
  student = train_step.student
  # An objective may call a head for a few positions at a time.
  by_student = objectives.Scored(
    student.hidden_of(params, batch, dropout_key=dropout_key),
    student.head_of(params, batch),
    train_step.forbidden_ids,
  )
  by_frozen = {
    role: objectives.Scored(
      # No dropout key: a teacher is always in inference mode.
      jax.lax.stop_gradient(model.hidden_of(frozen_params[role], batch)),
      model.head_of(frozen_params[role], batch),
    )
    for role, model in train_step.frozen.items()
  }
  loss, parts = train_step.objective(
    by_student, by_frozen, batch, coefficients, student.vocabulary_size
  )
  for model in train_step.frozen.values():
    if isinstance(model, TeacherPerRow):
      parts |= model.token_shares(batch)
  return loss, parts
