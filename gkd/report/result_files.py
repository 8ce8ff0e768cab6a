"""Files of a run: complete, torn by a kill, or missing.

A line of a JSONL file that a kill has torn is left out and counted, since the
other lines are valid. A damaged file of another kind is an error, since those
are written atomically.
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
  is_torn: bool  # the last line, without an end
  num_damaged: int  # other lines


def json_lines(path: str) -> Lines:
  """The objects of a JSONL file; none where there is no file."""
  whole, _, rest = text(path).rpartition("\n")
  parsed = [_parsed(line) for line in whole.split("\n") if line.strip()]
  objects = [value for value in parsed if value is not None]
  last = _parsed(rest) if rest.strip() else None
  if last is not None:
    objects.append(last)
  is_torn = bool(rest.strip()) and last is None
  return Lines(objects, is_torn, parsed.count(None))


def _parsed(line: str) -> dict[str, Any] | None:
  try:
    value = json.loads(line)
  except ValueError:
    return None
  return value if isinstance(value, dict) else None


def json_object(path: str) -> Mapping[str, Any] | None:
  """One object over a whole file; None where there is no file."""
  if not os.path.exists(path):
    return None
  try:
    value = json.loads(text(path))
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


def text(path: str) -> str:
  """What is in a file; "" where there is none."""
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


def names_in(directory: str) -> list[str]:
  """Sorted names; none where there is no directory."""
  return sorted(os.listdir(directory)) if os.path.isdir(directory) else []
