"""Arrays of a checkpoint one at a time: memory stays near the largest of them.

  stored = open_arrays("runs/sft/checkpoints/00001000", below="params")
  kernel = stored["encoder/layers_0/mlp/wo/kernel"].read()
  write_arrays("folder", stored)

What is written is an orbax checkpoint like any other (`arrays.load` reads it),
and what is read may be one that was saved in one piece, from any number of
devices. Nothing here checks hashes: see `checksums`.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import tensorstore as ts

from gkd import trees
from gkd.checkpoints.checkpoint import ContentHash
from gkd.types import UserError

_CHUNK_BYTES = 16 << 20  # what is encoded at once
_SMALL_BYTES = 1 << 20  # saved by orbax, all together
_ZSTD_LEVEL = 3  # of orbax
# Others are numbers of Python and empty nodes.
_ARRAY_TYPES = ("jax.Array", "np.ndarray")
_STATE = "state"  # orbax's name for the one tree of a checkpoint


@dataclasses.dataclass(frozen=True)
class Stored:
  """One array on disk.

  Attributes:
    shape: of the whole array, however many devices wrote it.
    dtype: NumPy's name of the type, "float32" or "bfloat16".
    read: reads it, C-contiguous, as stored.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[[], np.ndarray]


def open_arrays(path: Path, below: str = "") -> dict[str, Stored]:
  """{slash-separated name: array} of a checkpoint, sorted; none is read.

  Numbers that are no arrays are left out.

  Args:
    path: folder of the checkpoint.
    below: only names below this key, which is left out of the names.

  Raises:
    UserError: no checkpoint of orbax is there, or it cannot be opened.
  """
  folder = Path(path).absolute() / _STATE
  described = tree_metadata(path)
  keys = [
    tuple(entry["key"] for entry in leaf["key_metadata"])
    for leaf in described["tree_metadata"].values()
    if leaf["value_metadata"].get("value_type") in _ARRAY_TYPES
  ]
  if below:
    keys = [key for key in keys if key[0] == below]
  context = _context()
  driver = "zarr3" if described.get("use_zarr3") else "zarr"
  opening = {
    "/".join(key[bool(below) :]): ts.open(
      {"driver": driver, "kvstore": _kvstore(folder, described, key)},
      open=True,
      read=True,
      context=context,
    )
    for key in keys
  }
  found = {}
  for name in sorted(opening):
    try:
      array = opening[name].result()
    except Exception as error:  # TensorStore's have no type of their own
      raise _unreadable(path, name, error) from error
    shape = tuple(int(size) for size in array.shape)
    read = _reader(path, name, array)
    found[name] = Stored(shape, array.dtype.name, read)
  return found


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
  path: Path, arrays: Mapping[str, Stored], content: ContentHash | None = None
) -> None:
  """Writes a checkpoint, holding one array and a few chunks at a time.

  Orbax copies what it saves, twice. So it saves the tree with the small arrays
  and an empty one in place of each large one, which TensorStore then writes.

  Args:
    path: of the checkpoint, a folder that does not exist yet.
    arrays: {slash-separated name: array}; read in the order of names.
    content: takes each array as well.
  """
  small = _read_small(arrays)
  empty = np.zeros(1, np.float32)
  ocp.save(
    path, trees.unflatten({name: small.get(name, empty) for name in arrays})
  )
  folder, described = Path(path).absolute() / _STATE, tree_metadata(path)
  # What is fsynced here, file by file, is fsynced once more at the end.
  context = _context(file_io_sync=False)
  for name in sorted(arrays):
    array = small[name] if name in small else arrays[name].read()
    if content is not None:
      content.add(name, array)
    if name not in small:
      kvstore = _kvstore(folder, described, tuple(name.split("/")))
      _write_chunks(kvstore, array, context)
    del array


def _read_small(arrays: Mapping[str, Stored]) -> dict[str, np.ndarray]:
  """Small arrays, all together no more than a few chunks."""
  small, size_bytes = {}, 0
  for name in sorted(arrays):
    # None has more than four bytes a number.
    expected = 4 * math.prod(arrays[name].shape)
    if expected <= _SMALL_BYTES and size_bytes + expected <= _CHUNK_BYTES:
      small[name] = arrays[name].read()
      size_bytes += expected
  return small


def _write_chunks(
  kvstore: dict[str, Any], array: np.ndarray, context: ts.Context
) -> None:
  row_bytes = max(array.nbytes // array.shape[0], 1)
  rows = min(max(_CHUNK_BYTES // row_bytes, 1), array.shape[0])
  spec = {
    "driver": "zarr3",
    "kvstore": kvstore,
    "metadata": _zarr_metadata(array, rows),
    "store_data_equal_to_fill_value": True,  # orbax misses them otherwise
  }
  stored = ts.open(
    spec, create=True, delete_existing=True, context=context
  ).result()
  for start in range(0, array.shape[0], rows):
    part = array[start : start + rows]
    stored[start : start + len(part)].write(part).result()


def _context(**options: Any) -> ts.Context:
  """Nothing that was read or written is kept in memory."""
  return ts.Context({"cache_pool": {"total_bytes_limit": 0}, **options})


def _zarr_metadata(array: np.ndarray, rows: int) -> dict[str, Any]:
  chunk = [rows, *array.shape[1:]]
  return {
    "shape": list(array.shape),
    "data_type": array.dtype.name,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
    "codecs": [
      {"name": "bytes", "configuration": {"endian": "little"}},
      {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL}},
    ],
  }


def _kvstore(
  folder: Path, described: Mapping[str, Any], key: tuple[str, ...]
) -> dict[str, Any]:
  name = ".".join(key) + "/"
  if described.get("use_ocdbt"):
    return {"driver": "ocdbt", "base": f"file://{folder}/", "path": name}
  return {"driver": "file", "path": f"{folder}/{name}"}


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
