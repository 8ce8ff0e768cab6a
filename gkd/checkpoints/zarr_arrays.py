"""Arrays that Orbax or T5X saved: zarr, in plain folders or an OCDBT store.

  arrays = open_tree(Path("checkpoint_10/state"))
  scale = arrays["target/decoder/decoder_norm/scale"].read()

TensorStore would read a chunk that is not there as zeros; here it is an error.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import math
import os
from pathlib import Path
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorstore as ts

from gkd import files
from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError

INDEX_FILE = "_METADATA"
_OCDBT = "manifest.ocdbt"
# Files that TensorStore reads whole before anything else.
_LARGEST = dict.fromkeys(
  (_OCDBT, ".zarray", ".zattrs", "zarr.json"), files.MAX_JSON_BYTES
)
# Orbax's words for a node that holds nothing.
_NOTHING = {"None", "Dict", "List", "Tuple"}
# A small array may lie in one chunk that is larger.
_SMALL_CHUNK = 1 << 20
# Decoded chunks that stay in memory: layers stacked in one array are read one
# by one, and a chunk holds a part of each of them. Of a larger stack each layer
# decodes the chunks again, which takes time instead of memory.
_CACHE_BYTES = 1 << 30
_CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})


def open_tree(folder: Path) -> dict[str, Leaf]:
  """Arrays of a tree that Orbax saved, sorted by name; see `open_arrays`.

  `folder` is that of the index and the arrays.
  """
  names, is_zarr3 = tree_index(folder)
  return open_arrays(folder, names, "zarr3" if is_zarr3 else "zarr")


def tree_index(folder: Path) -> tuple[dict[str, str], bool]:
  """{slash-separated name: folder of the array}, and whether it is zarr 3.

  Raises:
    UserError: the index is missing or damaged, or has a name twice.
  """
  file = folder / INDEX_FILE
  with reading(file):
    index = json.loads(files.read_bytes(file, files.MAX_JSON_BYTES))
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
    UserError: one is not there, not zarr, or in chunks that are larger than it.
      A missing or damaged chunk raises when it is read.
  """
  specs = {name: _spec(folder, names[name], driver) for name in sorted(names)}
  places = {name: folder / names[name] for name in names}
  if (folder / _OCDBT).exists():
    places = {"": folder}  # all arrays in one store
  largest: dict[str, int] = {}
  for name, place in places.items():
    with reading(place):
      largest[name] = _largest_file(place)
  context = ts.Context()  # which keeps nothing that was read
  with reading(folder):
    opening = {name: _open(spec, context) for name, spec in specs.items()}
  leaves = {}
  for name, spec in specs.items():
    place = folder / names[name]
    with reading(place):
      array = opening[name].result()
      shape = tuple(int(size) for size in array.shape)
      _check_chunks(array, largest.get(name, 0))
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
    text = str(error)
    if isinstance(error, OSError) and error.filename:
      text = f"{error.filename}: {error.strerror}"
    lines = text.strip().splitlines() or [type(error).__name__]
    reason = lines[0].partition(" [")[0][:300]
    raise UserError(
      f"{place} cannot be read ({reason}); it is damaged, not whole or of"
      " another program, restore it or copy it again"
    ) from error


def _check_chunks(array: ts.TensorStore, largest_file: int) -> None:
  """TensorStore makes room for a chunk and its file before it reads them."""
  chunk = math.prod(array.chunk_layout.write_chunk.shape or ())
  num_bytes = chunk * array.dtype.numpy_dtype.itemsize
  if chunk > max(math.prod(array.shape), _SMALL_CHUNK):
    raise ValueError(f"chunks of {chunk} numbers, the array is {array.shape}")
  if largest_file > 2 * num_bytes + _SMALL_CHUNK:
    raise ValueError(f"a file of {largest_file} bytes, a chunk of {chunk}")


def _largest_file(folder: Path) -> int:
  """Bytes of the largest file below a folder.

  Raises:
    OSError: a pipe or a device, which TensorStore would open, or a description
      that is larger than any is.
  """
  largest = 0
  for directory, _, names in os.walk(folder):
    for name in names:
      file = os.path.join(directory, name)
      files.check_regular(file, _LARGEST.get(name))
      largest = max(largest, os.path.getsize(file))
  return largest


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
    store = {"driver": "file", "path": base}
    kvstore = {"driver": "ocdbt", "base": store, "path": f"{name}/"}
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
