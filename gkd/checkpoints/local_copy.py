"""Foreign checkpoints as a run reads them: converted once, then reused.

  path = localized("flan-t5-small", "~/.cache/gkd/data")

The copy is a saved model of ours, float32, in `<cache_dir>/models`. Its name
has a hash of the path, names, sizes and times of the foreign files, so that a
checkpoint that was changed is converted anew, and so is each where a later gkd
converts it otherwise. Old copies are never deleted.
"""

from collections.abc import Mapping
import hashlib
import json
import logging
import os
from pathlib import Path
import re
from typing import Any

from gkd import locks
from gkd.checkpoints import checksums
from gkd.checkpoints import conversion
from gkd.checkpoints import format_detection
from gkd.checkpoints import models
from gkd.types import UserError

log = logging.getLogger("gkd")

# Below the folder of the token caches.
FOLDER = "models"
# Raise it when the same files are converted to another copy than before.
_VERSION = 1
_WORDS = {"t5x": "a T5X checkpoint", "hf": "a Hugging Face folder"}


def localized(
  path: str | os.PathLike,
  cache_dir: str | os.PathLike,
  given: Mapping[str, Any] | None = None,
) -> Path:
  """A folder of ours with the model that a checkpoint of any format has.

  Args:
    path: what the user gave. A run or a saved model of ours is returned as it
      is.
    cache_dir: the copy goes into `models/` below it. Two processes do not
      convert at once: the second waits and reuses.
    given: fields of T5Config that the format does not say.

  Raises:
    UserError: none of the three formats, or it cannot be converted; then no
      copy is left.
  """
  folder = format_detection.existing_folder(path)
  found = format_detection.detect(folder)
  if found == "gkd":
    return folder
  given = {k: v for k, v in (given or {}).items() if v is not None}
  copy = _place(folder, cache_dir, given)
  if not _is_whole(copy):
    # Not the lock of the conversion itself, which is removed with it.
    lock = copy.with_name(f".{copy.name}.making")
    with locks.hold(lock, f"the conversion of {folder}", wait=True):
      if not _is_whole(copy):
        log.info("%s is %s: converting it to %s", path, _WORDS[found], copy)
        conversion.convert(folder, copy, to="gkd", given=given, dtype="float32")
        return copy
  log.info("%s is %s: using its copy %s", path, _WORDS[found], copy)
  return copy


def _place(
  folder: Path, cache_dir: str | os.PathLike, given: Mapping[str, Any]
) -> Path:
  """Where the copy of these very files is, or will be."""
  about = [_VERSION, str(folder), given, _files(folder)]
  text = json.dumps(about, default=list)
  key = hashlib.sha256(text.encode()).hexdigest()[:12]
  name = folder.name
  if re.fullmatch(r"checkpoint_\d+", name):  # the parent says of which model
    name = f"{folder.parent.name}_{name}"
  where = Path(cache_dir).expanduser().absolute() / FOLDER
  return where / f"{name}-{key}"


def _files(folder: Path) -> list[tuple[str, int, int]]:
  """Name, size and time of each file; hidden ones are of download programs."""
  found = []
  for parent, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      if name.startswith("."):
        continue
      file = Path(parent, name)
      try:
        about = file.stat()
      except OSError as error:
        raise UserError(
          f"cannot read {file} ({error.strerror}); download it again"
        ) from error
      relative = file.relative_to(folder).as_posix()
      found.append((relative, about.st_size, about.st_mtime_ns))
  return sorted(found)


def _is_whole(copy: Path) -> bool:
  """A conversion takes its name when all is written; the mark comes last."""
  return checksums.is_marked(copy) and (copy / models.METADATA_FILE).is_file()
