"""Token cache: what training and evaluation read instead of a seqio task.

A cache is a folder, written whole or not at all (`info.json` comes last, then
the folder is renamed into place) and never changed afterwards:

  info.json                 what this is, sizes and sha256 of the files; the
                            fields are those of `writer.write_rows`
  rows-00000.array_record…  one msgpack record a row: tokens and texts
  prompts.npy               [rows] uint64 content hash of each prompt, to find
                            prompts that two caches share
  spiece.model              the vocabulary's file, if it has one

References were postprocessed when the cache was made, and metric functions are
named by their place in `gkd.text`: neither TensorFlow nor seqio is needed here.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import importlib
import json
import os
from pathlib import Path
import threading
from typing import Any
from typing import NamedTuple

from array_record.python.array_record_module import ArrayRecordReader
import msgpack
import numpy as np

from gkd import disk_errors
from gkd import files
from gkd.data import hashes
from gkd.data import task_functions
from gkd.errors import UserError
from gkd.errors import row_name
from gkd.text import vocabulary as vocabularies

FORMAT = 1
FEATURES = ("inputs", "targets")
INFO_FILE = "info.json"
PROMPTS_FILE = "prompts.npy"
_TOKEN = np.dtype("<i4")
# No read-ahead: rows are read at random, and a seek would throw it away.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_ROWS_AT_ONCE = 1024
_REMEDY = "delete the cache and make it again with `gkd cache`"
_FILE = {"bytes": int, "sha256": str}
# What `writer.write_rows` adds to info.json or asks for, and what it may have.
_REQUIRED = {
  "task": str,
  "split": str,
  "rows": int,
  "has_targets": bool,
  "lengths": dict.fromkeys(FEATURES, int),
  "longest": dict.fromkeys(FEATURES, int),
  "vocabulary": {"kind": str, "sha256": str, "size": int, "extra_ids": int},
  "metrics": [str],
  "shards": [{"file": str, "rows": int}],
  "files": {str: _FILE},
  "hash": str,
}
_OPTIONAL = {
  "postprocess": str,
  "sources": {str: str},
  "raw_files": {str: {**_FILE, "mtime_ns": int}},
  "written_by": dict,
  "token_lengths": {str: {str: int}},
  "lossy": {str: {"rows": int, "unknown_tokens": int, "example": str}},
  **dict.fromkeys(
    ("prompts_alone", "truncated_inputs", "truncated_targets"), int
  ),
}
# (file, size, mtime) of shards whose content this process has compared.
_compared: set[tuple[str, int, int]] = set()


class Row(NamedTuple):
  """An example: tokens with their EOS, and the texts behind them."""

  inputs: np.ndarray  # [≤ I] int32
  targets: np.ndarray  # [≤ T] int32; empty where there is only a prompt
  prompt: str
  reference: Any  # postprocessed target: str, number, list … as JSON has it
  score: float | None = None  # of targets that a beam search found


class Tokens(NamedTuple):
  """A row without its texts."""

  inputs: np.ndarray  # [≤ I] int32
  targets: np.ndarray  # [≤ T] int32


class TokenCache:
  """Reads one cache folder, `path`; `info` is the content of info.json."""

  def __init__(self, path: str | os.PathLike):
    self.path = Path(path)
    self.info = _read_info(self.path)
    for name, file in self.info["files"].items():
      if wrong := wrong_size(self.path / name, file["bytes"]):
        raise _incomplete(self.path, f"{name} {wrong}")
    rows = sum(shard["rows"] for shard in self.info["shards"])
    if rows != len(self):
      why = f"its shards hold {rows} rows, not {len(self)}"
      raise _incomplete(self.path, why)
    self._starts = np.cumsum([0, *(s["rows"] for s in self.info["shards"])])
    self._readers: dict[int, ArrayRecordReader] = {}
    self._lock = threading.Lock()  # a reader has a position

  def __len__(self) -> int:
    return self.info["rows"]

  @functools.cached_property
  def vocabulary(self) -> vocabularies.Vocabulary:
    return vocabularies.from_spec(self.info["vocabulary"], self.path)

  @functools.cached_property
  def postprocess(self) -> Callable[..., Any]:
    """The task's `postprocess_fn(text, example=None, is_target=False)`."""
    name, owner = self.info["postprocess"], f"cache {self.path}"
    return resolve(name, owner, lambda: self.vocabulary) if name else keep_text

  @functools.cached_property
  def metric_fns(self) -> list[Callable[..., dict[str, float]]]:
    """The task's `metric_fn(targets, predictions)`s."""
    owner = f"cache {self.path}"
    return [
      resolve(name, owner, lambda: self.vocabulary)
      for name in self.info["metrics"]
    ]

  @functools.cached_property
  def prompt_hashes(self) -> np.ndarray:
    """[rows] uint64 content hash of each prompt text."""
    self._compare(PROMPTS_FILE)
    return load_prompt_hashes(self.path / PROMPTS_FILE, len(self))

  @functools.cached_property
  def with_target(self) -> Sequence[int]:
    """The rows that have a target, rising; looked for where some have none."""
    if self.info["has_targets"]:
      return range(len(self))
    rows = []
    for start in range(0, len(self), _ROWS_AT_ONCE):
      block = range(start, min(start + _ROWS_AT_ONCE, len(self)))
      found = zip(block, self.tokens(block), strict=True)
      rows += [index for index, row in found if len(row.targets)]
    return rows

  @property
  def without_target(self) -> str:
    """How many rows are prompts alone, and the first; "" if none is."""
    count = len(self) - len(self.with_target)
    if not count:
      return ""
    rows = enumerate([*self.with_target, None])
    first = next(place for place, row in rows if place != row)
    return (
      f"{count:,} of {len(self):,} rows have no target, the first is"
      f" {row_name(first)}"
    )

  def read(self, indices: Sequence[int]) -> list[Row]:
    """Rows at these indices, in this order; an index may repeat."""
    return self._rows(indices, _decode)

  def tokens(self, indices: Sequence[int]) -> list[Tokens]:
    """As `read`, without the texts: what training needs, in half the time."""
    return self._rows(indices, _decode_tokens)

  def verify(self, report: Callable[[int], None] = lambda size: None) -> None:
    """Reads every file and compares its sha256; reports the bytes of each."""
    for name, file in self.info["files"].items():
      self._compare(name, again=True)
      report(file["bytes"])

  def _rows(
    self, indices: Sequence[int], decode: Callable[[bytes], Any]
  ) -> list[Any]:
    indices = np.asarray(indices, np.int64)
    if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
      raise IndexError(f"rows {indices} of {self.path} with {len(self)} rows")
    shards = np.searchsorted(self._starts, indices, side="right") - 1
    places = (indices - self._starts[shards]).tolist()
    try:
      with self._lock:
        records = list(map(self._record, shards.tolist(), places))
      rows = list(map(decode, records))
    except UserError:
      raise
    except Exception as error:  # of records that are not those of a cache
      if disk_errors.reason(error):
        raise
      raise self._damaged(f"{self.path} has other records ({error})") from error
    for feature in FEATURES:
      self._check_tokens(feature, [getattr(row, feature) for row in rows])
    return rows

  def _check_tokens(self, feature: str, rows: Sequence[np.ndarray]) -> None:
    """No longer than info.json says, and ids of the vocabulary."""
    size, longest = self.info["vocabulary"]["size"], self.info["longest"]
    ids = np.concatenate([np.zeros(0, _TOKEN), *rows])
    if max(map(len, rows), default=0) > longest[feature] or (
      ids.size and not 0 <= ids.min() <= ids.max() < size
    ):
      raise self._damaged(
        f"{self.path} has {feature} beyond the {size} ids of its vocabulary or"
        f" the {longest[feature]} tokens of its longest row"
      )

  def _record(self, shard: int, place: int) -> bytes:
    # Measured: 6 µs. A call for a list of places costs 80 µs for the first, and
    # the rows of a batch lie in many shards.
    if shard not in self._readers:
      name = self.info["shards"][shard]["file"]
      self._compare(name)
      reader = ArrayRecordReader(str(self.path / name), READER_OPTIONS)
      if (records := reader.num_records()) != self._starts[shard + 1] - (
        self._starts[shard]
      ):
        raise self._damaged(f"{name} has {records} rows, another number")
      self._readers[shard] = reader
    self._readers[shard].seek(place)
    return self._readers[shard].read()

  def _compare(self, name: str, again: bool = False) -> None:
    """Compares a file with its sha256, once in a process unless `again`."""
    file = self.path / name
    try:
      stat = file.stat()
      state = (str(file.absolute()), stat.st_size, stat.st_mtime_ns)
      if state in _compared and not again:
        return
      files.check_regular(file)
      same = hashes.file_hash(file) == self.info["files"][name]["sha256"]
    except OSError as error:
      raise self._damaged(
        f"{file} cannot be read ({error.strerror})"
      ) from error
    if not same:
      raise self._damaged(f"{file} differs from what was written")
    _compared.add(state)

  def _damaged(self, what: str) -> UserError:
    remedy = "copy the cache again, or delete it and make it anew"
    if "sources" in self.info:
      remedy = "`gkd cache make` with its --gin_file makes it anew"
    return UserError(f"damaged cache: {what}; {remedy}")


def load_prompt_hashes(file: Path, rows: int) -> np.ndarray:
  """[rows] uint64 of a file; a UserError if it holds something else."""
  try:
    hashes_of_rows = np.load(file)
    is_sound = (hashes_of_rows.dtype, hashes_of_rows.shape) == (
      np.dtype(np.uint64),
      (rows,),
    )
  except Exception:  # whatever a damaged header makes NumPy raise
    is_sound = False
  if not is_sound:
    raise UserError(f"{file} has not the hashes of {rows} prompts; {_REMEDY}")
  return hashes_of_rows


def same_vocabulary(
  info: Mapping[str, Any], vocabulary: vocabularies.Vocabulary
) -> bool:
  """Whether a cache's tokens are this vocabulary's; file names do not count."""
  spec = vocabulary.spec()
  return all(
    info["vocabulary"][name] == spec[name]
    for name in ("kind", "sha256", "size", "extra_ids")
  )


def lossy(info: Mapping[str, Any]) -> list[str]:
  """What the vocabulary did not keep, a line for inputs and one for targets."""
  lines = []
  for name, lost in (info.get("lossy") or {}).items():
    line = (
      f"{lost['rows']:,} of {info['rows']:,} {name} hold what the vocabulary"
      f" does not keep ({lost['unknown_tokens']:,} unknown tokens), the first"
      f" is {lost['example']}"
    )
    if name == "targets":
      targets = info["rows"] - info.get("prompts_alone", 0)
      ceiling = 100 * (1 - lost["rows"] / max(targets, 1))
      line += f"; an answer can equal at most {ceiling:.1f} % of the targets"
    lines.append(line)
  return lines


def _read_info(path: Path) -> dict[str, Any]:
  if not path.is_dir():
    raise UserError(f"no cache at {path}; make it with `gkd cache`")
  file = path / INFO_FILE
  if not os.path.lexists(file):
    raise _incomplete(path, f"it has no {INFO_FILE}")
  info = files.read_json(file, {"format": int}, _REMEDY)
  if info.get("format") != FORMAT:
    raise UserError(
      f"cache {path} has format {info.get('format')}, expected {FORMAT}; delete"
      " it and make it again with `gkd cache`"
    )
  files.check_types(file, info, _REQUIRED, _REMEDY, required=True)
  files.check_types(file, info, _OPTIONAL, _REMEDY)
  shards, listed = info["shards"], info["files"]
  names = [*listed, *(shard["file"] for shard in shards)]
  others = [name for name in names if not files.is_plain_name(name)]
  others += {shard["file"] for shard in shards} - listed.keys()
  others += [shard["file"] for shard in shards if shard["rows"] < 1]
  if others:
    raise UserError(
      f"{file} has {others[0]!r}; expected files of its folder with their sizes"
      f" and sha256, and one row or more in each shard; {_REMEDY}"
    )
  return info


def wrong_size(file: Path, expected: int) -> str | None:
  """What is wrong with the size of a file, in words; None: nothing."""
  size = file.stat().st_size if file.is_file() else None
  if size == expected:
    return None
  state = "is missing" if size is None else f"has {size} bytes"
  return f"{state}, not {expected} bytes"


def _incomplete(path: Path, why: str) -> UserError:
  return UserError(
    f"incomplete cache {path}: {why}; delete the folder and make it again with"
    " `gkd cache`"
  )


def _decode(record: bytes) -> Row:
  fields = msgpack.unpackb(record)
  return Row(
    inputs=np.frombuffer(fields["inputs"], _TOKEN),
    targets=np.frombuffer(fields["targets"], _TOKEN),
    prompt=fields["prompt"],
    reference=json.loads(fields["reference"]),
    score=fields.get("score"),
  )


def _decode_tokens(record: bytes) -> Tokens:
  fields = msgpack.unpackb(record, raw=True)  # texts stay undecoded
  return Tokens(
    inputs=np.frombuffer(fields[b"inputs"], _TOKEN),
    targets=np.frombuffer(fields[b"targets"], _TOKEN),
  )


def keep_text(text: str, example: Any = None, is_target: bool = False) -> str:
  """What seqio does without a postprocess_fn."""
  del example, is_target
  return text


def resolve(
  name: str, owner: str, vocabulary: Callable[[], vocabularies.Vocabulary]
) -> Callable[..., Any]:
  """The function called "package.module:function"; `owner` needs it.

  One that needs TensorFlow runs in a process of its own, which has to know the
  vocabulary.
  """
  if name.startswith(task_functions.PREFIX):
    return task_functions.resolve(name, vocabulary())
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise UserError(
      f"{owner} needs the function {name!r}, which cannot be imported"
      f" ({error}); install its package or make the cache again"
    ) from error
