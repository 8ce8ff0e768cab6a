"""A folder that is there whole or not at all.

check(source, "model")
with create("model") as partial:
  …
"""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil

from gkd import disk_errors
from gkd import files
from gkd import locks
from gkd.types import UserError

_MARK = "of_gkd"  # the file that a temporary folder is known by


def check(source: str | os.PathLike, destination: str | os.PathLike) -> None:
  """Refuses, before any work, a folder that could not be written.

  Raises:
    UserError: something is there, it lies in the source, or it cannot be made.
  """
  path = files.local_path(destination).absolute()
  folder = Path(os.path.realpath(files.local_path(source)))
  try:
    _check_free(path)
    if Path(os.path.realpath(path)).is_relative_to(folder):
      raise UserError(
        f"{path} is in {folder}, the folder to convert, which stays as it is;"
        " give a folder outside of it"
      )
    _partial(path).exists()  # the longer name
    files.check_folder(str(path.parent), f"cannot write {path}: folder")
  except OSError as error:
    raise UserError(
      f"cannot write {path} ({error.strerror}); give another folder"
    ) from error


@contextlib.contextmanager
def create(destination: str | os.PathLike) -> Iterator[Path]:
  """A folder under a temporary name that is renamed when all went well.

  Raises:
    UserError: another process is at it, something is there, or the disk is full
      or may not be written to; nothing is left.
  """
  path = files.local_path(destination).absolute()
  work = _partial(path)
  partial = work / "content"
  lock = path.with_name(f".{path.name}.lock")
  with (
    disk_errors.explaining(f"cannot write {path}; nothing is left of it"),
    _parents(path),
    locks.hold(lock, f"{path}", remove=True),
  ):
    _check_free(path)
    with contextlib.suppress(OSError):
      work.rmdir()  # empty: of a call that was killed before it had a mark
    if os.path.lexists(work) and not (work / _MARK).is_file():
      raise UserError(
        f"{work} is in the way and of another program; remove it, or give"
        " another folder"
      )
    try:
      _remove(work)  # of a call that was killed
      work.mkdir()
      (work / _MARK).touch()
      partial.mkdir()
      yield partial
      for directory, _, names in os.walk(partial):
        for name in [*names, "."]:
          _sync(os.path.join(directory, name))
      _check_free(path)
      os.rename(partial, path)
      _sync(path.parent)
    finally:
      _remove(work)


def _remove(work: Path) -> None:
  """Its mark goes last: without it, it is another program's."""
  for part in (work / "content", work):
    shutil.rmtree(part, ignore_errors=True)


def _check_free(path: Path) -> None:
  """Raises a UserError unless nothing, or an empty folder, is there."""
  if path.is_dir() and not any(path.iterdir()):
    return
  if path.exists() or path.is_symlink():
    raise UserError(
      f"{path} exists and nothing is replaced; give another folder, or remove"
      " it"
    )


def _partial(path: Path) -> Path:
  """The temporary name."""
  return path.with_name(f".{path.name}.partial")


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
  """Removes the folders above that the block made, if it fails."""
  missing = [folder for folder in path.parents if not folder.exists()]
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):  # another process has put something in
      for folder in missing:
        folder.rmdir()
    raise


def _sync(path: str | os.PathLike) -> None:
  """Returns when a file, or the names in a folder, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
