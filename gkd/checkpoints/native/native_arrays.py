"""Arrays of our own checkpoints: orbax folders, written and loaded as trees.

`zarr_arrays.open_tree` reads them one at a time. Hashes: see `checksums`.
"""

from collections.abc import Mapping
import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp

from gkd import trees
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.checkpoint import batches
from gkd.checkpoints.checkpoint import hash_array
from gkd.types import UserError

STATE = "state"  # orbax's name for the one tree of a checkpoint
_BATCH_BYTES = 64 << 20  # arrays that are saved together
_CHUNK_BYTES = 16 << 20  # of an array: what is encoded, and read, at once


def write_arrays(path: Path, leaves: Mapping[str, Leaf]) -> str:
  """Writes a checkpoint that orbax loads like any other, a few arrays at once.

  Args:
    path: an existing folder without arrays.
    leaves: {slash-separated name: array}; read in the order of names.

  Returns:
    `content_sha256` of the arrays.
  """
  partial = path / "orbax"  # orbax makes its folder itself
  content = hashlib.sha256()
  context = ocp.Context()
  context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
  context.memory.deepcopy_host_arrays = False  # they do not change meanwhile
  with context:
    for names in batches(dict(sorted(leaves.items())), _BATCH_BYTES):
      batch = {}
      for name in names:
        batch[name] = leaves[name].read()
        hash_array(content, name, batch[name])
      ocp.partial.save(partial, trees.unflatten(batch))
    ocp.partial.finalize(partial)
  for entry in sorted(partial.iterdir()):
    entry.rename(path / entry.name)
  partial.rmdir()
  return content.hexdigest()


def save_async(path: Path, tree: Any) -> ocp.AsyncResponse:
  """Starts to save a tree of arrays; the caller may donate it at once."""
  return ocp.save_async(path, _without_numpy_scalars(tree))


def load(path: Path, like: Any) -> Any:
  """Restores a tree after a check of names, shapes and types.

  See `Store.restore`; where `like` has no sharding, an array stays on the host.
  """
  like = jax.tree.map(_abstract, _without_numpy_scalars(like))
  # Orbax itself would cast or fill silently.
  wanted, saved = _described(like), _described(ocp.metadata(path).metadata)
  if differences := trees.in_one_line(trees.shape_differences(wanted, saved)):
    raise UserError(
      f"checkpoint {path} does not fit the model: {differences}; use the model"
      " that it was saved with"
    )
  return ocp.load(path, like)


def _without_numpy_scalars(tree: Any) -> Any:
  """NumPy scalars as arrays of rank 0: orbax rejects them as leaves."""
  return jax.tree.map(
    lambda x: np.asarray(x) if isinstance(x, np.generic) else x, tree
  )


def _abstract(leaf: Any) -> Any:
  """Shape, type and sharding of a leaf, without its content."""
  if isinstance(leaf, jax.ShapeDtypeStruct) and leaf.sharding is None:
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)
  if isinstance(leaf, jax.Array):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
  return leaf


def _described(tree: Any) -> dict[str, str]:
  """{"params/encoder/…/kernel": "(4, 8) float32"} of arrays or metadata."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): (
      f"{tuple(leaf.shape)} {leaf.dtype}"
      if hasattr(leaf, "dtype")
      else "a number"
    )
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }
