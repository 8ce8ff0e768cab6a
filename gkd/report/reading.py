"""Files that runs leave behind: whole, torn by a kill, or missing.

A line that a kill has torn is left out and counted, since the rest is good. A
file that is written whole or not at all and cannot be read is an error.
"""

from collections.abc import Mapping
import json
import os
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError


class Lines(NamedTuple):
  """A JSONL file: its objects, and what could not be read."""

  objects: list[dict[str, Any]]
  torn: bool  # the last line, without an end
  damaged: int  # other lines


def text(path: str) -> str:
  """What is in a file; "" where there is none.

  Raises:
    UserError: it is there and cannot be opened.
  """
  try:
    with open(path, encoding="utf-8", errors="replace") as file:
      return file.read()
  except (FileNotFoundError, NotADirectoryError):
    return ""
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); make it readable or leave its"
      " folder out"
    ) from error


def json_lines(path: str) -> Lines:
  """The objects of a JSONL file; none where there is no file."""
  whole, _, rest = text(path).rpartition("\n")
  objects, damaged = [], 0
  for line in whole.split("\n"):
    if line.strip():
      value = _parsed(line)
      damaged += value is None
      objects += [] if value is None else [value]
  last = _parsed(rest) if rest.strip() else None
  objects += [] if last is None else [last]
  return Lines(objects, bool(rest.strip()) and last is None, damaged)


def json_object(path: str) -> Mapping[str, Any] | None:
  """One object over a whole file; None where there is no file.

  Raises:
    UserError: it is not JSON or no object.
  """
  if not os.path.exists(path):
    return None
  content = text(path)
  try:
    value = json.loads(content)
  except ValueError as error:
    raise UserError(
      f"{path} cannot be read as JSON ({error}); make it again or move it away"
    ) from error
  if not isinstance(value, dict):
    raise UserError(
      f"{path} cannot be read: expected an object in braces, found"
      f" {type(value).__name__}; make it again or move it away"
    )
  return value


def names_in(directory: str) -> list[str]:
  """Sorted names; none where there is no directory."""
  return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


def _parsed(line: str) -> dict[str, Any] | None:
  try:
    value = json.loads(line)
  except ValueError:
    return None
  return value if isinstance(value, dict) else None
