"""One process at a time in a folder.

The kernel holds the lock and drops it with the process, however that dies: a
lock file that a killed run leaves behind stops nobody. Over NFS it holds where
the server supports `flock` (Linux: NFSv4, or NFSv3 with lockd).

Not the library `filelock`: it names no holder, cannot be asked who holds a
lock, waits by polling, and where a file system has no `flock` falls back to a
marker file that a killed process leaves behind.

with locks.hold("runs/gkd/.lock", "MODEL_DIR runs/gkd"):
  …
"""

from collections.abc import Iterator
import contextlib
import fcntl
import logging
import os
from pathlib import Path
import socket
import time

from gkd import files
from gkd.errors import UserError

log = logging.getLogger("gkd")

# Who only asks for the holder has the lock for an instant.
_TRIES = 4
_PAUSE_SECONDS = 0.05


@contextlib.contextmanager
def hold(
  path: str | os.PathLike,
  what: str,
  *,
  wait: bool = False,
  remove: bool = False,
  inherited: bool = False,
) -> Iterator[None]:
  """Holds the lock of a file, made if missing, while the block runs.

  Args:
    path: the lock's file; its folder is made. It stays behind, harmless: who
      deletes it without holding it could delete the lock that another process
      has just taken.
    what: is protected, for messages.
    wait: wait for the other process, saying so, instead of refusing.
    remove: delete the file in the end, while it is still held.
    inherited: child processes started with `close_fds=False` hold it as well,
      until they end.

  Raises:
    UserError: another process holds it, the folder cannot be written, or its
      file system has no locks.
  """
  path = Path(path)
  with _locked(path, what, wait) as file:
    try:
      file.seek(0)
      file.truncate()
      file.write(f"process {os.getpid()} on {socket.gethostname()}")
      file.flush()
      os.set_inheritable(file.fileno(), inherited)
      yield
    finally:
      if remove:
        path.unlink(missing_ok=True)


def holder(path: str | os.PathLike) -> str | None:
  """Who holds the lock now, in words; None if nobody does. Changes nothing."""
  if not Path(path).is_file():
    return None
  with Path(path).open(encoding="utf-8") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
      return _owner(file)
  return None


def _locked(path: Path, what: str, wait: bool):
  """The open file; once more where its last holder has removed it."""
  while True:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      opened = os.fdopen(_open(path), "a+", encoding="utf-8")
    except OSError as error:
      raise UserError(
        f"cannot write to {path.parent} ({error.strerror}); give a folder that"
        " can be written"
      ) from error
    with contextlib.ExitStack() as stack:
      file = stack.enter_context(opened)
      _take(file, path, what, wait)
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
          stack.pop_all()
          return file


def _open(path: Path) -> int:
  """A regular file, made if missing; a link that somebody left is refused."""
  if path.exists():
    files.check_regular(path)
  flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
  return os.open(path, flags, 0o666)


def _take(file, path: Path, what: str, wait: bool) -> None:
  try:
    if not _taken(file):
      if not wait:
        raise UserError(
          f"{what} is in use by {_owner(file)}; wait until it is done, stop it,"
          " or choose another folder"
        )
      log.info("waiting for %s, which has %s", _owner(file), what)
      fcntl.flock(file, fcntl.LOCK_EX)
  except OSError as error:
    raise UserError(
      f"cannot lock {path} ({error.strerror}), which keeps a second process"
      " out; give a folder on a file system with locks (flock)"
    ) from error


def _taken(file) -> bool:
  """Takes the lock if it is free, or is within a moment; see `holder`."""
  for _ in range(_TRIES):
    with contextlib.suppress(BlockingIOError):
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    time.sleep(_PAUSE_SECONDS)
  return False


def _owner(file) -> str:
  file.seek(0)
  return file.read() or "another process"
