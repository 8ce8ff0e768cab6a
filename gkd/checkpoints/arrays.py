"""Trees of arrays to and from a folder, through orbax.

response = save_async(folder, tree)
tree = load(folder, like=tree)
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from gkd.types import UserError

_MAX_LISTED = 5  # leaves named in an error


def save_async(path: Path, tree: Any) -> ocp.AsyncResponse:
  """Starts to save a tree of arrays; the caller may donate it at once."""
  return ocp.save_async(path, _without_numpy_scalars(tree))


def load(path: Path, like: Any) -> Any:
  """Restores onto `like` after a check of names, shapes and types."""
  like = jax.tree.map(_abstract, _without_numpy_scalars(like))
  check_leaves(path, ocp.metadata(path).metadata, like)
  return ocp.load(path, like)


def check_leaves(path: Path, saved: Any, like: Any) -> None:
  """Names every difference; orbax itself would cast or fill silently.

  Args:
    path: of the checkpoint, for the message.
    saved: tree of orbax's metadata, or a part of it.
    like: tree of arrays or `jax.ShapeDtypeStruct`s that is wanted.

  Raises:
    UserError: names, shapes or types differ.
  """
  found, wanted = _described(saved), _described(like)
  wrong = [
    f"{name}: saved {found.get(name, 'nothing')}, expected"
    f" {wanted.get(name, 'nothing')}"
    for name in sorted(found.keys() | wanted.keys())
    if found.get(name) != wanted.get(name)
  ]
  if wrong:
    more = len(wrong) - _MAX_LISTED
    listed = "; ".join(wrong[:_MAX_LISTED]) + (f"; {more} more" * (more > 0))
    raise UserError(
      f"checkpoint {path} does not fit the model: {listed}; use the model that"
      " it was saved with"
    )


def _without_numpy_scalars(tree: Any) -> Any:
  """NumPy scalars as arrays of rank 0: orbax rejects them as leaves."""
  return jax.tree.map(
    lambda x: np.asarray(x) if isinstance(x, np.generic) else x, tree
  )


def _abstract(leaf: Any) -> Any:
  """What orbax is asked for: never an array's content."""
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)
  if isinstance(leaf, jax.Array):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
  return leaf


def _described(tree: Any) -> dict[str, str]:
  """{"params/encoder/…/kernel": "(4, 8) float32"} of arrays or metadata."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    "/".join(_entry(e) for e in path): _shape_and_type(leaf)
    for path, leaf in leaves
  }


def _entry(entry: Any) -> str:
  """One step of a tree path; orbax keeps fields of records as dict keys."""
  for name in ("key", "name", "idx"):
    if (value := getattr(entry, name, None)) is not None:
      return str(value)
  return str(entry)


def _shape_and_type(leaf: Any) -> str:
  dtype = getattr(leaf, "dtype", None)
  if dtype is None:
    return "a number"
  return f"{tuple(getattr(leaf, 'shape', ()))} {dtype}"
