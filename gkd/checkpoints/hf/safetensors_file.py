"""Arrays in safetensors files, read and written one at a time.

The safetensors package reads them lazily and refuses damaged files. Its
`save_file` wants all arrays at once, so the writer is our own, after
https://github.com/huggingface/safetensors: the length of a header (8 bytes),
the header (JSON: type, shape and place of each array) and the arrays.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import math
from pathlib import Path
import struct
from typing import Any

import ml_dtypes  # noqa: F401 (makes bfloat16 a type of NumPy)
import numpy as np
from safetensors import SafetensorError
from safetensors import safe_open

from gkd import files
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.checkpoint import batches
from gkd.errors import listed
from gkd.types import UserError

FILE = "model.safetensors"
INDEX_FILE = FILE + ".index.json"
# As transformers 4 cuts them.
SHARD_BYTES = 5_000_000_000
# transformers refuses files that do not say which library they are for.
METADATA = {"format": "pt"}

_DTYPES = {"F32": "float32", "BF16": "bfloat16"}
_NAMES = {ours: theirs for theirs, ours in _DTYPES.items()}
_LFS_POINTER = b"version https://git-lfs"


def open_folder(folder: Path) -> dict[str, Leaf]:
  """{name: tensor} of a folder, of one file or of those of its index, sorted.

  float16 is read as float32, which is exact. Of a type that is not read,
  `dtype` is its name in the file ("F64").

  Raises:
    UserError: nothing there, damaged, or files and index that do not agree;
      names the file.
  """
  single, index = folder / FILE, folder / INDEX_FILE
  if single.is_file() and index.is_file():
    raise UserError(
      f"{folder} has both {FILE} and {INDEX_FILE}; expected one of the two;"
      " remove the one that is older"
    )
  if index.is_file():
    return _open_sharded(index)
  if single.is_file():
    return open_file(single)
  for file in (single, index):
    if file.is_symlink():
      raise UserError(
        f"{file} is a link to {file.readlink()}, which is not there; download"
        " the folder again"
      )
  others = sorted(file.name for file in folder.glob("*.safetensors"))
  if others:
    raise UserError(
      f"{folder} has {others[0]} without {INDEX_FILE}, which says what is in"
      " it; download that too"
    )
  raise UserError(f"{folder} has no {FILE}; give the folder of a whole model")


def open_file(file: Path) -> dict[str, Leaf]:
  """Tensors of one file, sorted by name.

  Raises:
    UserError: truncated, or not a safetensors file.
  """
  with _one_line(file):
    files.check_regular(file)
    with file.open("rb") as opened:
      start = opened.read(len(_LFS_POINTER))
    size = int.from_bytes(start[:8], "little")
  if start == _LFS_POINTER:
    raise UserError(
      f"{file} is a pointer of git-lfs instead of the file; fetch it with git"
      " lfs pull, or download the folder with hf download"
    )
  if size > files.MAX_JSON_BYTES:
    raise UserError(
      f"{file} is damaged or only half there (a header of {size} bytes);"
      " download it again"
    )
  with _reading(file) as tensors:
    slices = {name: tensors.get_slice(name) for name in tensors.offset_keys()}
    return {
      name: _leaf(file, name, part) for name, part in sorted(slices.items())
    }


def write_folder(
  folder: Path, tensors: Mapping[str, Leaf], shard_bytes: int = SHARD_BYTES
) -> None:
  """Writes model.safetensors, or shards and their index.

  Args:
    folder: exists.
    tensors: {name: float32 or bfloat16 tensor}; each is read once, and written
      before the next is read.
    shard_bytes: most bytes of arrays in a file; a larger array has its own.
  """
  shards = batches(tensors, shard_bytes)
  if len(shards) == 1:
    write_file(folder / FILE, tensors)
    return
  weight_map = {}
  for number, names in enumerate(shards, start=1):
    name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    write_file(folder / name, {n: tensors[n] for n in names})
    weight_map |= dict.fromkeys(names, name)
  sizes = {
    "total_parameters": sum(math.prod(t.shape) for t in tensors.values()),
    "total_size": sum(t.size_bytes for t in tensors.values()),
  }
  index = {"metadata": sizes, "weight_map": dict(sorted(weight_map.items()))}
  files.write_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")


def write_file(file: Path, tensors: Mapping[str, Leaf]) -> None:
  """Writes one file, byte for byte as the safetensors package writes it."""
  # Wider types first, so that each array is aligned.
  order = sorted(tensors, key=lambda n: (tensors[n].dtype != "float32", n))
  header: dict[str, Any] = {"__metadata__": METADATA}
  begin = 0
  for name in order:
    leaf = tensors[name]
    end = begin + leaf.size_bytes
    header[name] = {
      "dtype": _NAMES[leaf.dtype],
      "shape": list(leaf.shape),
      "data_offsets": [begin, end],
    }
    begin = end
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  text += b" " * (-len(text) % 8)
  with file.open("wb") as out:
    out.write(struct.pack("<Q", len(text)) + text)
    for name in order:
      array = np.ascontiguousarray(tensors[name].read())
      assert array.nbytes == tensors[name].size_bytes, name
      out.write(array.reshape(-1).view(np.uint8).data)
      del array


def _leaf(file: Path, name: str, part: Any) -> Leaf:
  def read() -> np.ndarray:
    # Opened again, because a file that became shorter since would end the
    # process: the package maps it into memory.
    with _reading(file) as tensors:
      return tensors.get_tensor(name)

  kind = part.get_dtype()
  leaf = Leaf(tuple(part.get_shape()), _DTYPES.get(kind, kind), read)
  if kind == "F16":  # each of its numbers is one of float32
    leaf = leaf.map(lambda array: array.astype("float32"), dtype="float32")
  return leaf


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[Any]:
  with _one_line(file), safe_open(file, framework="np") as tensors:
    yield tensors


@contextlib.contextmanager
def _one_line(file: Path) -> Iterator[None]:
  try:
    yield
  except (SafetensorError, OSError, TypeError, ValueError) as error:
    if isinstance(error, UserError):
      raise
    reason = getattr(error, "strerror", None) or str(error)
    reason = reason.removeprefix("Error while deserializing header: ")
    raise UserError(
      f"{file} is damaged or only half there ({reason}); download it again"
    ) from error


def _open_sharded(index: Path) -> dict[str, Leaf]:
  """The tensors of all files that an index names."""
  remedy = "it is no index of safetensors files, download it again"
  content = files.read_json(index, {"weight_map": dict}, remedy)
  weight_map = content.get("weight_map")
  if not weight_map or not all(map(files.is_plain_name, weight_map.values())):
    raise UserError(f"{index} names no files of its folder; {remedy}")
  tensors: dict[str, Leaf] = {}
  places: set[tuple[str, str]] = set()
  for name in sorted(set(weight_map.values())):
    file = index.with_name(name)
    if not file.is_file():
      raise UserError(
        f"{file} is missing, which {INDEX_FILE} names; download it"
      )
    part = open_file(file)
    tensors |= part
    places |= {(tensor, name) for tensor in part}
  if wrong := sorted(
    {tensor for tensor, _ in places ^ set(weight_map.items())}
  ):
    raise UserError(
      f"{index} and its files disagree about the place of {listed(wrong)};"
      " download all of them again"
    )
  return dict(sorted(tensors.items()))
