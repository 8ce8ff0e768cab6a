"""zarr arrays in a folder, or in an OCDBT store, read one at a time.

  stored = open_array(folder, "target.decoder.decoder_norm.scale")
  array = stored.read()

TensorStore would read a chunk that is not there as zeros; here it is an error.
Both of T5X's layouts keep zarr format 2; nothing else is read.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
from pathlib import Path
from pathlib import PurePosixPath

import numpy as np
import tensorstore as ts

from gkd.types import UserError

_OCDBT = "manifest.ocdbt"
# Decoded chunks that stay in memory: layers stacked in one array are read one
# by one, and a chunk holds a part of each of them. Of a larger stack each layer
# decodes the chunks again, which takes time instead of memory.
_CACHE_BYTES = 1 << 30
_CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})


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
    return np.array(array if layer is None else array[:, layer], order="C")

  return Stored(array.shape, array.dtype.name, read, place)


def open_array(folder: Path, name: str) -> Stored:
  """The array of a folder name such as "target.encoder.…".

  Args:
    folder: of all arrays: plain folders of zarr, or an OCDBT store.
    name: of one.

  Raises:
    UserError: it is not there, or not zarr of format 2. A missing or damaged
      chunk raises when it is read.
  """
  name = name.strip("/")
  place = str(folder / name)
  if ".." in PurePosixPath(name).parts:
    raise UserError(
      f"{place} leads out of the checkpoint's folder; give a checkpoint that"
      " T5X has written"
    )
  files = {"driver": "file", "path": f"{folder.absolute()}/"}
  if (folder / _OCDBT).exists():
    kvstore = {"driver": "ocdbt", "base": files, "path": f"{name}/"}
  else:
    kvstore = files | {"path": f"{files['path']}{name}/"}
  spec = {
    "driver": "zarr",
    "kvstore": kvstore,
    "fill_missing_data_reads": False,
    "recheck_cached_data": "open",
  }

  def opened(context: ts.Context) -> ts.TensorStore:
    return ts.open(spec, read=True, open=True, context=context).result()

  def read(layer: int | None = None) -> np.ndarray:
    with reading(place):
      if layer is None:  # read once: nothing of it is worth keeping
        part = opened(ts.Context())
      else:
        part = opened(_CONTEXT)[:, layer]
      # TensorStore would end the process where a damaged shape asks for more
      # memory than there is; NumPy raises.
      array = np.empty(part.shape, part.dtype.numpy_dtype)
      ts.array(array, copy=False).write(part).result()
      return array

  with reading(place):
    stored = opened(ts.Context())
  return Stored(tuple(stored.shape), stored.dtype.name, read, place)


@contextlib.contextmanager
def reading(place: str) -> Iterator[None]:
  """Whatever fails in the block becomes one line that names `place`."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # damaged bytes make decoders fail in every way
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = lines[0].partition(" [")[0][:300]
    raise UserError(
      f"{place} cannot be read ({reason}); it is damaged, not whole or not of"
      " T5X, copy it again"
    ) from error
