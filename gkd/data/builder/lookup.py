"""Finds the cache of a task among those of a folder, without TensorFlow.

Caches lie in `<cache_dir>/<task>/<split>-<hash>`.

Usage:
  path = find("caches", "gsm8k", "train", lengths, vocabulary)
"""

from collections.abc import Mapping
import logging
import os
from pathlib import Path

from gkd.data import cache
from gkd.data.builder import staleness
from gkd.errors import UserError
from gkd.text import vocabulary as vocabularies

log = logging.getLogger("gkd")


def find(
  cache_dir: str | os.PathLike,
  task: str,
  split: str,
  lengths: Mapping[str, int],
  vocabulary: vocabularies.Vocabulary,
  overlong: str = "truncate",
  data_dir: str | os.PathLike | None = None,
) -> str | None:
  """Path of an existing cache that fits, or None; imports no TensorFlow.

  A cache does not fit if the code of its task, its preprocessing or the raw
  files in `data_dir` have changed since; see `freshness`. A half-written one is
  passed over with a warning. Of several the newest is taken.

  The task is not asked, for that would import TensorFlow: arguments of a task
  that come from elsewhere than from code, such as an environment variable, are
  compared by `find_or_build(…, check=True)` alone.
  """
  wanted = {
    "format": cache.FORMAT,
    "task": task,
    "split": split,
    "lengths": dict(lengths),
    "overlong": overlong,
  }
  for folder in _newest_first(Path(cache_dir) / task, split):
    try:
      info = cache.TokenCache(folder).info
    except UserError as error:
      log.warning("%s", error)
      continue
    if (
      all(info.get(name) == value for name, value in wanted.items())
      and cache.same_vocabulary(info, vocabulary)
      and staleness.is_fresh(folder, info, data_dir)
    ):
      return str(folder)
  return None


def folder_name(split: str) -> str:
  """A split name as a folder may be called."""
  return "".join(c if c.isalnum() or c in "_.[]:%" else "_" for c in split)


def _newest_first(parent: Path, split: str) -> list[Path]:
  """Folders of caches of a split."""
  # Plain comparison, not glob: TFDS split names hold brackets ("train[:10%]").
  prefix = folder_name(split)
  found = [
    ((folder / cache.INFO_FILE).stat().st_mtime_ns, folder)
    if (folder / cache.INFO_FILE).is_file()
    else (0, folder)
    for folder in (parent.iterdir() if parent.is_dir() else ())
    if folder.name.rpartition("-")[0] == prefix
  ]
  return [folder for _, folder in sorted(found, reverse=True)]
