"""Files of the data directory, and a note of those that were opened.

A cache records which raw files it was made of. Tasks find theirs with `find`;
who makes the cache listens.

Usage:
  with noting() as opened:
    path = find(data_dir, "translation/train.jsonl.gz")
  opened  # {"translation/train.jsonl.gz": path}
"""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path

from gkd.errors import UserError

_listening: list[dict[str, Path]] = []


def find(data_dir: str | os.PathLike | None, relative: str) -> Path:
  """Path of an existing file of the data directory."""
  if not data_dir:
    raise UserError(
      f"no data directory given, expected one that holds {relative}: set "
      "--data_dir or GKD_DATA_DIR"
    )
  path = Path(data_dir) / relative
  if not path.is_file():
    raise UserError(
      f"data file {relative} not found in data_dir {str(data_dir)!r}: expected "
      f"{path}; set --data_dir or GKD_DATA_DIR to the folder that holds it"
    )
  for opened in _listening:
    opened[relative] = path
  return path


@contextlib.contextmanager
def noting() -> Iterator[dict[str, Path]]:
  """Collects {relative: path} of the files found while the block runs.

  A list of the module and not a context variable: TensorFlow calls generators
  from threads of its own.
  """
  opened: dict[str, Path] = {}
  _listening.append(opened)
  try:
    yield opened
  finally:
    _listening.remove(opened)
