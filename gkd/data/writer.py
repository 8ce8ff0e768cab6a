"""Writes token caches; a kill loses at most the shard being written.

Shards are collected in `<parent>/.<name>.partial/`; the last step moves the
finished cache into place, so that it is there whole or not at all. A process
that starts again with the same key goes on behind the finished shards; with
another key it starts over, which is logged.

with CacheWriter(path, key) as writer:
  for index in range(8):
    if index not in writer.finished:
      writer.add(index, rows_of(index))
  writer.finish(info)
"""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import itertools
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from gkd import files
from gkd import locks
from gkd.data import cache
from gkd.data import cache_info
from gkd.data import hashes
from gkd.data import key_differences
from gkd.data import shards
from gkd.errors import UserError

log = logging.getLogger("gkd")

_KEY_FILE = "key.json"
_REPLACED = "replaced"  # the cache that stood there before


def write_rows(
  path: str | os.PathLike, rows: Iterable[cache.Row], info: Mapping[str, Any]
) -> str:
  """Writes the rows that a program has as a cache; returns its path.

  Args:
    path: the folder to make. A half-written one is replaced, a complete one is
      an error.
    rows: read once; memory does not grow with their number.
    info: `task`, `split`, `lengths` {inputs, targets} and `vocabulary` (the
      object) are required; `postprocess` (None: the text itself), `metrics`,
      both as "module:function", and whatever else is worth keeping, such as
      provenance. Added here: `format`, `rows`, `has_targets` (every row has
      some), `longest` {inputs, targets}, `shards`, `files`, `hash`.
  """
  rows = iter(rows)
  with CacheWriter(path) as writer:
    if writer.exists:
      raise UserError(
        f"cache {path} exists already; delete it first or choose another folder"
      )
    for index, first in enumerate(rows):
      rest = itertools.islice(rows, shards.rows_in(index) - 1)
      writer.add(index, itertools.chain([first], rest))
    return writer.finish(info)


class CacheWriter:
  """Writes one cache folder; a context manager that holds its lock.

  Attributes:
    path: the folder to make.
    folder: of the shards until then. Other processes may write shards there
      with `shards.write(writer.folder, index, rows)` while the lock is held.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    key: Any = None,
    *,
    wait: bool = False,
    spare: bool = False,
  ):
    """Touches no file yet.

    Args:
      path: the folder to make.
      key: JSON of all that the rows depend on. What a killed process left is
        continued if its key is equal. None: it is never continued.
      wait: for another process that makes the same cache, instead of refusing.
      spare: what was left with another key, for hours of work may be in it: an
        error instead of throwing it away.
    """
    self.path = Path(path)
    self.folder = self.path.with_name(f".{self.path.name}.partial")
    self._key = json.loads(json.dumps(key))  # as it comes back from disk
    self._wait = wait
    self._spare = spare
    self._lock = contextlib.ExitStack()

  @property
  def exists(self) -> bool:
    """Whether a finished cache stands at the path: then add nothing to it."""
    try:
      cache.TokenCache(self.path)
    except UserError:
      return False
    return True

  @property
  def finished(self) -> dict[int, int]:
    """{shard: rows} of the shards that are whole on disk, read from there."""
    sidecars = shards.sidecars(self.folder)
    return {index: numbers["rows"] for index, numbers in sidecars.items()}

  @property
  def counts(self) -> dict[str, int]:
    """Sums of the `counts` of the finished shards."""
    total = collections.Counter()
    for numbers in shards.sidecars(self.folder).values():
      total.update(numbers["counts"])
    return dict(total)

  @property
  def notes(self) -> dict[str, str]:
    """The first of the `notes` of each name."""
    first = {}
    for numbers in shards.sidecars(self.folder).values():
      first = numbers.get("notes", {}) | first
    return first

  def __enter__(self) -> "CacheWriter":
    """Takes the lock and drops what cannot be continued."""
    lock = self.path.with_name(f".{self.path.name}.lock")
    self._lock.enter_context(
      locks.hold(lock, f"cache {self.path}", wait=self._wait)
    )
    try:
      self._check_replaceable()
      self._open()
    except BaseException as error:
      self._lock.close()
      if not isinstance(error, OSError):
        raise
      raise UserError(
        f"cannot write a cache to {self.path} ({error.strerror}); give a folder"
        " that can be written"
      ) from error
    return self

  def __exit__(self, *exception: Any) -> None:
    """Keeps finished shards that can be continued, and nothing else."""
    with self._lock:
      if self._key is None or not self.finished:
        self.discard()

  def add(
    self,
    index: int,
    rows: Iterable[cache.Row],
    counts: Mapping[str, int] | None = None,
  ) -> None:
    """Writes shard `index`, whole or not at all; see `shards.write`."""
    shards.write(self.folder, index, rows, counts)

  def discard(self) -> None:
    """Throws the shards away: a cache of them is not wanted any more."""
    shutil.rmtree(self.folder, ignore_errors=True)

  def finish(self, info: Mapping[str, Any]) -> str:
    """Moves the shards into place as a cache; returns its path.

    `info` is that of `write_rows`.
    """
    sidecars = shards.sidecars(self.folder)
    assert list(sidecars) == list(range(len(sidecars))), list(sidecars)
    content = {"postprocess": None, "metrics": []}
    content |= {**info, **shards.totals(sidecars)}
    for name, longest in content["longest"].items():
      if longest > content["lengths"][name]:
        raise UserError(
          f"a row has {longest} {name} tokens and the cache holds"
          f" {content['lengths'][name]}; give longer lengths or shorten the row"
        )
    self._check_present(sidecars)
    folder = self.folder / shards.CACHE_FOLDER
    try:
      np.save(folder / cache.PROMPTS_FILE, shards.prompt_hashes(self.folder))
      content["vocabulary"] = info["vocabulary"].save(folder)
      content["format"] = cache_info.FORMAT
      content["files"] = _files(folder, sidecars)
      content.setdefault("hash", hashes.content_hash(content))
      files.write_text(
        folder / cache_info.INFO_FILE, json.dumps(content, indent=2)
      )
      if self.path.is_dir():  # goes as a whole, with the folder of shards
        os.rename(self.path, self.folder / _REPLACED)
      os.rename(folder, self.path)
    except OSError as error:
      raise UserError(
        f"cannot write the cache {self.path} ({error.strerror}); its"
        f" {len(sidecars)} finished shards stay: mend that and run the same"
        " command again"
      ) from error
    self.discard()
    return str(self.path)

  def _open(self) -> None:
    """The folder with the shards that can be continued, made if missing."""
    folder = self.folder / shards.CACHE_FOLDER
    # Without `cache/` a killed process had already moved it into place.
    if not folder.is_dir() or not self._continues():
      self.discard()
    folder.mkdir(parents=True, exist_ok=True)
    if damaged := ", ".join(map(str, shards.drop_torn(self.folder))):
      log.warning("%s: damaged shards %s are made again", self.path, damaged)
    if done := self.finished:
      log.info(
        "continuing cache %s: %d rows are done", self.path, sum(done.values())
      )
    files.write_text(self.folder / _KEY_FILE, json.dumps(self._key))

  def _continues(self) -> bool:
    """Whether what a killed process left belongs to this cache."""
    try:
      text = files.read_bytes(self.folder / _KEY_FILE, files.MAX_JSON_BYTES)
      old = json.loads(text)
    except (OSError, ValueError, RecursionError):
      return False  # killed before the first shard
    if self._key is not None and old == self._key:
      return True
    if done := sum(self.finished.values()):
      made_with = key_differences.describe(old, self._key)
      if self._spare:
        raise UserError(
          f"{self.folder} holds {done:,} finished rows made with {made_with};"
          " give the same settings again to go on, or delete that folder or"
          " choose another one to start anew"
        )
      log.warning(
        "the half-made cache %s is thrown away: it was made with %s",
        *(self.path, made_with),
      )
    return False

  def _check_replaceable(self) -> None:
    """Refuses to delete a folder that is not the rest of a cache."""
    names = set(os.listdir(self.path)) if self.path.is_dir() else set()
    own = {name for name in names if shards.is_name(name)}
    own |= names & {cache.PROMPTS_FILE}
    if own:  # `info.json` alone is a name that others use too
      own |= names & {cache_info.INFO_FILE, *_listed_files(self.path)}
    if others := sorted(names - own):
      raise UserError(
        f"{self.path} holds other files than a cache ({others[0]}, …); choose"
        " another folder, or delete it"
      )

  def _check_present(self, sidecars: shards.Sidecars) -> None:
    """A cache that stands at the path is replaced by a whole one alone."""
    for index, numbers in sidecars.items():
      file = self.folder / shards.CACHE_FOLDER / shards.name(index)
      if wrong := cache_info.wrong_size(file, numbers["bytes"]):
        raise UserError(
          f"cannot finish the cache {self.path}: its shard {file} {wrong}; run"
          " the same command again, which makes that shard anew"
        )


def _listed_files(path: Path) -> set[str]:
  """Names that the info.json of a cache lists; none where it is damaged."""
  try:
    info = files.read_json(path / cache_info.INFO_FILE, {"files": dict})
    return set(info.get("files") or {})
  except UserError:
    return set()


def _files(folder: Path, sidecars: shards.Sidecars) -> dict[str, Any]:
  """{file: bytes and sha256}; those of shards were taken when written."""
  known = {shards.name(i): n["sha256"] for i, n in sidecars.items()}
  return {
    file.name: {
      "bytes": file.stat().st_size,
      "sha256": known.get(file.name) or hashes.file_hash(file),
    }
    for file in sorted(folder.iterdir())
    if file.name != cache_info.INFO_FILE
  }
