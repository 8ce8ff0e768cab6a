"""Whether what a cache was made of is still what it was.

Compared are the source files of the task and the raw files that it read.
Neither needs TensorFlow or runs the task. What is not on this machine cannot
have changed: a cache that was copied here is used as it is.
"""

from collections.abc import Mapping
import functools
import logging
import os
from pathlib import Path
from typing import Any

from gkd.data import hashes
from gkd.data.builder import cache_key

log = logging.getLogger("gkd")


def describe(raw_files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
  """{name: bytes, mtime_ns and sha256} of raw files, for info.json."""
  found = {}
  for name, path in sorted(raw_files.items()):
    stat = path.stat()
    state = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    found[name] = state | {"sha256": hashes.file_hash(path)}
  return found


def is_fresh(
  path: Path, info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> bool:
  """Whether code and raw files of a cache are unchanged; logs what is not.

  Args:
    path: of the cache, for messages.
    info: its info.json.
    data_dir: where the raw files are.
  """
  for name in missing(info, data_dir):
    _log_once(f"cache {path} is used as it is: {name} is not here")
  change = changed(info, data_dir)
  if change is not None:
    _log_once(f"cache {path} is stale: {change} has changed since")
  return change is None


def missing(
  info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> list[str]:
  """Modules and raw files of a cache that are not on this machine."""
  modules = [m for m in info.get("sources", {}) if not cache_key.source_file(m)]
  raw = [n for n in info.get("raw_files", {}) if not _place(n, data_dir)]
  return [f"the code of {module}" for module in modules] + [
    f"its raw file {name}" for name in raw
  ]


def changed(
  info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> str | None:
  """The code or raw file of a cache that has changed; None without any."""
  if "sources" in info and info.get("key_format") != cache_key.FORMAT:
    return "the way in which gkd makes rows"
  for module, digest in info.get("sources", {}).items():
    if cache_key.source_hash(module) not in (digest, None):
      return f"the code of {module}"
  for name, noted in info.get("raw_files", {}).items():
    file = _place(name, data_dir)
    if file and not _is_same(file, noted):
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
  if stat.st_size != noted["bytes"]:
    return False
  # Reading gigabytes at each start would be a waste.
  return stat.st_mtime_ns == noted["mtime_ns"] or (
    _hash(file, stat.st_mtime_ns) == noted["sha256"]
  )


@functools.lru_cache(maxsize=1024)
def _hash(file: Path, mtime_ns: int) -> str:
  """The hash of one state of a file: several caches share raw files."""
  del mtime_ns
  return hashes.file_hash(file)


@functools.cache
def _log_once(text: str) -> None:
  """Once in a process: a command looks for the same cache several times."""
  log.info("%s", text)
