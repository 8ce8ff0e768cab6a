"""Files that are there whole or not at all, and what a full disk looks like.

files.write_text(folder / "config.gin", text)
about = files.read_json(folder / "metadata.json", {"step": int})
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import errno
import json
import os
from pathlib import Path
import threading
from typing import Any

from gkd.errors import UserError

# What the user can mend: free space, another quota, rights, another mount.
_MENDABLE = {
  errno.EACCES,
  errno.EDQUOT,
  errno.EFBIG,
  errno.ENAMETOOLONG,
  errno.ENOSPC,
  errno.EPERM,
  errno.EROFS,
}
_JSON_TYPES = {
  bool: "true or false",
  dict: "an object",
  float: "a number",
  int: "a whole number",
  list: "a list",
  str: "text",
}


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a file as `write_bytes` does, in UTF-8."""
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
  """Writes a file through a temporary name; on the disk when this returns.

  The temporary name is the thread's own, `.<name>.<process>-<thread>.partial`:
  of several that write at once the last one's file stays, whole.
  """
  path = Path(path)
  writer = f"{os.getpid()}-{threading.get_native_id()}"
  partial = path.with_name(f".{path.name}.{writer}.partial")
  try:
    with partial.open("wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
  """Writes an object, its names sorted, as `write_text` does."""
  text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
  write_text(path, text + "\n")


def read_json(
  path: str | os.PathLike,
  types: Mapping[str, type | tuple[type, ...]],
  remedy: str = "download it again",
) -> dict[str, Any]:
  """The object in a JSON file.

  Args:
    path: of the file.
    types: of the fields that are used, see `check_types`.
    remedy: what to do with a damaged one.

  Raises:
    UserError: unreadable, no object, or a field of another type.
  """
  try:
    content = json.loads(Path(path).read_text("utf-8"))
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); {remedy}"
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f"{path} is not JSON ({error}); {remedy}") from error
  if not isinstance(content, dict):
    raise UserError(f"{path} is not a JSON object; {remedy}")
  check_types(path, content, types, remedy)
  return content


def check_types(
  where: str | os.PathLike,
  content: Mapping[str, Any],
  types: Mapping[str, type | tuple[type, ...]],
  remedy: str,
) -> None:
  """Raises a UserError where a field is neither absent, null nor of its type.

  JSON's true and false are no numbers.
  """
  for name, allowed in types.items():
    value = content.get(name)
    allowed = allowed if isinstance(allowed, tuple) else (allowed,)
    if value is not None and type(value) not in allowed:
      expected = " or ".join(_JSON_TYPES[one] for one in allowed)
      raise UserError(
        f"{where} has {name} {value!r:.60}; expected {expected}; {remedy}"
      )


def is_plain_name(name: Any) -> bool:
  """Whether it names a file of the same folder: no path, and not `..`."""
  return (
    isinstance(name, str)
    and name not in ("", "..")
    and "\0" not in name
    and Path(name).name == name
  )


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
    return next(filter(None, map(disk_trouble, error.exceptions)), None)
  if isinstance(error, OSError) and error.errno in _MENDABLE:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno)}"
  for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
    if os.strerror(number) in str(error):
      return os.strerror(number)
  return disk_trouble(error.__cause__) if error.__cause__ is not None else None


def check_folder(path: str, name: str) -> None:
  """Refuses a folder that cannot be made or written to; nothing is made.

  Args:
    path: the folder; "~" is expanded.
    name: of the macro or flag, for the message.
  """
  folder = Path(path).expanduser().absolute()
  nearest = folder
  # A link to nowhere is in the way, too.
  while not (nearest.exists() or nearest.is_symlink()):
    nearest = nearest.parent
  if not nearest.is_dir():
    raise UserError(f"{name} {path!r}: {nearest} is a file; give a folder")
  if not os.access(nearest, os.W_OK | os.X_OK):
    raise UserError(
      f"{name} {path!r}: {nearest} cannot be written to; give another folder"
    )


def check_file(path: str, name: str) -> None:
  """Refuses a file that cannot be written into a folder that exists."""
  file = Path(path).expanduser().absolute()
  if file.is_dir():
    raise UserError(f"{name} {path!r} is a folder; give the name of a file")
  if not file.parent.is_dir():
    raise UserError(
      f"{name} {path!r}: there is no folder {file.parent}; make it or give"
      " another file"
    )
  target = file if file.exists() else file.parent
  if not os.access(target, os.W_OK):
    raise UserError(
      f"{name} {path!r}: {target} cannot be written to; give another file"
    )
