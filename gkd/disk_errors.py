"""What the system refuses of a file, in one line with what to do about it.

with disk_errors.explaining("cannot write the scores"):
  files.write_text(path, text)
"""

from collections.abc import Iterator
import contextlib
import errno
import os

from gkd.errors import UserError

# What the system refuses and the user can mend, and how.
_SPACE = "free some space"
_PLACE = "give a place that may be read and written"
_REMEDIES = {
  errno.ENOSPC: _SPACE,
  errno.EDQUOT: _SPACE,
  errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
  errno.EMFILE: "raise the limit of open files (ulimit -n)",
  errno.ENFILE: "close other programs, which have too many files open",
  errno.EACCES: _PLACE,
  errno.EPERM: _PLACE,
  errno.EROFS: _PLACE,
  errno.EIO: "look after the disk, or give another one",
  errno.ESTALE: "mount the file server again, or give another place",
  errno.ENAMETOOLONG: "give a shorter name",
  errno.ENOTDIR: "give another place",
  errno.EISDIR: "give another name",
}
# Mistakes of code, whatever text they quote or error they came after.
_BUGS = (AssertionError, AttributeError, LookupError, NameError, TypeError)


@contextlib.contextmanager
def explaining(what: str) -> Iterator[None]:
  """Turns the system's refusal of a file in the block into one line.

  Args:
    what: was to be done and how it goes on, in front of reason and remedy.

  Raises:
    UserError: the disk is full, may not be written to, ….
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    why = reason(error)
    if why is None:
      raise
    raise UserError(f"{what}: {why}") from error


def reason(error: BaseException) -> str | None:
  """Why the system refused a file, and what to do; None for another trouble.

  Libraries pass the errors of the system on as a cause, in a group, or as the
  text of an error of their own.
  """
  if isinstance(error, BaseExceptionGroup):
    return next(filter(None, map(reason, error.exceptions)), None)
  if isinstance(error, _BUGS) or "Traceback (most" in str(error):
    return None
  if isinstance(error, OSError) and error.errno in _REMEDIES:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno)}; {_REMEDIES[error.errno]}"
  for number, remedy in _REMEDIES.items():
    if os.strerror(number) in str(error):
      return f"{os.strerror(number)}; {remedy}"
  cause = error.__cause__
  if not error.__suppress_context__:
    cause = cause or error.__context__
  return reason(cause) if cause is not None else None
