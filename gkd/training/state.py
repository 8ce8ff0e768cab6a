"""What a training run carries from step to step, laid out over a mesh."""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gkd import partitioning
from gkd.models import layer_stack
from gkd.training import self_teacher
from gkd.training import t5x_adafactor_state
from gkd.training.optimizer import Optimizer
from gkd.types import Array
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params


@flax.struct.dataclass
class TrainState:
  """Parameters, optimizer state and the number of finished steps.

  Data order, rollouts and the λ coin are functions of it and (seed, step), so
  this is all that a checkpoint needs.

  Attributes:
    average: of the parameters, where it is the teacher, see `self_teacher`.
    ahead: in checkpoints alone, the texts of the next step where they are drawn
      already, see `rollout_ahead`.
  """

  params: Params
  opt_state: Any
  step: Array  # int32 scalar
  average: Params | None = None
  ahead: Mapping[str, Array] | None = None


def abstract_state(
  model: LanguageModel,
  optimizer: Optimizer,
  mesh: jax.sharding.Mesh,
  teacher_decay: float | None = None,
) -> TrainState:
  """Shapes, types and shardings of the state; nothing is allocated."""
  return _creation(model, optimizer, mesh, teacher_decay)[0]


def initial_state(
  model: LanguageModel,
  params: Params,
  optimizer: Optimizer,
  mesh: jax.sharding.Mesh,
  slots: Mapping[str, Any] | None = None,
  teacher_decay: float | None = None,
) -> TrainState:
  """The state before step 0; the caller's arrays are copied, so donate it.

  Args:
    model: the student.
    params: its parameters; they are cast to the types of `model.init`.
    optimizer: Adafactor where there are slots.
    mesh: devices.
    slots: T5X's, see `t5x_adafactor_state.restore`; None for empty ones.
    teacher_decay: see `self_teacher`.

  Raises:
    UserError: the slots are not those of the parameters.
  """
  abstract, create = _creation(model, optimizer, mesh, teacher_decay)
  params = jax.tree.map(_cast, params, abstract.params)
  params = partitioning.place(params, shardings(abstract.params))
  state = create(params)
  if slots is None:
    return state
  plain = without_stacks(state)
  opt_state = t5x_adafactor_state.restore(plain.opt_state, plain.params, slots)
  return with_stacks(plain.replace(opt_state=opt_state), abstract)


def create(
  params: Params, transformation: Any, teacher_decay: float | None = None
) -> TrainState:
  """State before the first step; `transformation` is an optax one."""
  opt_state = transformation.init(layer_stack.unstacked(params))
  if layer_stack.is_stacked(params):
    opt_state = layer_stack.stacked(opt_state)
  average = self_teacher.first_average(teacher_decay, params)
  return TrainState(params, opt_state, jnp.zeros((), jnp.int32), average)


def without_stacks(state: TrainState) -> TrainState:
  """As checkpoints have it, one array a layer; the state is copied.

  One without stacks, which checkpoints have as it is, is not.
  """
  if not layer_stack.is_stacked(state.params):
    return state
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  layout = shardings(layer_stack.unstacked(like))
  return jax.jit(layer_stack.unstacked, out_shardings=layout)(state)


def with_stacks(state: TrainState, like: TrainState) -> TrainState:
  """Inverse of `without_stacks`, for an abstract state; a copy, too."""
  if not layer_stack.is_stacked(like.params):
    return state
  return jax.jit(layer_stack.stacked, out_shardings=shardings(like))(state)


def shardings(abstract: Any) -> Any:
  """The shardings of an abstract state, or of a part of it."""
  return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def random_params(
  model: LanguageModel, key: Key, mesh: jax.sharding.Mesh
) -> Params:
  """Fresh parameters, each device with its part alone.

  Raises:
    UserError: an array does not divide over the mesh.
  """
  like = model.abstract_params
  layout = partitioning.parameter_shardings(model, like, mesh)
  partitioning.check_divisible(like, layout)
  return jax.jit(model.init, out_shardings=layout)(key)


def _cast(array: Any, like: jax.ShapeDtypeStruct) -> Any:
  return array if array.dtype == like.dtype else array.astype(like.dtype)


@functools.lru_cache(maxsize=32)
def _creation(
  model: LanguageModel,
  optimizer: Optimizer,
  mesh: jax.sharding.Mesh,
  teacher_decay: float | None,
) -> tuple[TrainState, Callable[[Params], TrainState]]:
  """The abstract state, and the compiled function that makes it of copies.

  An optimizer slot of the same path and shape as a parameter is laid out like
  it, as is its average; factored and scalar slots are replicated.
  """
  make = functools.partial(
    create,
    transformation=optimizer.transformation(),
    teacher_decay=teacher_decay,
  )
  abstract = jax.eval_shape(make, model.abstract_params)
  layout = partitioning.parameter_shardings(model, abstract.params, mesh)
  with_path = jax.tree_util.tree_leaves_with_path
  parameters = {
    path: (leaf.shape, sharding)
    for (path, leaf), sharding in zip(
      with_path(abstract.params), jax.tree.leaves(layout), strict=True
    )
  }

  def placed(path: tuple[Any, ...], leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = partitioning.replicated(mesh)
    for start in range(len(path)):
      shape, own = parameters.get(path[start:], (None, None))
      if shape == leaf.shape:
        sharding = own
        break
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  abstract = jax.tree_util.tree_map_with_path(placed, abstract)
  return abstract, jax.jit(
    lambda params: make(jax.tree.map(jnp.copy, params)),
    out_shardings=shardings(abstract),
  )
