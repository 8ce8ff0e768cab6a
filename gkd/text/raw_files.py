"""Files of the data directory; a cache records those that its task has read."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path

from gkd.errors import UserError

# Of the module and not of a context: TensorFlow calls generators from threads.
_recorders: list[dict[str, Path]] = []


def find(data_dir: str | os.PathLike | None, relative: str) -> Path:
  """Path of an existing file of the data directory; it may be absolute."""
  if not data_dir and not Path(relative).is_absolute():
    raise UserError(
      f"no data directory given, expected one that holds {relative}: set "
      "--data_dir or GKD_DATA_DIR"
    )
  path = Path(data_dir or "", relative)
  if not path.is_file():
    raise UserError(
      f"data file {relative} not found in data_dir {str(data_dir)!r}: expected "
      f"{path}; set --data_dir or GKD_DATA_DIR to the folder that holds it"
    )
  for opened in _recorders:
    opened[relative] = path
  return path


@contextlib.contextmanager
def recording() -> Iterator[dict[str, Path]]:
  """Collects {relative: path} of the files found while the block runs."""
  opened: dict[str, Path] = {}
  _recorders.append(opened)
  try:
    yield opened
  finally:
    _recorders.remove(opened)
