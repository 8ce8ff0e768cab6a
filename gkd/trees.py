"""Names for the leaves of a parameter tree, and arithmetic over whole trees."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gkd.errors import listed
from gkd.types import Array

Shapes = Mapping[str, tuple[int, ...]]


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


def shape_differences(wanted: Shapes, actual: Shapes) -> dict[str, list[str]]:
  """{"missing": ["a (4,)"], "left over": […], "misshapen": […]}.

  Of {name: shape} that a model has, and that a checkpoint has.
  """
  return {
    "missing": [f"{n} {wanted[n]}" for n in sorted(wanted.keys() - actual)],
    "left over": [f"{n} {actual[n]}" for n in sorted(actual.keys() - wanted)],
    "misshapen": [
      f"{n} is {actual[n]} instead of {wanted[n]}"
      for n in sorted(wanted.keys() & actual)
      if actual[n] != wanted[n]
    ],
  }


def in_one_line(differences: Mapping[str, list[str]]) -> str:
  """Text as "1 missing: a (4,); 2 left over: b (3,), c (3,)"; "" for none."""
  return "; ".join(
    f"{len(names)} {kind}: {listed(names)}"
    for kind, names in differences.items()
    if names
  )


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
