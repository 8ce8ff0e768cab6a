"""The header of a GGUF file: its metadata, and where each tensor lies.

Versions 2 and 3, little-endian; every count is compared with the size of the
file before anything is made for it. Tensors are read by `gguf_checkpoint`.

  header = read("SmolLM2-135M-Instruct.Q4_1.gguf")
  header.metadata["general.architecture"]  # "llama"

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import os
from pathlib import Path
from typing import Any
from typing import BinaryIO
from typing import NamedTuple

import numpy as np

from gkd import files
from gkd.errors import UserError

SUFFIX = ".gguf"
_MAX_HEADER_BYTES = 256 << 20  # ten times that of a vocabulary of 262,144
_VERSIONS = (2, 3)
_ALIGNMENT = 32  # of tensors, where general.alignment does not say
_MAX_DIMENSIONS = 4
# Numbers of the types of values; NumPy's name of those of one size.
_SCALARS = dict(
  enumerate(("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "?"))
) | {10: "<u8", 11: "<i8", 12: "<f8"}
_FLOAT32, _TEXT, _ARRAY = 6, 8, 9


class Tensor(NamedTuple):
  """A tensor in the file.

  Attributes:
    shape: of NumPy and PyTorch, the reverse of the file's.
    kind: number of its ggml_type.
    offset: of its first byte in the file.
  """

  shape: tuple[int, ...]
  kind: int
  offset: int


class Header(NamedTuple):
  """What stands before the tensors: {name: value}, {name: tensor}."""

  metadata: dict[str, Any]
  tensors: dict[str, Tensor]


def read(path: str | os.PathLike) -> Header:
  """The header of a file; no tensor is read.

  Raises:
    UserError: unreadable, no GGUF, of another version, or damaged.
  """
  path = Path(path)
  try:
    files.check_regular(path)
    with path.open("rb") as file:
      return _read(_Cursor(file, path.stat().st_size))
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); give a GGUF file"
    ) from error
  except (KeyError, TypeError, _DamagedError, UnicodeDecodeError) as error:
    raise damaged(path, str(error)) from error


def damaged(path: Path, reason: str) -> UserError:
  return UserError(
    f"{path} is damaged or only half there ({reason}); download it again"
  )


class _DamagedError(Exception):
  """Bytes that no GGUF has."""


class _Cursor:
  """Reads values one after the other, never beyond the end."""

  def __init__(self, file: BinaryIO, size: int):
    self._file = file
    self._left = min(size, _MAX_HEADER_BYTES)

  def take(self, count: int) -> bytes:
    if count > self._left:
      raise _DamagedError(
        f"{count} bytes at {self._file.tell()}, of which {self._left} are there"
      )
    self._left -= count
    return self._file.read(count)

  def number(self, code: str) -> Any:
    return self.numbers(code, 1)[0]

  def numbers(self, code: str, count: int) -> list:
    size = np.dtype(code).itemsize
    return np.frombuffer(self.take(size * count), code).tolist()

  def text(self) -> str:
    size = int.from_bytes(self.take(8), "little")  # quick: of all tokens
    return self.take(size).decode("utf-8")

  def value(self, kind: int) -> Any:
    if kind == _TEXT:
      return self.text()
    if kind == _FLOAT32:  # 1e-05 and not 9.999999747378752e-06
      return float(str(np.float32(self.number("<f4"))))
    if kind != _ARRAY:
      return self.number(_SCALARS[kind])
    inner, count = self.number("<u4"), self.number("<u8")
    if inner == _TEXT:
      return [self.text() for _ in range(count)]
    return self.numbers(_SCALARS[inner], count)

  def position(self) -> int:
    return self._file.tell()


def _read(cursor: _Cursor) -> Header:
  magic, version = cursor.take(4), cursor.number("<u4")
  if magic != b"GGUF" or version not in _VERSIONS:
    raise _DamagedError(
      f"it begins with {magic!r}, version {version}; expected b'GGUF', version"
      f" {' or '.join(map(str, _VERSIONS))}, little-endian"
    )
  num_tensors, num_values = cursor.numbers("<u8", 2)
  metadata, places = {}, {}
  for _ in range(num_values):
    name = cursor.text()
    metadata[name] = cursor.value(cursor.number("<u4"))
  for _ in range(num_tensors):
    name, dimensions = cursor.text(), cursor.number("<u4")
    if name in places or dimensions > _MAX_DIMENSIONS:
      raise _DamagedError(f"{name!r} is there twice, or of {dimensions} axes")
    shape = tuple(reversed(cursor.numbers("<u8", dimensions)))
    places[name] = shape, cursor.number("<u4"), cursor.number("<u8")
  alignment = metadata.get("general.alignment", _ALIGNMENT)
  if type(alignment) is not int or alignment < 1:
    raise _DamagedError(f"general.alignment is {alignment!r}")
  start = -(-cursor.position() // alignment) * alignment
  return Header(
    metadata,
    {
      name: Tensor(shape, kind, start + offset)
      for name, (shape, kind, offset) in places.items()
    },
  )
