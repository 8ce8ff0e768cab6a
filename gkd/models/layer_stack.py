"""How the layers of a stack are run: one after the other, or by a loop.

A loop over stacked parameters (`scan`) is compiled once, whatever the depth.
The parameters of such a model are stacks wherever it runs, its optimizer's
arrays too; checkpoints have one array a layer. With `remat` the backward pass
computes again what the forward pass did not keep.

Dropout draws other masks in either way than without.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from gkd import trees
from gkd.types import Array
from gkd.types import Axes
from gkd.types import UserError

# Stands for all "layers_0", "layers_1", … in a dict of `stacked`.
STACK = "layers_*"
_LAYER = re.compile(r"\blayers_\d+\b")

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
  if execution.scan:
    own = parent.variables["params"]
    # A sampler has unstacked them.
    stack = (own if STACK in own else stacked(dict(own)))[STACK]
    inputs = stack, keys, list(varying)
    return jax.lax.scan(lambda x, i: (apply(x, i), None), x, inputs)[0]
  params = [layer.variables["params"] for layer in layers]
  for i, (own, entry) in enumerate(zip(params, entries, strict=True)):
    x = apply(x, (own, jax.tree.map(lambda key, i=i: key[i], keys), entry))
  return x


def is_stacked(params: Any) -> bool:
  """Whether a model that loops over its layers has these parameters."""
  return any(STACK in name for name in trees.flatten(params))


def layer_names(name: str, shape: Sequence[int]) -> list[str]:
  """The names of the arrays that a stack has joined; of others their own."""
  if STACK not in name:
    return [name]
  return [name.replace(STACK, f"layers_{i}") for i in range(shape[0])]


def stacked_axes(axes: Mapping[str, Axes]) -> dict[str, Axes]:
  """{name: logical axes} of the stacks, of those of all layers."""
  stacks = {}
  for name, own in axes.items():
    joined = _LAYER.sub(STACK, name)
    stacks[joined] = own if joined == name else ("layers", *own)
  return stacks


def stacked(tree: Any) -> Any:
  """The tree with the "layers_0", … of each dict as one `STACK` of [L, …].

  Args:
    tree: of parameters, or with such trees in it, as an optimizer's state.
  """

  def one(node: Any) -> Any:
    if not isinstance(node, dict):
      return node
    names = [f"layers_{i}" for i in range(len(node))]
    layers = [node[name] for name in names if name in node]
    rest = {key: one(node[key]) for key in node.keys() - names}
    if layers:
      rest[STACK] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return rest

  return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, dict))


def unstacked(tree: Any) -> Any:
  """Inverse of `stacked`; a tree without stacks stays what it is.

  Its leaves are arrays or, with or without shardings, `jax.ShapeDtypeStruct`s.
  """

  def one(node: Any) -> Any:
    if not isinstance(node, dict):
      return node
    rest = {key: one(node[key]) for key in node.keys() - {STACK}}
    if STACK in node:
      leaves, structure = jax.tree.flatten(node[STACK])
      layers = zip(*map(_split, leaves), strict=True)
      rest |= {
        f"layers_{i}": structure.unflatten(own) for i, own in enumerate(layers)
      }
    return rest

  return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, dict))


def over_layers(update: Callable[..., Any]) -> Callable[..., Any]:
  """Optax's `update` of an array at a time, for trees of `stacked`.

  It is mapped over the layers, so that what it takes over an array (Adafactor's
  factors, clipping and scale) stays that of a layer. What it takes over all of
  them needs a rule of its own, see `optimizer.clip`.
  """

  def mapped(gradient: Any, opt_state: Any, params: Any) -> Any:
    depths = jax.tree_util.tree_map_with_path(
      lambda path, x: x.shape[0] if jax.tree_util.DictKey(STACK) in path else 0,
      (gradient, opt_state, params),
    )
    over = update
    for depth in set(jax.tree.leaves(depths)) - {0}:
      axes = jax.tree.map(lambda x, d=depth: 0 if x == d else None, depths)
      over = jax.vmap(over, in_axes=axes, out_axes=axes[:2])
    return over(gradient, opt_state, params)

  return mapped


def _split(leaf: Any) -> Sequence[Any]:
  """The leaves of all layers of a stack."""
  if not isinstance(leaf, jax.ShapeDtypeStruct):
    return jnp.unstack(leaf)
  sharding = leaf.sharding
  if sharding is not None:
    spec = PartitionSpec(*sharding.spec[1:])
    sharding = NamedSharding(
      sharding.mesh, spec, memory_kind=sharding.memory_kind
    )
  own = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, sharding=sharding)
  return [own] * leaf.shape[0]
