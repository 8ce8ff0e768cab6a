"""Whether what a cache was made of is still what it was.

Two things are compared: the code of the task, and the raw files that the task
opened through `gkd.text.raw_files` or that its source names. Neither needs
TensorFlow or runs the task. What is not on this machine cannot have changed: a
cache that was brought here stands for it.
"""

from collections.abc import Mapping
import functools
import logging
import os
from pathlib import Path
from typing import Any

from gkd.data import hashes

log = logging.getLogger("gkd")

_said: set[str] = set()


def describe(opened: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
  """{name: bytes, mtime_ns and sha256} of raw files, for info.json."""
  found = {}
  for name, path in sorted(opened.items()):
    stat = path.stat()
    found[name] = {
      "bytes": stat.st_size,
      "mtime_ns": stat.st_mtime_ns,
      "sha256": hashes.file_hash(path),
    }
  return found


def is_fresh(
  path: Path, info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> bool:
  """Whether code and raw files of a cache are unchanged; says what is not.

  Args:
    path: of the cache, for messages.
    info: its info.json.
    data_dir: where the raw files are. Where one or a module is missing, now or
      at all, the cache stands for it, and that is said once.
  """
  for name in missing(info, data_dir):
    _say(f"cache {path} is used as it is: {name} is not here")
  change = changed(info, data_dir)
  if change is not None:
    _say(f"cache {path} is stale: {change} has changed since")
  return change is None


def missing(
  info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> list[str]:
  """What of a cache's modules and raw files is not on this machine."""
  return [
    f"the code of {module}"
    for module, digest in info.get("sources", {}).items()
    if digest and hashes.source_hash(module) is None
  ] + [
    f"its raw file {name}"
    for name in info.get("raw_files", {})
    if _place(name, data_dir) is None
  ]


def changed(
  info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> str | None:
  """What of a cache's code and raw files has changed since; None: nothing."""
  for module, digest in info.get("sources", {}).items():
    if hashes.source_hash(module) not in (digest, None):
      return f"the code of {module}"
  for name, noted in info.get("raw_files", {}).items():
    file = _place(name, data_dir)
    if file is not None and not _is_same(file, noted):
      return f"raw file {file}"
  return None


def _place(name: str, data_dir: str | os.PathLike | None) -> Path | None:
  """A raw file on this machine; outside of `data_dir` its name is its path."""
  if not data_dir and not Path(name).is_absolute():
    return None
  file = Path(data_dir or "", name)
  return file if file.is_file() else None


def _is_same(file: Path, noted: Mapping[str, Any]) -> bool:
  stat = file.stat()
  if (stat.st_size, stat.st_mtime_ns) == (noted["bytes"], noted["mtime_ns"]):
    return True  # reading gigabytes at each start would be a waste
  return (
    stat.st_size == noted["bytes"]
    and _hash(file, stat.st_size, stat.st_mtime_ns) == noted["sha256"]
  )


@functools.lru_cache(maxsize=1024)
def _hash(file: Path, size: int, mtime_ns: int) -> str:
  """That of one state of a file: a command looks at it for each cache."""
  del size, mtime_ns
  return hashes.file_hash(file)


def _say(text: str) -> None:
  """Once a process: a command looks for the same cache several times."""
  if text not in _said:
    _said.add(text)
    log.info("%s", text)
