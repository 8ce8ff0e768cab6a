"""Names for the leaves of a parameter tree, and arithmetic over whole trees."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gkd.errors import listed
from gkd.types import Array

Shapes = Mapping[str, tuple[int, ...]]
# The square of the largest float32, 2¹²⁸, is 2⁶⁴ with it.
_SCALE = 2.0**-96


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
  """Euclidean norm over all leaves, in float32.

  Squares overflow from 1.8e19 on. Where their sum is infinite, the norm is that
  of the leaves times `_SCALE`, a power of two, divided by it.
  """
  leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(tree)]

  def scaled(_: Array) -> Array:
    squares = sum(jnp.sum(jnp.square(leaf * _SCALE)) for leaf in leaves)
    return jnp.sqrt(squares) / _SCALE

  norm = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in leaves))
  return jax.lax.cond(jnp.isinf(norm), scaled, lambda norm: norm, norm)


def is_finite(tree: Any) -> Array:
  """[] bool, whether no leaf has a NaN or an infinity."""
  # A sum is one pass on a CPU, booleans and their conjunction several.
  zeros = sum(jnp.sum(leaf * 0) for leaf in jax.tree.leaves(tree))
  return jnp.isfinite(zeros)
