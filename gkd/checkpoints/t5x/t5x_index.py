"""The arrays that the index of a T5X checkpoint names, by their path.

Three generations of index: msgpack with array specs (what the public
checkpoints have), msgpack with `PLACEHOLDER://` names, and Orbax's JSON. All
become {"target/encoder/…": array not read yet, "state/step": …}.

Nothing is ever unpickled: msgpack holds numbers, text and raw arrays only.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import serialization
from ml_dtypes import bfloat16
import numpy as np

from gkd import files
from gkd.checkpoints import zarr_arrays
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x.t5x_folders import Location
from gkd.types import UserError

_SPEC_KEYS = {"driver", "kvstore", "metadata"}
_PLACEHOLDER = "PLACEHOLDER://"
_BFLOAT16_AS_UINT16 = 2
_NEWEST = 3
_MAX_BYTES = 128 << 20  # the index; small arrays lie in it

Tree = Mapping[str, Any]


def read(location: Location) -> tuple[dict[str, Leaf], str]:
  """All arrays of a checkpoint, see `zarr_arrays`, and its layout in words.

  Raises:
    UserError: the index is damaged or not T5X's, an array is missing.
  """
  if location.is_orbax:
    arrays = zarr_arrays.open_tree(location.index.parent)
    return arrays, "Orbax (what T5X writes today)"
  return _msgpack(location.index)


def _msgpack(index: Path) -> tuple[dict[str, Leaf], str]:
  with zarr_arrays.reading(index):
    tree = serialization.msgpack_restore(files.read_bytes(index, _MAX_BYTES))
    if not isinstance(tree, dict):
      raise ValueError(f"it holds {type(tree).__name__}, no tree")
    tree, version = _state(tree, index)
  layout = f"msgpack and zarr (version {version})"
  arrays, folders, specs = {}, {}, {}
  for name, value in _leaves(tree):
    if name in arrays.keys() | folders:  # keys may hold a slash
      raise UserError(
        f"{index} has {name} twice; give a checkpoint that T5X has written"
      )
    if isinstance(value, np.ndarray | np.generic | int | float):
      arrays[name] = _in_memory(np.asarray(value))
    elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
      layout = "msgpack and zarr (an early Orbax generation)"
      folders[name] = value.removeprefix(_PLACEHOLDER)
    else:
      with zarr_arrays.reading(f"the entry of {name} in {index}"):
        # The driver and the bucket are those of the machine that wrote it.
        path = value["kvstore"].get("path") or value["path"]
        folders[name] = path.strip("/")
        specs[name] = tuple(value["metadata"]["shape"]), value.get("dtype")
  arrays |= zarr_arrays.open_arrays(index.parent, folders)
  for name, (shape, dtype) in specs.items():
    array, place = arrays[name], index.parent / folders[name]
    # What version 2 calls bfloat16 is kept as uint16.
    types = {dtype, "uint16"} if dtype == "bfloat16" else {dtype or array.dtype}
    if array.shape != shape or array.dtype not in types:
      raise UserError(
        f"{place} is {array.dtype} {array.shape}, but {index} says {dtype}"
        f" {shape}; the two are not of one checkpoint, copy it again"
      )
  if version == _BFLOAT16_AS_UINT16:
    arrays |= {
      name: array.map(lambda bits: bits.view(bfloat16), dtype="bfloat16")
      for name, array in arrays.items()
      if array.dtype == "uint16"
    }
  return dict(sorted(arrays.items())), layout


def _state(tree: Tree, index: Path) -> tuple[Tree, int]:
  """{"target": …, "state": …} and the version; 0 without one."""
  version = tree.get("version", 0)
  if version in (_BFLOAT16_AS_UINT16, _NEWEST):
    tree = tree.get("optimizer")
  elif version != 0 or "params" in tree:
    raise UserError(
      f"{index} is of version {version!r}, with {', '.join(map(str, tree))};"
      f" expected a T5X checkpoint of version {_BFLOAT16_AS_UINT16} or"
      f" {_NEWEST}, save it again with T5X"
    )
  if not isinstance(tree, dict) or not isinstance(tree.get("target"), dict):
    raise UserError(
      f"{index} holds no parameters: there is no 'target' in it; expected the"
      " checkpoint of a T5X run"
    )
  return tree, version


def _leaves(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Slash-separated names; what is None or empty has no leaf."""
  for key, value in tree.items():
    name = f"{prefix}{key}"
    if isinstance(value, dict) and not set(value) >= _SPEC_KEYS:
      yield from _leaves(value, f"{name}/")
    elif value is not None:
      yield name, value


def _in_memory(array: np.ndarray) -> Leaf:
  def read(layer: int | None = None) -> np.ndarray:
    # Not ascontiguousarray, which gives a scalar a dimension.
    return np.array(array if layer is None else array[:, layer], order="C")

  return Leaf(array.shape, array.dtype.name, read)
