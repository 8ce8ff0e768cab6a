"""zarr arrays in a folder, or in an OCDBT store, read one at a time.

TensorStore reads a chunk that is not there as zeros, without a word. Here every
chunk of an array has to be there before anything is read.

  store = zarr_arrays.open_store(Path("checkpoint_10"))
  array = store.array("target.encoder.encoder_norm.scale").read()

Both of T5X's layouts keep zarr format 2; nothing else is read.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import math
from pathlib import Path
import posixpath
import sys
from typing import Any

import numpy as np
import tensorstore as ts

from gkd.types import UserError

_OCDBT = "manifest.ocdbt"
# Decoded chunks that stay in memory: layers stacked in one array are read one
# by one, and a chunk holds a part of each of them. Of a larger stack each layer
# decodes the chunks anew, which takes time instead of memory.
_CACHE_BYTES = 1 << 30
_MISSING_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Stored:
  """An array of a checkpoint, of any type, not read yet.

  Attributes:
    shape: of the array.
    dtype: NumPy's name of its type, or "bfloat16".
    read: `read()` is the array, C-contiguous; `read(i)` is its part `[:, i]`.
    place: the file or folder, for messages.
  """

  shape: tuple[int, ...]
  dtype: str
  read: Callable[..., np.ndarray]
  place: str


def in_memory(array: np.ndarray, place: str) -> Stored:
  """An array that came with its index."""
  array = np.asarray(array)

  def read(layer: int | None = None) -> np.ndarray:
    # Not ascontiguousarray, which gives a scalar a dimension.
    return np.array(_part(array, layer), order="C")

  return Stored(array.shape, array.dtype.name, read, place)


@dataclasses.dataclass(frozen=True)
class Store:
  """A folder of zarr arrays; `open_store` makes it.

  Attributes:
    folder: of the arrays.
    spec: TensorStore's key-value store, without a path.
    values: reads a small file of it.
    keys: every file in it.
  """

  folder: Path
  spec: dict[str, Any]
  values: Callable[[str], bytes]
  keys: frozenset[str]

  def array(self, name: str) -> Stored:
    """The array of a folder name such as "target.encoder.…".

    Raises:
      UserError: it is not there, not whole, or not zarr of format 2.
    """
    name = posixpath.normpath(name).strip("/")
    place = str(self.folder / name)
    about = self._metadata(name)
    shape, chunks = tuple(about["shape"]), tuple(about["chunks"])
    self._check_chunks(name, shape, chunks, about["separator"])

    def read(layer: int | None = None) -> np.ndarray:
      spec = {"driver": "zarr", "kvstore": {**self.spec}}
      spec["kvstore"]["path"] = self.spec.get("path", "") + f"{name}/"
      return _read(spec, layer, place)

    return Stored(shape, about["dtype"], read, place)

  def _metadata(self, name: str) -> dict[str, Any]:
    key = f"{name}/.zarray"
    place = self.folder / key
    if key not in self.keys:
      raise UserError(
        f"{place} is missing, so the checkpoint is not whole; copy it again"
      )
    with reading(str(place)):
      about = json.loads(self.values(key))
      if about["zarr_format"] != 2 or len(about["shape"]) != len(
        about["chunks"]
      ):
        raise ValueError("not an array of zarr format 2")
      if math.prod(about["shape"]) > sys.maxsize:
        raise ValueError(f"no array has the shape {about['shape']}")
      dtype = about["dtype"]
      return {
        "shape": [_size(n, 0) for n in about["shape"]],
        "chunks": [_size(n, 1) for n in about["chunks"]],
        "dtype": dtype if dtype == "bfloat16" else np.dtype(dtype).name,
        "separator": about.get("dimension_separator") or ".",
      }

  def _check_chunks(self, name, shape, chunks, separator) -> None:
    grid = [math.ceil(n / c) for n, c in zip(shape, chunks, strict=True)]
    count = math.prod(grid)
    # No more than there are files, and as many as are named: a damaged shape
    # may have billions.
    most = len(self.keys) + _MISSING_NAMED + 1
    numbers = np.arange(min(count, most))
    # The 1 is for scalars, which have an empty grid.
    corners = np.stack(np.unravel_index(numbers, (1, *grid)), axis=-1)[:, 1:]
    wanted = [
      f"{name}/{separator.join(map(str, index)) or '0'}" for index in corners
    ]
    missing = [key for key in wanted if key not in self.keys]
    if missing:
      named = [key.rpartition("/")[2] for key in missing[:_MISSING_NAMED]]
      some = ", ".join(named) + ", …" * (len(missing) > _MISSING_NAMED)
      least = "at least " * (count > most)
      raise UserError(
        f"{self.folder / name} lacks {least}{len(missing)} of its {count} "
        f"chunk files ({some}), so the checkpoint is not whole; copy it again"
      )


def open_store(folder: Path) -> Store:
  """All arrays of a folder: plain folders of zarr, or OCDBT.

  Raises:
    UserError: its index cannot be read.
  """
  spec: dict[str, Any] = {"driver": "file", "path": f"{folder.absolute()}/"}
  if (folder / _OCDBT).exists():
    spec = {"driver": "ocdbt", "base": spec}
  with reading(str(folder)):
    store = ts.KvStore.open(spec).result()
    keys = frozenset(
      key.decode("utf-8", "replace") for key in store.list().result()
    )
  return Store(folder, spec, lambda key: store.read(key).result().value, keys)


@contextlib.contextmanager
def reading(place: str) -> Iterator[None]:
  """Whatever fails in the block is told in one line that names `place`."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # damaged bytes make decoders fail in every way
    raise UserError(
      f"{place} cannot be read ({_first_line(error)}); it is damaged or not "
      "of T5X, copy it again"
    ) from error


_CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})


def _read(spec: dict[str, Any], layer: int | None, place: str) -> np.ndarray:
  with reading(place):
    # Whole arrays are read once: nothing of them is worth keeping.
    context = ts.Context() if layer is None else _CONTEXT
    array = ts.open(
      spec, read=True, open=True, context=context, recheck_cached_data="open"
    ).result()
    return np.asarray(_part(array, layer).read(order="C").result())


def _part(array: Any, layer: int | None) -> Any:
  return array if layer is None else array[:, layer]


def _size(number: Any, least: int) -> int:
  if not isinstance(number, int) or number < least:
    raise ValueError(f"{number!r} is no size")
  return number


def _first_line(error: Exception) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:200]
