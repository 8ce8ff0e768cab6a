"""How the layers of a stack are run: one after the other, or by a loop.

A loop over stacked parameters (`scan`) is compiled once, whatever the depth; it
copies them at each use, and checkpoints and optimizers never see it. With
`remat` the backward pass computes again what the forward pass did not keep.

Dropout draws other masks in either way than without.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from gkd.types import Array
from gkd.types import UserError

# T5X's names: of a layer "minimal" keeps its matrix products, "full" nothing.
_POLICIES = {
  "none": None,
  "minimal": jax.checkpoint_policies.checkpoint_dots_with_no_batch_dims,
  "full": jax.checkpoint_policies.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class Execution:
  """How the layers of a model are run where gradients are taken.

  Attributes:
    scan: a loop over all layers instead of a program for each.
    remat: "none", "minimal" or "full": what the backward pass computes again.
  """

  scan: bool = False
  remat: str = "none"

  def __post_init__(self):
    if self.remat not in _POLICIES:
      raise UserError(
        f"REMAT is {self.remat!r}; expected one of {', '.join(_POLICIES)}"
      )


PLAIN = Execution()


def through(
  parent: nn.Module,
  layers: Sequence[nn.Module],
  call: Callable[..., Array],
  x: Array,
  *varying: Array,
) -> Array:
  """The output of the last layer, each of which reads that of the one before.

  Args:
    parent: the module of the layers, with an `execution`.
    layers: bound submodules with the same parameters.
    call: `call(layer, x, *varying of the layer) -> x`; it uses no other module.
    x: what the first layer reads.
    *varying: arrays [L, …] with one entry for each layer.
  """
  execution = parent.execution
  entries = [[array[i] for array in varying] for i in range(len(layers))]
  if execution == PLAIN or parent.is_initializing():
    for layer, entry in zip(layers, entries, strict=True):
      x = call(layer, x, *entry)
    return x
  bare = layers[0].clone(parent=None)

  def apply(x, inputs):
    params, keys, entry = inputs
    return bare.apply({"params": params}, x, *entry, method=call, rngs=keys)

  if execution.remat != "none":
    policy = _POLICIES[execution.remat]
    apply = jax.checkpoint(apply, policy=policy, prevent_cse=not execution.scan)
  keys = {}
  if parent.has_rng("dropout"):
    keys["dropout"] = jax.random.split(parent.make_rng("dropout"), len(layers))
  params = [layer.variables["params"] for layer in layers]
  if execution.scan:
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    inputs = stacked, keys, list(varying)
    return jax.lax.scan(lambda x, i: (apply(x, i), None), x, inputs)[0]
  for i, (own, entry) in enumerate(zip(params, entries, strict=True)):
    x = apply(x, (own, jax.tree.map(lambda key, i=i: key[i], keys), entry))
  return x
