"""Names for the leaves of a parameter tree, and arithmetic over whole trees."""

from typing import Any

import jax
import jax.numpy as jnp

from gkd.types import Array


def flatten(tree: Any) -> dict[str, Any]:
  """{"encoder/layers_0/mlp/wo/kernel": leaf, …} of a nested dict, sorted."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  named = {
    "/".join(str(getattr(entry, "key", entry)) for entry in path): leaf
    for path, leaf in leaves
  }
  return dict(sorted(named.items()))


def unflatten(named: dict[str, Any]) -> dict[str, Any]:
  """The nested dict of slash-separated names; inverse of `flatten`."""
  tree: dict[str, Any] = {}
  for name, leaf in named.items():
    *parents, last = name.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = leaf
  return tree


def num_parameters(tree: Any) -> int:
  """Number of scalars in the tree."""
  return sum(int(leaf.size) for leaf in jax.tree.leaves(tree))


def global_norm(tree: Any) -> Array:
  """Euclidean norm over all leaves, in float32."""
  squares = [
    jnp.sum(jnp.square(leaf.astype(jnp.float32)))
    for leaf in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares))
