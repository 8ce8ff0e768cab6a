"""sha256 of a checkpoint's files: the mark that it is finished and sound."""

import errno
import hashlib
import json
import os
from pathlib import Path
import stat

from gkd import files
from gkd.types import UserError

HASHES_FILE = "sha256.json"
# Folders that this process has verified, with the state of their files.
_sound: set[tuple] = set()


def write_hashes(path: Path) -> None:
  """Marks a checkpoint as finished; the last thing written."""
  hashes = _hashes(path, sync=True)
  files.write_text(path / HASHES_FILE, json.dumps(hashes, indent=2))


def verify(path: Path) -> None:
  """Compares every file with its hash; raises a `UserError`.

  A folder that this process has verified is read again only if one of its
  files was written since.
  """
  _check_marked(path)
  try:
    state = _state(path)
    if state in _sound:
      return
    hashes = _hashes(path)
  except OSError as error:  # a bad disk, or a run that has just removed it
    raise UserError(
      f"damaged checkpoint {path}: {error.filename or 'a file'} cannot be read"
      f" ({error.strerror}); delete this folder or restore its files"
    ) from error
  remedy = f"damaged checkpoint {path}: delete it or restore its files"
  expected = files.read_json(path / HASHES_FILE, {}, remedy)
  names = sorted(hashes.keys() | expected.keys())
  wrong = [n for n in names if hashes.get(n) != expected.get(n)]
  if wrong or not names:
    name = (wrong or [HASHES_FILE])[0]
    raise UserError(
      f"damaged checkpoint {path}: {name} differs from what was written;"
      " delete this folder or restore its files"
    )
  _sound.add(state)


def digest(path: Path) -> str:
  """sha256 of all hashes together: equal for equal files; reads no other file.

  Raises:
    UserError: no finished checkpoint is there.
  """
  _check_marked(path)
  return hashlib.sha256((path / HASHES_FILE).read_bytes()).hexdigest()


def is_marked(path: Path) -> bool:
  """Whether a checkpoint was finished; its files may be damaged since.

  One whose folder cannot be read counts: `verify` says what is wrong.
  """
  try:
    return stat.S_ISREG((path / HASHES_FILE).stat().st_mode)
  except OSError as error:
    return error.errno not in (errno.ENOENT, errno.ENOTDIR)


def _check_marked(path: Path) -> None:
  if not is_marked(path):
    raise UserError(
      f"no finished checkpoint at {path}; choose another step or folder"
    )


def _state(path: Path) -> tuple:
  """Names, sizes and times of all files: differs once a file is written."""
  stats = [(str(file), file.stat()) for file in sorted(path.rglob("*"))]
  return tuple(
    (name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
    for name, s in stats
  )


def _hashes(path: Path, *, sync: bool = False) -> dict[str, str]:
  """sha256 of every file below a folder, the marks left out.

  With `sync` it returns only when the files are on the disk: a checkpoint that
  is marked may be the only one.
  """
  digests = {}
  for file in sorted(path.rglob("*")):
    if file.is_file() and HASHES_FILE not in file.name:
      with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        if sync:
          os.fsync(content.fileno())
      digests[str(file.relative_to(path))] = digest
  return digests
