"""Files that are there whole or not at all, and what a full disk looks like.

files.write_text(folder / "config.gin", text)
"""

from collections.abc import Iterator
import contextlib
import errno
import os
from pathlib import Path
import threading

from gkd.errors import UserError

# What the user can mend: free space, another quota, rights, another mount.
_MENDABLE = {
  errno.EACCES,
  errno.EDQUOT,
  errno.EFBIG,
  errno.ENOSPC,
  errno.EPERM,
  errno.EROFS,
}


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file through a temporary name; on the disk when this returns.

  The temporary name is the thread's own, `.<name>.<process>-<thread>.partial`:
  of several that write at once the last one's file stays, whole.
  """
  path = Path(path)
  writer = f"{os.getpid()}-{threading.get_native_id()}"
  partial = path.with_name(f".{path.name}.{writer}.partial")
  try:
    with partial.open("w", encoding="utf-8") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


@contextlib.contextmanager
def explaining(what: str) -> Iterator[None]:
  """Turns a disk's refusal in the block into one line.

  Args:
    what: was to be done and how it goes on, in front of the reason.

  Raises:
    UserError: the disk is full or may not be written to.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    reason = disk_trouble(error)
    if reason is None:
      raise
    raise UserError(f"{what} ({reason})") from error


def disk_trouble(error: BaseException) -> str | None:
  """Why a disk refused to be written to; None if that was not the trouble.

  Libraries pass the errors of the system on as a cause, in a group, or as the
  text of an error of their own.
  """
  if isinstance(error, BaseExceptionGroup):
    found = [disk_trouble(part) for part in error.exceptions]
    return next(filter(None, found), None)
  if isinstance(error, OSError) and error.errno in _MENDABLE:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno)}"
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
    if os.strerror(number) in str(error):
      return os.strerror(number)
  return disk_trouble(error.__cause__) if error.__cause__ is not None else None
