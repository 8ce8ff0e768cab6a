"""Arrays in safetensors files, read and written one at a time.

A file is the length of a header (8 bytes), the header (JSON: type, shape and
place of each array) and the arrays. The safetensors package is not used: its
`save_file` wants all arrays at once, and a damaged file has to be named here.

  tensors = open_folder(Path("flan-t5-small"))
  write_folder(Path("exported"), tensors)

Format: https://github.com/huggingface/safetensors
"""

from collections.abc import Mapping
import json
import math
from pathlib import Path
import struct
from typing import Any

import ml_dtypes
import numpy as np

from gkd import files
from gkd.checkpoints.checkpoint import Leaf
from gkd.types import UserError

FILE = "model.safetensors"
INDEX_FILE = FILE + ".index.json"
# As transformers 4 cuts them.
SHARD_BYTES = 5_000_000_000
# transformers refuses files that do not say which library they are for.
METADATA = {"format": "pt"}

_DTYPES = {
  "F32": np.dtype("<f4"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {"float32": "F32", "bfloat16": "BF16"}
# Others that the format has; only their size is needed, to check the file.
_SIZES = {"F64": 8, "I64": 8, "U64": 8, "I32": 4, "U32": 4, "F16": 2, "I16": 2}
_SIZES |= {"U16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors package
_LENGTH = struct.Struct("<Q")
_LFS_POINTER = b"version https://git-lfs"
# What JSON of a damaged file ends in, or in looking into it.
_UNREADABLE = (
  ValueError,
  KeyError,
  TypeError,
  AttributeError,
  RecursionError,
)
_LISTED = 3


def open_folder(folder: Path) -> dict[str, Leaf]:
  """All tensors of a folder, of one file or of those of its index, sorted.

  Returns:
    {name: tensor}. `dtype` is "float32", "bfloat16" or, of a tensor that cannot
    be read, its name in the file ("F16").

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
    return _open_sharded(folder, _weight_map(index))
  if single.is_file():
    return dict(sorted(open_file(single).items()))
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
  """Tensors of one file, in the order of the header.

  Raises:
    UserError: truncated, or not a safetensors file.
  """
  header, start = _header(file)
  total = file.stat().st_size - start
  leaves, end = {}, 0
  places = sorted(header.items(), key=lambda item: item[1]["data_offsets"])
  for name, entry in places:
    begin, stop = entry["data_offsets"]
    shape, kind = tuple(entry["shape"]), entry["dtype"]
    size = _DTYPES[kind].itemsize if kind in _DTYPES else _SIZES.get(kind)
    if size is not None and stop - begin != math.prod(shape) * size:
      raise _damaged(file, f"{name} {shape} {kind} has {stop - begin} bytes")
    if begin != end:
      raise _damaged(file, f"{name} does not begin where the one before ends")
    end = stop
    leaves[name] = _leaf(file, start + begin, shape, kind)
  if end != total:
    raise _damaged(
      file, f"its header speaks of {end} bytes of arrays, it has {total}"
    )
  return {name: leaves[name] for name in header}


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
  shards = _shards(tensors, shard_bytes)
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
  """Writes one file, byte for byte as the safetensors package writes it.

  Raises:
    UserError: the disk refuses.
  """
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
    out.write(_LENGTH.pack(len(text)) + text)
    for name in order:
      array = np.ascontiguousarray(tensors[name].read())
      assert array.nbytes == tensors[name].size_bytes, name
      out.write(array.reshape(-1).view(np.uint8).data)
      del array


def _leaf(file: Path, place: int, shape: tuple[int, ...], kind: str) -> Leaf:
  """A tensor at a byte of a file."""

  def read() -> np.ndarray:
    dtype = _DTYPES[kind]
    array = np.fromfile(file, dtype, math.prod(shape), offset=place)
    if array.size != math.prod(shape):
      raise _damaged(file, "it became shorter while it was read")
    return array.reshape(shape)

  return Leaf(shape, _DTYPES[kind].name if kind in _DTYPES else kind, read)


def _header(file: Path) -> tuple[dict[str, Any], int]:
  """What each tensor is and where the first one begins."""
  size = file.stat().st_size
  with file.open("rb") as opened:
    first = opened.read(len(_LFS_POINTER))
    if first.startswith(_LFS_POINTER):
      raise UserError(
        f"{file} is a pointer of git-lfs instead of the file; fetch it with git"
        " lfs pull, or download the folder with hf download"
      )
    if size < _LENGTH.size:
      raise _damaged(file, f"it has {size} bytes")
    length = _LENGTH.unpack(first[: _LENGTH.size])[0]
    if length > min(size - _LENGTH.size, _MAX_HEADER_BYTES):
      raise _damaged(file, f"its header would have {length} bytes")
    opened.seek(_LENGTH.size)
    text = opened.read(length)
  try:
    header = json.loads(text, object_pairs_hook=_without_repeats)
    header.pop("__metadata__", None)
    for entry in header.values():
      _check_entry(entry)
  except _UNREADABLE as error:
    raise _damaged(file, "its header cannot be read") from error
  return header, _LENGTH.size + length


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  if len({name for name, _ in pairs}) != len(pairs):
    raise ValueError("a name occurs twice")
  return dict(pairs)


def _check_entry(entry: Mapping[str, Any]) -> None:
  begin, end = entry["data_offsets"]
  numbers = [begin, end, *entry["shape"]]
  if not all(type(n) is int and n >= 0 for n in numbers) or begin > end:
    raise ValueError("not sizes and places")
  if not isinstance(entry["dtype"], str):
    raise ValueError("not a type")


def _weight_map(index: Path) -> dict[str, str]:
  """{tensor: file} of an index."""
  try:
    text = index.read_text("utf-8")
    content = json.loads(text, object_pairs_hook=_without_repeats)
    weight_map = content["weight_map"]
    names = list(weight_map.values())
    if not names or not all(map(files.is_plain_name, names)):
      raise ValueError("no names of files")
  except _UNREADABLE as error:
    raise UserError(
      f"{index} is not an index of safetensors files; download it again"
    ) from error
  return weight_map


def _open_sharded(folder: Path, weight_map: Mapping[str, str]):
  shards = {}
  for name in sorted(set(weight_map.values())):
    if not (folder / name).is_file():
      raise UserError(
        f"{folder / name} is missing, which {INDEX_FILE} names; download it"
      )
    shards[name] = open_file(folder / name)
  lost = sorted(n for n, f in weight_map.items() if n not in shards[f])
  if lost:
    raise UserError(
      f"{folder / weight_map[lost[0]]} lacks {_some(lost)}, which {INDEX_FILE}"
      " places in it; download both again"
    )
  for file, tensors in shards.items():
    unnamed = sorted(n for n in tensors if weight_map.get(n) != file)
    if unnamed:
      raise UserError(
        f"{folder / file} holds {_some(unnamed)}, which {INDEX_FILE} does not"
        " place there; download both again"
      )
  return {name: shards[weight_map[name]][name] for name in sorted(weight_map)}


def _shards(tensors: Mapping[str, Leaf], most: int) -> list[list[str]]:
  shards: list[list[str]] = [[]]
  filled = 0
  for name, leaf in tensors.items():
    if shards[-1] and filled + leaf.size_bytes > most:
      shards.append([])
      filled = 0
    shards[-1].append(name)
    filled += leaf.size_bytes
  return shards


def _some(names: list[str]) -> str:
  return ", ".join(names[:_LISTED]) + ", …" * (len(names) > _LISTED)


def _damaged(file: Path, why: str) -> UserError:
  return UserError(
    f"{file} is damaged or only half there ({why}); download it again"
  )
