"""Hashes of a checkpoint's files: the mark that it is finished and unharmed."""

import hashlib
import json
import os
from pathlib import Path

from gkd.types import UserError

HASHES_FILE = "sha256.json"


def write_hashes(path: Path) -> None:
  """Marks a checkpoint as finished; the last thing written."""
  partial = path / f".{HASHES_FILE}"
  with partial.open("w", encoding="utf-8") as file:
    json.dump(_hashes(path), file, indent=2)
    file.flush()
    os.fsync(file.fileno())
  os.replace(partial, path / HASHES_FILE)


def verify(path: Path) -> None:
  """Compares every file with its hash; raises a `UserError`."""
  if not is_marked(path):
    raise UserError(
      f"no finished checkpoint at {path}; choose another step or folder"
    )
  try:
    expected = json.loads((path / HASHES_FILE).read_text("utf-8"))
  except ValueError:
    expected = {}
  found = _hashes(path)
  if found != expected:
    names = sorted(
      name
      for name in found.keys() | expected.keys()
      if found.get(name) != expected.get(name)
    )
    raise UserError(
      f"damaged checkpoint {path}: {names[0]} differs from what was written;"
      " delete this folder or restore its files"
    )


def is_marked(path: Path) -> bool:
  """Whether a checkpoint was finished; its files may be damaged since."""
  return (path / HASHES_FILE).is_file()


def _hashes(path: Path) -> dict[str, str]:
  """sha256 of every file below a folder, the marks left out."""
  digests = {}
  for file in sorted(path.rglob("*")):
    if file.is_file() and not file.name.endswith(HASHES_FILE):
      with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
      digests[str(file.relative_to(path))] = digest
  return digests
