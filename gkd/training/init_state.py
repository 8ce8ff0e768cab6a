"""The first state and frozen parameters, laid out over a mesh."""

from collections.abc import Callable
from collections.abc import Mapping
import functools
from typing import Any

import jax

from gkd import partitioning
from gkd.training import state as states
from gkd.training import t5x_adafactor_state
from gkd.training.optimizer import Optimizer
from gkd.training.state import TrainState
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params


def abstract_state(
  model: LanguageModel, optimizer: Optimizer, mesh: jax.sharding.Mesh
) -> TrainState:
  """Shapes, types and layout of the state; nothing is computed or allocated."""
  return _creation(model, optimizer, mesh)[0]


def initial_state(
  model: LanguageModel,
  params: Params,
  optimizer: Optimizer,
  mesh: jax.sharding.Mesh,
  slots: Mapping[str, Any] | None = None,
) -> TrainState:
  """The state before step 0; the caller's arrays are copied, so donate it.

  Args:
    model: the student.
    params: its parameters; they are cast to the types of `model.init`.
    optimizer: Adafactor where there are slots.
    mesh: devices.
    slots: T5X's, see `t5x_adafactor_state.restore`; None for empty ones.

  Raises:
    UserError: the slots are not those of the parameters.
  """
  abstract, create = _creation(model, optimizer, mesh)
  layout = jax.tree.map(lambda leaf: leaf.sharding, abstract.params)
  params = jax.tree.map(_cast, params, abstract.params)
  params = partitioning.place(params, layout)
  state = create(jax.tree.map(lambda x: x.copy(), params))
  if slots is None:
    return state
  opt_state = t5x_adafactor_state.restore(state.opt_state, state.params, slots)
  return state.replace(opt_state=opt_state)


def _cast(array: Any, like: jax.ShapeDtypeStruct) -> Any:
  return array if array.dtype == like.dtype else array.astype(like.dtype)


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


@functools.lru_cache(maxsize=32)
def _creation(
  model: LanguageModel, optimizer: Optimizer, mesh: jax.sharding.Mesh
) -> tuple[TrainState, Callable[[Params], TrainState]]:
  """The abstract state, and the compiled function that makes it."""
  params, transformation = model.abstract_params, optimizer.transformation()

  def create(params: Params) -> TrainState:
    return states.create(params, transformation)

  abstract = jax.eval_shape(create, params)
  layout = states.shardings(
    abstract,
    partitioning.parameter_shardings(model, params, mesh),
    partitioning.replicated(mesh),
  )
  abstract = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    abstract,
    layout,
  )
  return abstract, jax.jit(create, out_shardings=layout, donate_argnums=0)


def place_teacher(
  model: Model | None, mesh: jax.sharding.Mesh
) -> Params | None:
  """Parameters of a model that does not learn, laid out; None without one."""
  if model is None:
    return None
  layout = partitioning.parameter_shardings(model.lm, model.params, mesh)
  return partitioning.place(model.params, layout)


def model_info(model: LanguageModel, mesh: jax.sharding.Mesh) -> str:
  """The text of model-info.txt."""
  params = model.abstract_params
  axes = model.axes(params)
  layout = partitioning.shardings(axes, mesh)
  return partitioning.model_info_text(params, axes, layout)
