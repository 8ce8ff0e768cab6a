"""Files that are there whole or not at all, JSON, and where results may go.

files.write_text(folder / "config.gin", text)
about = files.read_json(folder / "metadata.json", {"step": int})
"""

from collections.abc import Iterable
from collections.abc import Mapping
import errno
import json
import math
import os
from pathlib import Path
import re
import reprlib
import stat
import threading
from typing import Any

from gkd.errors import UserError

# Of an index, a description or a list of hashes: ten times the largest known.
MAX_JSON_BYTES = 16 << 20
_MARKED_BYTES = 4096
# Half a character as JSON may have it; alone it is no text.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
Types = Mapping[Any, Any]  # see `check_types`
_JSON_TYPES = {
  bool: "true or false",
  dict: "an object",
  float: "a number",
  int: "a whole number",
  list: "a list",
  str: "text",
  type(None): "null",
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
    partial.unlink(missing_ok=True)
    with partial.open("xb") as file:  # never through a link
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


def check_regular(
  path: str | os.PathLike, max_bytes: int | None = None
) -> None:
  """Raises an OSError for a pipe or a device, which may block or never end.

  And for a file that is larger, if `max_bytes` is given.
  """
  about = os.stat(path)
  reason = ""
  if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):
    reason = "it is no regular file"
  elif max_bytes is not None and about.st_size > max_bytes:
    reason = f"larger than {max_bytes >> 20} MiB, as no such file is"
  if reason:
    raise OSError(errno.EINVAL, reason, str(path))


def read_bytes(path: str | os.PathLike, max_bytes: int) -> bytes:
  """The content of a file that `check_regular` accepts; no other is opened."""
  check_regular(path, max_bytes)
  return Path(path).read_bytes()


def read_json(
  path: str | os.PathLike,
  types: Types,
  remedy: str = "download it again",
  max_bytes: int = MAX_JSON_BYTES,
) -> dict[str, Any]:
  """The object in a JSON file.

  Args:
    path: of the file.
    types: of the fields that are used, see `check_types`.
    remedy: what to do with a damaged one.
    max_bytes: of the file.

  Raises:
    UserError: unreadable, no object, a text with half a character, or a field
      of another type.
  """
  try:
    text = read_bytes(path, max_bytes).decode("utf-8")
    content = json.loads(text)
    if _SURROGATE.search(text):
      json.dumps(content, ensure_ascii=False).encode("utf-8")
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
  types: Types,
  remedy: str,
  *,
  required: bool = False,
) -> None:
  """Raises a UserError where a field is not of its type.

  JSON's true and false are no numbers; numbers are finite and have 64 bits.

  Args:
    where: of the content, for the message.
    content: the object.
    types: {name: type, or several, [type of the parts of a list], {str: type of
      the values of an object} or {name: type}, the fields that it must have}.
    remedy: what to do with a damaged one.
    required: whether a field may be neither absent nor null.
  """
  for name, expected in types.items():
    value = content.get(name)
    if value is not None or required:
      _check_type(where, name, value, expected, remedy)


def _check_type(where, name: str, value: Any, expected: Any, remedy) -> None:
  kinds: Any = expected if isinstance(expected, tuple) else (expected,)
  if isinstance(expected, list | dict):
    kinds = (type(expected),)
  is_huge = isinstance(value, int) and value.bit_length() > 63
  is_huge |= isinstance(value, float) and not math.isfinite(value)
  if type(value) not in kinds or is_huge:
    known = " or ".join(_JSON_TYPES[one] for one in kinds)
    raise UserError(
      f"{where} has {name} {reprlib.repr(value)}; expected {known}; {remedy}"
    )
  parts: dict[Any, Any] = {}
  if isinstance(expected, list):
    parts = {i: (part, expected[0]) for i, part in enumerate(value)}
  elif isinstance(expected, dict) and str in expected:
    parts = {key: (part, expected[str]) for key, part in value.items()}
  elif isinstance(expected, dict):
    parts = {key: (value.get(key), one) for key, one in expected.items()}
  for key, (part, one) in parts.items():
    _check_type(where, f"{name}.{key}", part, one, remedy)


def is_plain_name(name: Any) -> bool:
  """Whether it names a file of the same folder: no path, and not `..`."""
  return (
    isinstance(name, str)
    and name not in ("", "..")
    and "\0" not in name
    and Path(name).name == name
  )


def local_path(path: str | os.PathLike) -> Path:
  """A path that a user gave, with "~" expanded.

  Raises:
    UserError: it is a URL, of which `Path` would make a folder named "gs:".
  """
  text = os.fspath(path)
  if match := re.match(r"\w[\w+.-]*://+", text):
    raise UserError(
      f"{text} is no path of a file system; mount the bucket (gs:// with"
      " gcsfuse, see docs/launch.md) or copy what is there, and give the path"
      f" on this machine, such as /mnt/{text[match.end() :]}"
    )
  return Path(text).expanduser()


def check_folder(path: str, name: str) -> None:
  """Refuses a folder that cannot be made or written to; nothing is made.

  Args:
    path: the folder; "~" is expanded.
    name: of the macro or flag, for the message.
  """
  folder = local_path(path).absolute()
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


def check_file(path: str, name: str, mark: bytes = b"") -> None:
  """Refuses a file that cannot be written into a folder that exists.

  Args:
    path: the file; "~" is expanded.
    name: of the flag, for the message.
    mark: is in the beginning of what the command writes: another file is not
      replaced, and without a mark none is.
  """
  file = local_path(path).absolute()
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
  if os.path.lexists(file) and not _is_own(file, mark):
    raise UserError(
      f"{name} {path!r} is there and not what this command can replace; give"
      " another name, or remove it"
    )


def _is_own(file: Path, mark: bytes) -> bool:
  """Whether an existing file is empty, or has the mark of its command."""
  if not file.is_file() or file.is_symlink():
    return False
  with file.open("rb") as content:
    start = content.read(_MARKED_BYTES)
  return not start or (mark and mark in start)


def check_replaced(
  folder: Path, names: Iterable[str], name: str, proof: str | None
) -> None:
  """Refuses a folder whose files would be replaced and may be another's.

  Args:
    folder: of the results.
    names: of the files and folders that a command replaces or removes.
    name: of the macro or flag, for the message.
    proof: what is missing that would say that the command made them; None where
      it is there.
  """
  held = [n for n in names if has_content(folder / n)]
  if held and proof:
    raise UserError(
      f"{name} {folder} holds {held[0]}, which would be replaced, and {proof};"
      f" give another {name}"
    )


def has_content(path: Path) -> bool:
  """Whether there is anything but an empty file or an empty folder."""
  if path.is_dir():
    return any(path.iterdir())
  return os.path.lexists(path) and not (
    path.is_file() and path.stat().st_size == 0
  )
