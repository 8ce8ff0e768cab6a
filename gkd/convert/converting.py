"""From one format to another, array by array, whole or not at all.

convert("t5_1_1_lm100k_base/checkpoint_1100000", "models/base", to="hf")
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import os
from pathlib import Path
import shutil
from typing import Any

import ml_dtypes
import numpy as np

from gkd import files
from gkd import locks
from gkd.convert import opening
from gkd.convert.checkpoint import Checkpoint
from gkd.convert.checkpoint import Format
from gkd.convert.checkpoint import Leaf
from gkd.progress import Progress
from gkd.types import UserError

DTYPES = {
  "float32": np.dtype("float32"),
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def convert(
  source: str | os.PathLike,
  destination: str | os.PathLike,
  *,
  to: Format,
  given: Mapping[str, Any] | None = None,
  dtype: str | None = None,
  step: int | None = None,
  slots: bool = False,
) -> Checkpoint:
  """Converts a checkpoint; memory stays near its largest array.

  Args:
    source: of any format, see `open_any`.
    destination: a folder that does not exist or is empty.
    to: format to write.
    given: fields of T5Config that the source does not say.
    dtype: cast to "float32" or "bfloat16"; as stored when None.
    step: see `plan`.
    slots: keep Adafactor's slots.

  Returns:
    What was written, readable from the source as long as that is there.

  Raises:
    UserError: the source cannot be read or the destination not be written;
      then nothing is left at `destination`.
  """
  planned = plan(
    source, to=to, given=given, dtype=dtype, step=step, slots=slots
  )
  write(planned, destination, to=to)
  return planned


def plan(
  source: str | os.PathLike,
  *,
  to: Format,
  given: Mapping[str, Any] | None = None,
  dtype: str | None = None,
  step: int | None = None,
  slots: bool = False,
) -> Checkpoint:
  """What `convert` would write; reads names and shapes, no array.

  Args:
    source: see `convert`.
    to: see `convert`.
    given: see `convert`.
    dtype: see `convert`.
    step: of the checkpoint: chooses among several, is checked where there is
      one, and is told where the format has none.
    slots: see `convert`.
  """
  opened = opening.open_any(source, **(given or {}))
  if dtype is not None:
    opened = _cast(opened, dtype)
  return opened


def write(
  checkpoint: Checkpoint, destination: str | os.PathLike, *, to: Format, **extra
) -> None:
  """Writes an opened checkpoint, whole or not at all; see `convert`."""
  writer = opening.reader(to)
  with _whole_folder(destination) as partial, _progress(checkpoint) as told:
    writer.write(partial, told, **extra)


def _cast(checkpoint: Checkpoint, dtype: str) -> Checkpoint:
  if dtype not in DTYPES:
    raise UserError(f"dtype {dtype!r}; expected {' or '.join(DTYPES)}")
  leaves = {
    name: _cast_leaf(leaf, dtype) for name, leaf in checkpoint.leaves.items()
  }
  return dataclasses.replace(checkpoint, leaves=leaves)


def _cast_leaf(leaf: Leaf, dtype: str) -> Leaf:
  if leaf.dtype == dtype:
    return leaf
  return Leaf(leaf.shape, dtype, lambda: leaf.read().astype(DTYPES[dtype]))


@contextlib.contextmanager
def _whole_folder(destination: str | os.PathLike) -> Iterator[Path]:
  """A folder under a temporary name that takes its place when all went well."""
  path = Path(destination).expanduser().absolute()
  check_free(path)
  partial = path.with_name(f".{path.name}.partial")
  lock = path.with_name(f".{path.name}.lock")
  with (
    files.explaining(f"cannot write {path}; nothing is left of it"),
    locks.hold(lock, f"{path}"),
  ):
    try:
      shutil.rmtree(partial, ignore_errors=True)  # of a call that was killed
      partial.mkdir()
      yield partial
      _sync(partial)
      check_free(path)
      os.rename(partial, path)
      _sync_folder(path.parent)
    finally:
      shutil.rmtree(partial, ignore_errors=True)
      lock.unlink(missing_ok=True)


def check_free(path: Path) -> None:
  """Raises a UserError unless nothing, or an empty folder, is there."""
  if path.is_dir() and not any(path.iterdir()):
    return
  if path.exists() or path.is_symlink():
    raise UserError(
      f"{path} exists; nothing is replaced: give another folder, or remove it"
    )


def _sync(folder: Path) -> None:
  """Returns when all files are on the disk, under their names."""
  for directory, _, names in os.walk(folder):
    for name in names:
      with open(os.path.join(directory, name), "rb") as file:
        os.fsync(file.fileno())
    _sync_folder(directory)


def _sync_folder(folder: str | os.PathLike) -> None:
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def _progress(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
  """The same checkpoint, telling how much of it has been read."""
  leaves = checkpoint.leaves
  total = sum(leaf.size_bytes for leaf in leaves.values())
  done = 0
  with Progress(
    round(total / 1e6), description="converting", unit="megabyte", delay=2.0
  ) as progress:

    def telling(leaf: Leaf) -> Leaf:
      def read() -> np.ndarray:
        nonlocal done
        array = leaf.read()
        before, done = done, done + leaf.size_bytes
        progress.update(round(done / 1e6) - round(before / 1e6))
        return array

      return Leaf(leaf.shape, leaf.dtype, read)

    told = {name: telling(leaf) for name, leaf in leaves.items()}
    yield dataclasses.replace(checkpoint, leaves=told)
