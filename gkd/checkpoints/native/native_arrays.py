"""Arrays of our own checkpoints: orbax folders, as trees or one at a time.

  leaves = open_arrays("runs/sft/checkpoints/00001000", below="params")
  kernel = leaves["encoder/layers_0/mlp/wo/kernel"].read()
  write_arrays("folder", leaves)   # memory stays near the largest array

  response = save_async(folder, state)
  state = load(folder, like=state)

What is read may have been saved in one piece, from any number of devices.
Nothing here checks hashes: see `checksums`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import tensorstore as ts

from gkd import trees
from gkd.checkpoints.checkpoint import ContentHash
from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError

_BATCH_BYTES = 64 << 20  # arrays that are saved together
_CHUNK_BYTES = 16 << 20  # of an array: what is encoded, and read, at once
# Other types are Python numbers and empty nodes.
_ARRAY_TYPES = ("jax.Array", "np.ndarray")
_STATE = "state"  # orbax's name for the one tree of a checkpoint


def open_arrays(path: Path, below: str = "") -> dict[str, Leaf]:
  """{slash-separated name: array} of a checkpoint, sorted; none is read.

  Numbers that are no arrays are left out.

  Args:
    path: folder of the checkpoint.
    below: only names below this key, which is left out of the names.

  Raises:
    UserError: no checkpoint of orbax is there, or it cannot be opened.
  """
  described = tree_metadata(path)
  keys = [
    tuple(entry["key"] for entry in leaf["key_metadata"])
    for leaf in described["tree_metadata"].values()
    if leaf["value_metadata"].get("value_type") in _ARRAY_TYPES
  ]
  # Nothing that was read is kept in memory.
  context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
  opening = {
    "/".join(key[bool(below) :]): ts.open(
      _spec(Path(path).absolute() / _STATE, described, key),
      open=True,
      read=True,
      context=context,
    )
    for key in keys
    if not below or key[0] == below
  }
  leaves = {}
  for name in sorted(opening):
    try:
      array = opening[name].result()
    except Exception as error:  # TensorStore's have no type of their own
      raise _unreadable(path, name, error) from error
    shape = tuple(int(size) for size in array.shape)
    leaves[name] = Leaf(shape, array.dtype.name, _reader(path, name, array))
  return leaves


def tree_metadata(path: Path) -> dict[str, Any]:
  """What orbax wrote of the tree: names, and how arrays are stored.

  Raises:
    UserError: it is missing or damaged.
  """
  file = Path(path) / _STATE / "_METADATA"
  try:
    described = json.loads(file.read_text("utf-8"))
    for leaf in described["tree_metadata"].values():
      assert leaf["key_metadata"]
      assert leaf["value_metadata"]
  except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
    raise UserError(
      f"damaged checkpoint {path}: {_STATE}/_METADATA is missing or not what"
      " orbax writes; restore its files"
    ) from error
  return described


def write_arrays(
  path: Path, leaves: Mapping[str, Leaf], content: ContentHash | None = None
) -> None:
  """Writes a checkpoint that orbax loads like any other, a few arrays at once.

  Args:
    path: of the checkpoint, a folder that does not exist yet.
    leaves: {slash-separated name: array}; read in the order of names.
    content: takes each array as well.
  """
  context = ocp.Context()
  context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
  context.memory.deepcopy_host_arrays = False  # they do not change meanwhile
  with context:
    for names in _batches(leaves):
      batch = {}
      for name in names:
        batch[name] = leaves[name].read()
        if content is not None:
          content.add(name, batch[name])
      ocp.partial.save(path, trees.unflatten(batch))
    ocp.partial.finalize(path)


def save_async(path: Path, tree: Any) -> ocp.AsyncResponse:
  """Starts to save a tree of arrays; the caller may donate it at once."""
  return ocp.save_async(path, _without_numpy_scalars(tree))


def load(path: Path, like: Any) -> Any:
  """Restores a tree after a check of names, shapes and types.

  Args:
    path: of the checkpoint.
    like: tree of arrays, or of `jax.ShapeDtypeStruct`s with the shardings to
      restore onto; without one an array stays on the host.

  Raises:
    UserError: names, shapes or types differ.
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


def _batches(leaves: Mapping[str, Leaf]) -> list[list[str]]:
  """Sorted names, those together that fit into _BATCH_BYTES."""
  batches, size_bytes = [], 0
  for name in sorted(leaves):
    size_bytes += leaves[name].size_bytes
    if not batches or size_bytes > _BATCH_BYTES:
      batches.append([])
      size_bytes = leaves[name].size_bytes
    batches[-1].append(name)
  return batches


def _spec(
  folder: Path, described: Mapping[str, Any], key: tuple[str, ...]
) -> dict[str, Any]:
  """Where TensorStore finds an array of orbax."""
  name = ".".join(key) + "/"
  kvstore = {"driver": "file", "path": f"{folder}/{name}"}
  if described.get("use_ocdbt"):
    base = f"file://{folder}/"
    kvstore = {"driver": "ocdbt", "base": base, "path": name}
  driver = "zarr3" if described.get("use_zarr3") else "zarr"
  return {
    "driver": driver,
    "kvstore": kvstore,
    "fill_missing_data_reads": False,  # a chunk that is gone is an error
  }


def _reader(path: Path, name: str, array: Any) -> Callable[[], np.ndarray]:
  def read() -> np.ndarray:
    try:
      return np.ascontiguousarray(array.read().result())
    except Exception as error:
      raise _unreadable(path, name, error) from error

  return read


def _unreadable(path: Path, name: str, error: Exception) -> UserError:
  reason = str(error).splitlines()[0].partition(" [")[0]
  return UserError(
    f"damaged checkpoint {path}: the array {name} cannot be read ({reason});"
    " restore its files"
  )


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
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {
    "/".join(map(_entry, path)): f"{tuple(leaf.shape)} {leaf.dtype}"
    if hasattr(leaf, "dtype")
    else "a number"
    for path, leaf in leaves
  }


def _entry(entry: Any) -> str:
  """One step of a tree path; orbax keeps fields of records as dict keys."""
  for name in ("key", "name", "idx"):
    if (value := getattr(entry, name, None)) is not None:
      return str(value)
  return str(entry)
