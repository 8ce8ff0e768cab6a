"""Files of a run: complete, torn by a kill, or missing.

A line of a JSONL file that a kill has torn is left out and counted, since the
other lines are valid. A damaged file of another kind is an error, since those
are written atomically.
"""

from collections.abc import Mapping
import json
import os
import re
from typing import Any

from gkd import files
from gkd.errors import UserError


def json_lines(path: str) -> tuple[list[dict[str, Any]], list[str]]:
  """Objects of a JSONL file, and notes on what of it cannot be read."""
  name = os.path.basename(path)
  whole, _, rest = text(path).rpartition("\n")
  objects = [_object(line) for line in whole.split("\n") if line.strip()]
  num_damaged = objects.count(None)
  notes = []
  if rest.strip():
    objects.append(_object(rest))
    if objects[-1] is None:
      notes.append(f"the last line of {name} is torn and was left out")
  if num_damaged:
    notes.append(
      f"{num_damaged} lines of {name} cannot be read and were left out"
    )
  return [one for one in objects if one is not None], notes


def _object(line: str) -> dict[str, Any] | None:
  try:
    value = json.loads(line)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def json_object(
  path: str, types: Mapping[str, type] | None = None
) -> Mapping[str, Any]:
  """One object over a whole file; empty where there is no file.

  Raises:
    UserError: it is damaged, or a field is not of its type.
  """
  if not os.path.exists(path):
    return {}
  return files.read_json(path, types or {}, "make it again or move it away")


def text(path: str) -> str:
  """What is in a file; "" where there is none.

  Raises:
    UserError: it cannot be opened.
  """
  try:
    files.check_regular(path)
    with open(path, encoding="utf-8", errors="replace") as file:
      return file.read()
  except (FileNotFoundError, NotADirectoryError):
    return ""
  except OSError as error:
    raise UserError(
      f"{path} cannot be read ({error.strerror}); make it readable or leave its"
      " folder out"
    ) from error


def last_of_series(directory: str) -> dict[str, list[dict[str, Any]]]:
  """{series: records of its last step} of files `<series>[-_]<step>.jsonl`."""
  last: dict[str, tuple[int, str]] = {}
  names = os.listdir(directory) if os.path.isdir(directory) else []
  for name in names:
    match = re.fullmatch(r"(.+)[-_](\d+)\.jsonl", name)
    if match:
      series, step = match.group(1), int(match.group(2))
      last[series] = max(last.get(series, (-1, "")), (step, name))
  return {
    series: json_lines(os.path.join(directory, name))[0]
    for series, (_, name) in sorted(last.items())
  }
