"""Arrays that Orbax or T5X saved: zarr, in plain folders or an OCDBT store.

  arrays = open_tree(Path("checkpoint_10/state"))
  scale = arrays["target/decoder/decoder_norm/scale"].read()

TensorStore would read a chunk that is not there as zeros; here it is an error.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
from pathlib import Path
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorstore as ts

from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError

INDEX_FILE = "_METADATA"
_OCDBT = "manifest.ocdbt"
# Orbax's words for a node that holds nothing.
_NOTHING = {"None", "Dict", "List", "Tuple"}
# Decoded chunks that stay in memory: layers stacked in one array are read one
# by one, and a chunk holds a part of each of them. Of a larger stack each layer
# decodes the chunks again, which takes time instead of memory.
_CACHE_BYTES = 1 << 30
_CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})


def open_tree(folder: Path, below: str = "") -> dict[str, Leaf]:
  """Arrays of a tree that Orbax saved, sorted by name; see `open_arrays`.

  Args:
    folder: of the index and the arrays.
    below: only names below this key, which is left out of the names.
  """
  names, is_zarr3 = tree_index(folder)
  prefix = below and f"{below}/"
  names = {
    name.removeprefix(prefix): place
    for name, place in names.items()
    if name.startswith(prefix)
  }
  return open_arrays(folder, names, "zarr3" if is_zarr3 else "zarr")


def open_array(folder: Path, name: str) -> Leaf | None:
  """One array of a tree that Orbax saved; None if it has no such name."""
  names, is_zarr3 = tree_index(folder)
  if name not in names:
    return None
  driver = "zarr3" if is_zarr3 else "zarr"
  return open_arrays(folder, {name: names[name]}, driver)[name]


def tree_index(folder: Path) -> tuple[dict[str, str], bool]:
  """{slash-separated name: folder of the array}, and whether it is zarr 3.

  Raises:
    UserError: the index is missing or damaged, or has a name twice.
  """
  file = folder / INDEX_FILE
  with reading(file):
    index = json.loads(file.read_text("utf-8"))
    keys = [
      [str(part["key"]) for part in leaf["key_metadata"]]
      for leaf in index["tree_metadata"].values()
      if leaf["value_metadata"]["value_type"] not in _NOTHING
    ]
    names: dict[str, str] = {}
    for key in keys:
      name = "/".join(key)
      if name in names:  # keys may hold a slash
        raise UserError(
          f"{file} has {name} twice; give a checkpoint that Orbax has written"
        )
      names[name] = ".".join(key)
    return names, bool(index.get("use_zarr3"))


def open_arrays(
  folder: Path, names: Mapping[str, str], driver: str = "zarr"
) -> dict[str, Leaf]:
  """{name: array}, sorted; none is read yet.

  Args:
    folder: of all arrays.
    names: {name: folder of the array, such as "target.encoder.…"}.
    driver: "zarr", format 2, or "zarr3".

  Returns:
    Arrays of any type. `read(layer=i)` reads the part `[:, i]` alone.

  Raises:
    UserError: one is not there, or not zarr. A missing or damaged chunk raises
      when it is read.
  """
  specs = {name: _spec(folder, names[name], driver) for name in sorted(names)}
  context = ts.Context()  # which keeps nothing that was read
  opening = {name: _open(spec, context) for name, spec in specs.items()}
  leaves = {}
  for name, spec in specs.items():
    place = folder / names[name]
    with reading(place):
      array = opening[name].result()
    shape = tuple(int(size) for size in array.shape)
    leaves[name] = Leaf(shape, array.dtype.name, _reader(array, spec, place))
  return leaves


@contextlib.contextmanager
def reading(place: str | Path) -> Iterator[None]:
  """Whatever fails in the block becomes one line that names `place`."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # damaged bytes make decoders fail in every way
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].partition(" [")[0][:300]
    raise UserError(
      f"{place} cannot be read ({reason}); it is damaged, not whole or of"
      " another program, restore it or copy it again"
    ) from error


def _spec(folder: Path, name: str, driver: str) -> dict[str, Any]:
  """Where TensorStore finds an array."""
  if ".." in PurePosixPath(name).parts:
    raise UserError(
      f"{folder / name} leads out of the checkpoint's folder; give a checkpoint"
      " that T5X has written"
    )
  base = f"{folder.absolute()}/"
  kvstore = {"driver": "file", "path": f"{base}{name}/"}
  if (folder / _OCDBT).exists():
    files = {"driver": "file", "path": base}
    kvstore = {"driver": "ocdbt", "base": files, "path": f"{name}/"}
  return {
    "driver": driver,
    "kvstore": kvstore,
    "fill_missing_data_reads": False,
    "recheck_cached_data": "open",
  }


def _open(spec: Mapping[str, Any], context: ts.Context) -> ts.Future:
  return ts.open(spec, read=True, open=True, context=context)


def _reader(array: ts.TensorStore, spec: Mapping[str, Any], place: Path):
  def read(layer: int | None = None) -> np.ndarray:
    with reading(place):
      part = array
      if layer is not None:
        part = _open(spec, _CONTEXT).result()[:, layer]
      # TensorStore would end the process where a damaged shape asks for more
      # memory than there is; NumPy raises.
      values = np.empty(part.shape, part.dtype.numpy_dtype)
      ts.array(values, copy=False).write(part).result()
      return values

  return read
