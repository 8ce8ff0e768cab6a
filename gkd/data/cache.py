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
from collections.abc import Sequence
import copy
import functools
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
from gkd.data import cache_info
from gkd.data import hashes
from gkd.data import task_functions
from gkd.data.cache_info import FEATURES
from gkd.errors import UserError
from gkd.errors import row_name
from gkd.text import vocabulary as vocabularies

PROMPTS_FILE = "prompts.npy"
_TOKEN = np.dtype("<i4")
# No read-ahead: rows are read at random, and a seek would throw it away.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_ROWS_AT_ONCE = 1024
# (file, size, mtime) of shards whose content this process has compared.
_compared: set[tuple[str, int, int]] = set()


class Row(NamedTuple):
  """An example: tokens with their EOS, and the texts behind them."""

  inputs: np.ndarray  # [≤ I] int32
  targets: np.ndarray  # [≤ T] int32; empty where there is only a prompt
  prompt: str
  reference: Any  # postprocessed target: str, number, list … as JSON has it
  score: float | None = None  # of targets that a beam search found
  teacher_inputs: np.ndarray | None = None  # [≤ I'] int32
  teacher: str = ""  # which of several scores the row; "": that of the task


class Tokens(NamedTuple):
  """A row without its texts."""

  inputs: np.ndarray  # [≤ I] int32
  targets: np.ndarray  # [≤ T] int32
  teacher_inputs: np.ndarray | None = None  # [≤ I'] int32
  teacher: str = ""


class TokenCache:
  """Reads one cache folder, `path`; `info` is the content of info.json.

  Attributes:
    teacher_prompts: cache whose inputs the teacher reads in place of these, row
      by row; see `with_teacher_prompts`.
  """

  teacher_prompts: "TokenCache | None" = None

  def __init__(self, path: str | os.PathLike):
    self.path = Path(path)
    self.info = cache_info.read(self.path)
    for name, file in self.info["files"].items():
      if wrong := cache_info.wrong_size(self.path / name, file["bytes"]):
        raise cache_info.incomplete(self.path, f"{name} {wrong}")
    rows = sum(shard["rows"] for shard in self.info["shards"])
    if rows != len(self):
      why = f"its shards hold {rows} rows, not {len(self)}"
      raise cache_info.incomplete(self.path, why)
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
    if not name:
      return task_functions.keep_text
    return task_functions.resolve(name, owner, lambda: self.vocabulary)

  @functools.cached_property
  def metric_fns(self) -> list[Callable[..., dict[str, float]]]:
    """The task's `metric_fn(targets, predictions)`s."""
    owner = f"cache {self.path}"
    return [
      task_functions.resolve(name, owner, lambda: self.vocabulary)
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

  def with_teacher_prompts(self, other: "TokenCache") -> "TokenCache":
    """The same rows, with the inputs of another cache as `teacher_inputs`.

    Rows of one place belong together, which their targets show when they are
    read.
    """
    if len(self) != len(other):
      raise UserError(
        f"cache {other.path} with the teacher's prompts has {len(other):,} rows"
        f" and {self.path} has {len(self):,}; give one with the same rows in"
        " the same order"
      )
    paired = copy.copy(self)
    paired.teacher_prompts = other
    return paired

  def _rows(
    self, indices: Sequence[int], decode: Callable[[bytes], Any]
  ) -> list[Any]:
    rows = self._own_rows(indices, decode)
    if self.teacher_prompts is None:
      return rows
    others = self.teacher_prompts.tokens(indices)
    for index, row, other in zip(indices, rows, others, strict=True):
      if not np.array_equal(row.targets, other.targets):
        raise UserError(
          f"{row_name(index)} has another target in the cache"
          f" {self.teacher_prompts.path} with the teacher's prompts than in"
          f" {self.path}; give one with the same rows in the same order"
        )
    return [
      row._replace(teacher_inputs=other.inputs)
      for row, other in zip(rows, others, strict=True)
    ]

  def _own_rows(
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
    raise UserError(
      f"{file} has not the hashes of {rows} prompts; {cache_info.REMEDY}"
    )
  return hashes_of_rows


def _decode(record: bytes) -> Row:
  fields = msgpack.unpackb(record)
  return Row(
    inputs=np.frombuffer(fields["inputs"], _TOKEN),
    targets=np.frombuffer(fields["targets"], _TOKEN),
    prompt=fields["prompt"],
    reference=json.loads(fields["reference"]),
    score=fields.get("score"),
    teacher=fields.get("teacher", ""),
  )


def _decode_tokens(record: bytes) -> Tokens:
  fields = msgpack.unpackb(record, raw=True)  # texts stay undecoded
  return Tokens(
    inputs=np.frombuffer(fields[b"inputs"], _TOKEN),
    targets=np.frombuffer(fields[b"targets"], _TOKEN),
    teacher=fields.get(b"teacher", b"").decode(),
  )
