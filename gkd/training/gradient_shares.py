"""How much each term of a weighted sum pulls at the parameters.

  metrics |= gradient_shares(train_step, state, frozen_params, batch, seed)

Each term costs a forward and a backward pass of its own, of all models that it
compares, so that a step with shares takes about twice as long as another one.
"""

from collections.abc import Mapping
import dataclasses
import functools

import jax
import jax.numpy as jnp

from gkd import keys
from gkd import trees
from gkd.losses.weighted_sum import Term
from gkd.losses.weighted_sum import WeightedSum
from gkd.metrics import Mean
from gkd.training.state import TrainState
from gkd.training.step import TrainStep
from gkd.training.step import gradients
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Params


def terms(train_step: TrainStep) -> list[Term]:
  """What shares there are: the terms of a sum of at least two."""
  objective = train_step.objective
  active = objective.active if isinstance(objective, WeightedSum) else []
  return active if len(active) > 1 else []


@functools.partial(jax.jit, static_argnums=0)
def gradient_shares(
  train_step: TrainStep,
  state: TrainState,
  frozen_params: Mapping[str, Params],
  batch: Batch,
  seed: Array,
) -> dict[str, Mean]:
  """|w g| / sum of |w g| over the terms of weights w and gradients g.

  Arguments as of `update_step`, before it; {} for an objective of one term.

  Returns:
    `gradient_share/<term>`, which sum up to 1.
  """
  dropout_key = keys.stream(seed, state.step, keys.Role.DROPOUT)
  norms = {}
  for term in terms(train_step):
    own = dataclasses.replace(
      train_step,
      objective=term.objective,
      frozen={role: train_step.frozen[role] for role in term.objective.roles},
    )
    coefficients = own.objective.coefficients(batch, own.reduction)
    gradient, *_ = gradients(
      own, state, frozen_params, batch, coefficients, dropout_key
    )
    norms[term.name] = term.weight * trees.global_norm(gradient)
  total = jnp.maximum(sum(norms.values()), 1e-30)  # no gradient at all: 0
  return {
    f"gradient_share/{name}": Mean.of(norm / total)
    for name, norm in norms.items()
  }
