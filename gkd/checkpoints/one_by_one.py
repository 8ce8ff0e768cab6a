"""Arrays of a checkpoint one at a time: memory stays near the largest of them.

  stored = open_arrays("runs/sft/checkpoints/00001000", below="params")
  kernel = stored["encoder/layers_0/mlp/wo/kernel"].read()
  write_arrays("folder", ((name, leaf.read()) for name, leaf in stored.items()))

What is written is an orbax checkpoint like any other (`arrays.load` reads it),
and what is read may be one that was saved in one piece, from any number of
devices. Nothing here checks hashes: see `integrity`.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint.experimental.v1 as ocp
import tensorstore as ts

from gkd import trees
from gkd.types import UserError

# Small arrays are saved together, since each save costs 0.2 s; the tables of
# T5 are of this size and larger.
_GROUP_BYTES = 64 << 20
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
  context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
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


def write_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
  """Writes a checkpoint array by array.

  Args:
    path: of the checkpoint, a folder that does not exist yet.
    arrays: (slash-separated name, array), taken one after the other.
  """
  group: dict[str, np.ndarray] = {}
  size_bytes = 0
  for name, array in arrays:
    if group and size_bytes + array.nbytes > _GROUP_BYTES:
      ocp.partial.save(path, trees.unflatten(group))
      group, size_bytes = {}, 0
    group[name] = array
    size_bytes += array.nbytes
    del array
  ocp.partial.save(path, trees.unflatten(group))
  ocp.partial.finalize(path)


class ContentHash:
  """sha256 over parameters: name, shape, type and bytes, sorted by name.

  Equal for equal parameters, however and whenever they were saved.
  """

  def __init__(self):
    self._hash = hashlib.sha256()

  def add(self, name: str, array: np.ndarray) -> None:
    """Takes the next array; names have to come sorted."""
    head = json.dumps([name, list(array.shape), array.dtype.name])
    self._hash.update(head.encode() + b"\n")
    flat = np.ascontiguousarray(array).reshape(-1)
    self._hash.update(flat.view(np.uint8).data)

  def hexdigest(self) -> str:
    return self._hash.hexdigest()


def content_sha256(params: Any) -> str:
  """`ContentHash` of a tree of arrays."""
  content = ContentHash()
  for name, leaf in trees.flatten(params).items():
    content.add(name, np.asarray(leaf))
  return content.hexdigest()


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
