"""Token cache: what training and evaluation read instead of a seqio task.

A cache is a folder, written whole or not at all (`info.json` comes last, then
the folder is renamed into place) and never changed afterwards:

  info.json                 what this is, sizes and sha256 of the files; the
                            fields are those of `writer.write_rows`
  rows-00000.array_record…  one msgpack record a row: tokens and texts
  prompts.npy               [rows] uint64 content hash of each prompt, to find
                            prompts that two caches share
  spiece.model              the vocabulary's file, if it has one

Neither TensorFlow nor seqio is needed here: references were postprocessed when
the cache was made, and metric functions are named by their place in `gkd.text`.

Usage:
  cache = TokenCache(path)
  rows = cache.read([3, 1, 2])
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import hashlib
import importlib
import importlib.util
import json
import logging
import os
from pathlib import Path
import sys
from typing import Any
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordReader
import msgpack
import numpy as np

from gkd.text import vocabulary as vocabularies
from gkd.types import UserError

log = logging.getLogger("gkd")

FORMAT = 1
INFO_FILE = "info.json"
PROMPTS_FILE = "prompts.npy"
# No read-ahead: rows are read at random.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class Row(NamedTuple):
  """One example: tokens with their EOS, and the texts behind them."""

  inputs: np.ndarray  # [≤ I] int32
  targets: np.ndarray  # [≤ T] int32; empty where there is only a prompt
  prompt: str
  reference: Any  # postprocessed target: str, number, list … as JSON has it


class TokenCache:
  """Reads one cache folder.

  Attributes:
    path: the folder.
    info: content of info.json.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = Path(path)
    self.info = _read_info(self.path)
    _check_sizes(self.path, self.info)
    counts = [shard["rows"] for shard in self.info["shards"]]
    self._starts = np.cumsum([0, *counts])
    self._readers: dict[int, ArrayRecordReader] = {}

  def __len__(self) -> int:
    return self.info["rows"]

  @functools.cached_property
  def vocabulary(self) -> vocabularies.Vocabulary:
    return vocabularies.from_spec(self.info["vocabulary"], self.path)

  @functools.cached_property
  def postprocess(self) -> Callable[..., Any]:
    """The task's `postprocess_fn(text, example=None, is_target=False)`."""
    name = self.info["postprocess"]
    return _resolve(name, self.path) if name else _keep_text

  @functools.cached_property
  def metric_fns(self) -> list[Callable[..., dict[str, float]]]:
    """The task's `metric_fn(targets, predictions)`s."""
    return [_resolve(name, self.path) for name in self.info["metrics"]]

  @functools.cached_property
  def prompt_hashes(self) -> np.ndarray:
    """[rows] uint64 content hash of each prompt text."""
    return np.load(self.path / PROMPTS_FILE)

  def read(self, indices: Sequence[int]) -> list[Row]:
    """Rows at these indices, in this order; an index may repeat."""
    indices = np.asarray(indices, np.int64)
    if not indices.size:
      return []
    if indices.min() < 0 or indices.max() >= len(self):
      raise IndexError(f"rows {indices} of {self.path} with {len(self)} rows")
    shards = np.searchsorted(self._starts, indices, side="right") - 1
    records: list[bytes] = [b""] * len(indices)
    for shard in np.unique(shards):
      places = np.flatnonzero(shards == shard)
      local = (indices[places] - self._starts[shard]).tolist()
      # All rows of a batch in one call: 10-50 times faster than one by one.
      for place, record in zip(
        places, self._reader(int(shard)).read(local), strict=True
      ):
        records[place] = record
    return [_decode(record) for record in records]

  def verify(self) -> None:
    """Reads every file and compares its sha256; raises a `UserError`."""
    for name, expected in self.info["files"].items():
      if file_hash(self.path / name) != expected["sha256"]:
        raise UserError(
          f"damaged cache: {self.path / name} differs from what was written;"
          " delete the folder and make it again with `gkd cache`"
        )

  def _reader(self, shard: int) -> ArrayRecordReader:
    if shard not in self._readers:
      name = self.info["shards"][shard]["file"]
      self._readers[shard] = ArrayRecordReader(
        str(self.path / name), READER_OPTIONS
      )
    return self._readers[shard]


def find(
  cache_dir: str | os.PathLike,
  task: str,
  split: str,
  lengths: Mapping[str, int],
  vocabulary: vocabularies.Vocabulary,
  overlong: str = "truncate",
) -> str | None:
  """Path of an existing cache that fits, or None; imports no TensorFlow.

  A cache whose task, preprocessing or metric code has changed since does not
  fit: the sources it was made with are hashed in it. A half-written one is
  passed over with a warning.
  """
  wanted = {
    "format": FORMAT,
    "task": task,
    "split": split,
    "lengths": dict(lengths),
    "overlong": overlong,
  }
  # Plain comparison, not glob: TFDS split names hold brackets ("train[:10%]").
  prefix = folder_name(split)
  parent = Path(cache_dir) / task
  folders = parent.iterdir() if parent.is_dir() else ()
  for folder in sorted(folders):
    if folder.name.rpartition("-")[0] != prefix:
      continue
    try:
      info = TokenCache(folder).info
    except UserError as error:
      log.warning("%s", error)
      continue
    if (
      all(info.get(name) == value for name, value in wanted.items())
      and same_vocabulary(info, vocabulary)
      and _sources_unchanged(info)
    ):
      return str(folder)
  return None


def same_vocabulary(
  info: Mapping[str, Any], vocabulary: vocabularies.Vocabulary
) -> bool:
  """Whether a cache's tokens are this vocabulary's; file names do not count."""
  spec = vocabulary.spec()
  return all(
    info["vocabulary"][name] == spec[name]
    for name in ("kind", "sha256", "size", "extra_ids")
  )


def folder_name(split: str) -> str:
  """A split name as a folder may be called."""
  return "".join(c if c.isalnum() or c in "_.[]:%" else "_" for c in split)


def is_complete(path: str | os.PathLike) -> bool:
  """Whether a finished cache of this format stands at `path`."""
  try:
    _check_sizes(Path(path), _read_info(Path(path)))
  except UserError:
    return False
  return True


def overlap(left: TokenCache, right: TokenCache) -> int:
  """Number of distinct prompts that two caches share."""
  return len(np.intersect1d(left.prompt_hashes, right.prompt_hashes))


def source_hash(module: str) -> str | None:
  """sha256 of a module's source file; found without running the module."""
  loaded = sys.modules.get(module)
  file = getattr(loaded, "__file__", None)
  if file is None:
    try:
      spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
      return None
    file = spec.origin if spec else None
  return file_hash(Path(file)) if file and Path(file).is_file() else None


def file_hash(path: Path) -> str:
  """sha256 of a file's content."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def _read_info(path: Path) -> dict[str, Any]:
  try:
    info = json.loads((path / INFO_FILE).read_text("utf-8"))
  except FileNotFoundError as error:
    if not path.is_dir():
      raise UserError(
        f"no cache at {path}; make it with `gkd cache`"
      ) from error
    raise _incomplete(path, f"it has no {INFO_FILE}") from error
  except (OSError, ValueError) as error:
    raise _incomplete(path, f"{INFO_FILE} cannot be read") from error
  if info.get("format") != FORMAT:
    raise UserError(
      f"cache {path} has format {info.get('format')}, expected {FORMAT}; delete"
      " it and make it again with `gkd cache`"
    )
  return info


def _check_sizes(path: Path, info: Mapping[str, Any]) -> None:
  for name, expected in info["files"].items():
    file = path / name
    size = file.stat().st_size if file.is_file() else None
    if size != expected["bytes"]:
      found = "is missing" if size is None else f"has {size} bytes"
      raise _incomplete(path, f"{name} {found}, not {expected['bytes']}")
  rows = sum(shard["rows"] for shard in info["shards"])
  if rows != info["rows"]:
    raise _incomplete(path, f"its shards hold {rows} rows, not {info['rows']}")


def _incomplete(path: Path, why: str) -> UserError:
  return UserError(
    f"incomplete cache {path}: {why}; delete the folder and make it again with"
    " `gkd cache`"
  )


def _sources_unchanged(info: Mapping[str, Any]) -> bool:
  return all(
    source_hash(module) == digest
    for module, digest in info.get("sources", {}).items()
  )


def _decode(record: bytes) -> Row:
  fields = msgpack.unpackb(record)
  return Row(
    inputs=np.frombuffer(fields["inputs"], "<i4"),
    targets=np.frombuffer(fields["targets"], "<i4"),
    prompt=fields["prompt"],
    reference=json.loads(fields["reference"]),
  )


def _keep_text(text: str, example: Any = None, is_target: bool = False) -> str:
  """What seqio does without a postprocess_fn."""
  del example, is_target
  return text


def _resolve(name: str, path: Path) -> Callable[..., Any]:
  """The function called "package.module:function"."""
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise UserError(
      f"cache {path} needs the function {name!r}, which cannot be imported"
      f" ({error}); install its package or make the cache again"
    ) from error
