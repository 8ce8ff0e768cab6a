"""The arrays that the index of a T5X checkpoint names, by their path.

Three generations of index: msgpack with array specs (what the public
checkpoints have), msgpack with `PLACEHOLDER://` names, and Orbax's JSON. All
become {"target/encoder/…": array not read yet, "state/step": …}.

Nothing is ever unpickled: msgpack holds numbers, text and raw arrays only.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from flax import serialization
import ml_dtypes
import numpy as np

from gkd.checkpoints.t5x import zarr_arrays
from gkd.checkpoints.t5x.t5x_folders import Location
from gkd.checkpoints.t5x.zarr_arrays import Stored
from gkd.types import UserError

_SPEC_KEYS = {"driver", "kvstore", "metadata"}
_PLACEHOLDER = "PLACEHOLDER://"
_BFLOAT16_AS_UINT16 = 2
_NEWEST = 3
# Orbax's words for a node that holds nothing.
_NOTHING = {"None", "Dict", "List", "Tuple"}

Tree = Mapping[str, Any]


def read(location: Location) -> tuple[dict[str, Stored], str]:
  """All arrays of a checkpoint, and its layout in words.

  Raises:
    UserError: the index is damaged or not T5X's, an array is missing.
  """
  if location.is_orbax:
    return _orbax(location.index), "Orbax (what T5X writes today)"
  return _msgpack(location.index)


def _msgpack(index: Path) -> tuple[dict[str, Stored], str]:
  with zarr_arrays.reading(str(index)):
    tree = serialization.msgpack_restore(index.read_bytes())
    if not isinstance(tree, dict):
      raise ValueError(f"it holds {type(tree).__name__}, no tree")
    tree, version = _state(tree, index)
  leaves = _each_once(_leaves(tree), index)
  layout = f"msgpack and zarr (version {version})"
  arrays = {}
  for name, value in leaves.items():
    if isinstance(value, np.ndarray | np.generic | int | float):
      array = zarr_arrays.in_memory(value, f"{name} in {index}")
    elif isinstance(value, str) and value.startswith(_PLACEHOLDER):
      layout = "msgpack and zarr (an early Orbax generation)"
      file = value.removeprefix(_PLACEHOLDER)
      array = zarr_arrays.open_array(index.parent, file)
    else:
      array = _of_spec(value, name, index)
    if version == _BFLOAT16_AS_UINT16 and array.dtype == "uint16":
      array = _viewed_as_bfloat16(array)
    arrays[name] = array
  return arrays, layout


def _state(tree: Tree, index: Path) -> tuple[Tree, int]:
  """{"target": …, "state": …} and the version; 0 without one."""
  version = tree.get("version", 0)
  if version in (_BFLOAT16_AS_UINT16, _NEWEST):
    tree = tree.get("optimizer")
  elif version != 0 or "params" in tree:
    raise UserError(
      f"{index} is of version {version!r}, with {', '.join(map(str, tree))}; "
      f"expected a T5X checkpoint of version {_BFLOAT16_AS_UINT16} or "
      f"{_NEWEST}, save it again with T5X"
    )
  if not isinstance(tree, dict) or not isinstance(tree.get("target"), dict):
    raise UserError(
      f"{index} holds no parameters: there is no 'target' in it; expected the "
      "checkpoint of a T5X run"
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


def _each_once(pairs: Iterable[tuple[str, Any]], index: Path) -> dict[str, Any]:
  """A dict; keys that hold a slash could give two arrays one name."""
  named: dict[str, Any] = {}
  for name, value in pairs:
    if name in named:
      raise UserError(
        f"{index} has {name} twice; give a checkpoint that T5X has written"
      )
    named[name] = value
  return named


def _of_spec(spec: Any, name: str, index: Path) -> Stored:
  """The array that an array spec of the msgpack file stands for."""
  with zarr_arrays.reading(f"the entry of {name} in {index}"):
    # The driver and the bucket are those of the machine that wrote it.
    path = spec["kvstore"].get("path") or spec["path"]
    shape = tuple(spec["metadata"]["shape"])
    dtype = spec.get("dtype")
  array = zarr_arrays.open_array(index.parent, path)
  # What version 2 calls bfloat16 is kept as uint16.
  types = {dtype, "uint16"} if dtype == "bfloat16" else {dtype or array.dtype}
  if array.shape != shape or array.dtype not in types:
    raise UserError(
      f"{array.place} is {array.dtype} {array.shape}, but {index} says {dtype} "
      f"{shape}; the two are not of one checkpoint, copy it again"
    )
  return array


def _viewed_as_bfloat16(array: Stored) -> Stored:
  """Version 2 kept the bits of bfloat16 as uint16."""

  def read(layer: int | None = None) -> np.ndarray:
    return array.read(layer).view(ml_dtypes.bfloat16)

  return Stored(array.shape, "bfloat16", read, array.place)


def _orbax(index: Path) -> dict[str, Stored]:
  with zarr_arrays.reading(str(index)):
    tree = json.loads(index.read_text("utf-8"))
    leaves = [
      [str(part["key"]) for part in entry["key_metadata"]]
      for entry in tree["tree_metadata"].values()
      if entry["value_metadata"]["value_type"] not in _NOTHING
    ]
  if tree.get("use_zarr3"):
    raise UserError(
      f"{index} names arrays of zarr format 3, which T5X does not write; "
      "save the checkpoint with use_zarr3=False"
    )
  names = _each_once((("/".join(k), ".".join(k)) for k in leaves), index)
  return {
    name: zarr_arrays.open_array(index.parent, folder)
    for name, folder in names.items()
  }
