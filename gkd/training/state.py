"""What a training run carries from step to step: nothing else is saved."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from gkd.types import Array
from gkd.types import Params


@flax.struct.dataclass
class TrainState:
  """Parameters, optimizer state and the number of finished steps.

  Data order, rollouts and the λ coin are functions of (seed, step), so this is
  all that a checkpoint needs.
  """

  params: Params
  opt_state: Any
  step: Array  # int32 scalar


def create(params: Params, transformation: Any) -> TrainState:
  """State before the first step; `transformation` is an optax one."""
  return TrainState(
    params=params,
    opt_state=transformation.init(params),
    step=jnp.zeros((), jnp.int32),
  )


def shardings(
  state: TrainState, parameter_shardings: Any, replicated: Any
) -> TrainState:
  """Shardings for a whole state, from those of its parameters.

  An optimizer slot of the same path and shape as a parameter is laid out like
  it; factored and scalar slots are replicated.

  Args:
    state: a state, or its `jax.eval_shape`.
    parameter_shardings: tree like `state.params`.
    replicated: sharding for everything else.
  """
  leaves = jax.tree_util.tree_flatten_with_path(state.params)[0]
  layouts = jax.tree.leaves(
    parameter_shardings, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding)
  )
  by_path = {
    path: (leaf.shape, layout)
    for (path, leaf), layout in zip(leaves, layouts, strict=True)
  }

  def slot(path: tuple[Any, ...], leaf: Any) -> Any:
    for start in range(len(path)):
      shape, layout = by_path.get(path[start:], (None, None))
      if layout is not None and shape == leaf.shape:
        return layout
    return replicated

  return TrainState(
    params=parameter_shardings,
    opt_state=jax.tree_util.tree_map_with_path(slot, state.opt_state),
    step=replicated,
  )
