"""The first state and frozen parameters, laid out over a mesh."""

from collections.abc import Mapping
from typing import Any

import jax

from gkd import partitioning
from gkd.training import state as states
from gkd.training import t5x_adafactor_state
from gkd.training.optimizer import Optimizer
from gkd.training.state import TrainState
from gkd.types import LanguageModel
from gkd.types import Params


def abstract_state(
  model: LanguageModel, optimizer: Optimizer, mesh: jax.sharding.Mesh
) -> TrainState:
  """Shapes, types and layout of the state; nothing is computed or allocated."""
  transformation = optimizer.transformation()
  params = jax.eval_shape(model.init, jax.random.key(0))
  spots = partitioning.shardings(model.axes(params), mesh)
  abstract = jax.eval_shape(lambda p: states.create(p, transformation), params)
  layout = states.shardings(abstract, spots, partitioning.replicated(mesh))
  return jax.tree.map(
    lambda leaf, spot: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=spot
    ),
    abstract,
    layout,
  )


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
    params: its parameters.
    optimizer: Adafactor where there are slots.
    mesh: devices.
    slots: T5X's, see `t5x_adafactor_state.restore`; None for empty ones.

  Raises:
    UserError: the slots are not those of the parameters.
  """
  transformation = optimizer.transformation()
  abstract = abstract_state(model, optimizer, mesh)
  layout = jax.tree.map(lambda leaf: leaf.sharding, abstract)
  params = partitioning.place(params, layout.params)
  params = jax.tree.map(lambda x: x.copy(), params)
  create = jax.jit(
    lambda p: states.create(p, transformation),
    out_shardings=layout,
    donate_argnums=0,
  )
  state = create(params)
  if slots is None:
    return state
  opt_state = t5x_adafactor_state.restore(state.opt_state, state.params, slots)
  return state.replace(opt_state=opt_state)


def place_teacher(
  model: LanguageModel | None, params: Params | None, mesh: jax.sharding.Mesh
) -> Params | None:
  """Parameters of a model that does not learn; None without one."""
  if model is None:
    return None
  spots = partitioning.shardings(model.axes(params), mesh)
  return partitioning.place(params, spots)


def description(
  model: LanguageModel, params: Params, mesh: jax.sharding.Mesh
) -> str:
  """The text of model-info.txt."""
  axes = model.axes(params)
  spots = partitioning.shardings(axes, mesh)
  return partitioning.model_info_text(params, axes, spots)
