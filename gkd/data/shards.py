"""One shard of a token cache on disk, whole or not at all.

A shard in the making is a temporary file; it gets its name when every byte is
on disk, and a sidecar with its numbers and sha256 follows last. So a shard that
has a sidecar is finished, whatever was killed. Any process may write one.

The folder of a cache in the making, see `gkd.data.writer`:

  00000.json, 00000.npy            sidecar and prompt hashes of shard 0
  cache/rows-00000.array_record    the shard; `cache/` is what gets moved
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import json
import os
from pathlib import Path
import re
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader
from array_record.python.array_record_module import ArrayRecordWriter
import msgpack
import numpy as np

from gkd import files
from gkd.data import cache
from gkd.data import cache_info
from gkd.data import hashes
from gkd.errors import UserError

# Rows are read one by one, at random: a larger group is decoded whole.
_WRITER_OPTIONS = "group_size:1"
SUFFIX = ".array_record"
CACHE_FOLDER = "cache"
FIRST_ROWS = 1 << 14
_SHARDS_OF_A_SIZE = 64
_MOST_DOUBLINGS = 3
_SIDECAR = {
  "rows": int,
  "has_targets": bool,
  "longest": dict.fromkeys(cache_info.FEATURES, int),
  "bytes": int,
  "sha256": str,
  "counts": {str: int},
}
_as_json = json.JSONEncoder(ensure_ascii=False).encode

Sidecars = Mapping[int, Mapping[str, Any]]  # of finished shards, in their order


def rows_in(index: int) -> int:
  """Number of rows to put into shard `index`.

  A kill costs the shards being written, so they start small. A reader keeps
  every shard open, so later ones grow: 15 million rows are 256 files.
  """
  return FIRST_ROWS << min(index // _SHARDS_OF_A_SIZE, _MOST_DOUBLINGS)


def is_name(file: str) -> bool:
  """Whether a file of a cache is called like a shard."""
  return re.fullmatch(rf"rows-\d{{5,}}{re.escape(SUFFIX)}", file) is not None


def name(index: int) -> str:
  return f"rows-{index:05d}{SUFFIX}"


def write(
  folder: str | os.PathLike,
  index: int,
  rows: Iterable[cache.Row],
  counts: Mapping[str, int] | None = None,
  notes: Mapping[str, str] | None = None,
) -> int:
  """Writes shard `index` of a cache in the making; returns its number of rows.

  Args:
    folder: of the cache in the making, see above; it exists.
    index: number of the shard.
    rows: one or more rows, read once; memory does not grow with their number.
    counts: numbers to add up over the shards of a cache. Read after the last
      row, so that counting may go along with reading.
    notes: texts to keep of the first shard that has each; read then, too.
  """
  folder = Path(folder)
  partial = folder / f".{index:05d}-{os.getpid()}"
  partial.unlink(missing_ok=True)  # never through a link
  try:
    numbers, prompts = _write_records(partial, rows)
    with _refusal_reported(folder):
      reader = ArrayRecordReader(str(partial), cache.READER_OPTIONS)
      if (records := reader.num_records()) != numbers["rows"]:
        # A record lost without an error would shift all later ones.
        raise OSError(0, f"{records} records instead of {numbers['rows']}")
      with partial.open("rb") as file:
        os.fsync(file.fileno())
      numbers |= {
        "bytes": partial.stat().st_size,
        "sha256": hashes.file_hash(partial),
        "counts": dict(counts or {}),
        "notes": dict(notes or {}),
      }
      os.replace(partial, folder / CACHE_FOLDER / name(index))
      with (folder / f"{index:05d}.npy").open("wb") as file:
        np.save(file, prompts)
        file.flush()
        os.fsync(file.fileno())
      files.write_text(folder / f"{index:05d}.json", json.dumps(numbers))
  finally:
    partial.unlink(missing_ok=True)
  return numbers["rows"]


def sidecars(folder: Path) -> Sidecars:
  """{shard: its numbers} of the finished shards, by rising index.

  One without its sidecar, or with a damaged one, is not finished.
  """
  finished = {}
  for file in sorted(folder.glob("[0-9]" * 5 + ".json")):
    with contextlib.suppress(UserError):
      numbers = files.read_json(file, {})
      files.check_types(file, numbers, _SIDECAR, "", required=True)
      files.check_types(file, numbers, {"notes": {str: str}}, "")
      finished[int(file.stem)] = numbers
  return finished


def totals(sidecars: Sidecars) -> dict[str, Any]:
  """What the info.json of a cache says of its shards together."""
  parts = sidecars.values()
  teachers = {name for n in parts for name in n.get("teachers", [""])}
  return {
    **({"teachers": sorted(teachers)} if teachers - {""} else {}),
    "rows": sum(n["rows"] for n in parts),
    "has_targets": all(n["has_targets"] for n in parts),
    "longest": {
      feature: max((n["longest"][feature] for n in parts), default=0)
      for feature in cache_info.FEATURES
    },
    "shards": [
      {"file": name(i), "rows": n["rows"]} for i, n in sidecars.items()
    ],
  }


def prompt_hashes(folder: Path) -> np.ndarray:
  """[rows] uint64 of all finished shards, in their order."""
  parts = [
    cache.load_prompt_hashes(folder / f"{i:05d}.npy", numbers["rows"])
    for i, numbers in sidecars(folder).items()
  ]
  return np.concatenate([np.zeros(0, np.uint64), *parts])


def drop_torn(folder: Path) -> list[int]:
  """Removes what is not a finished shard; returns those that had a sidecar."""
  torn = []
  for index, numbers in sidecars(folder).items():
    file = folder / CACHE_FOLDER / name(index)
    sound = (
      cache_info.wrong_size(file, numbers["bytes"]) is None
      and hashes.file_hash(file) == numbers["sha256"]
    )
    try:
      cache.load_prompt_hashes(folder / f"{index:05d}.npy", numbers["rows"])
    except UserError:
      sound = False
    if not sound:
      torn.append(index)
      (folder / f"{index:05d}.json").unlink()
  kept = {name(index) for index in sidecars(folder)}
  for file in (folder / CACHE_FOLDER).iterdir():
    if file.name not in kept:
      file.unlink()
  # What a killed process was writing: a shard, or a file by `files.write_text`.
  for file in (*folder.glob(".?????-*"), *folder.glob(".*.partial")):
    file.unlink()
  return torn


def _write_records(
  path: Path, rows: Iterable[cache.Row]
) -> tuple[dict[str, Any], np.ndarray]:
  """Writes the records; returns the sidecar's numbers, and prompt hashes."""
  prompts = []
  longest = dict.fromkeys(cache_info.FEATURES, 0)
  has_targets, teachers = True, set()
  with _refusal_reported(path.parent):
    writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
  try:
    for row in rows:  # what reading them raises is not about writing
      for feature in longest:
        longest[feature] = max(longest[feature], len(getattr(row, feature)))
      has_targets &= len(row.targets) > 0
      teachers.add(row.teacher)
      writer.write(_encode(row))
      prompts.append(hashes.prompt_hash(row.prompt))
  finally:
    with _refusal_reported(path.parent):
      writer.close()
  assert prompts, "a shard has rows"
  numbers = {
    "rows": len(prompts),
    "has_targets": has_targets,
    "longest": longest,
    "teachers": sorted(teachers),
  }
  return numbers, np.asarray(prompts, np.uint64)


@contextlib.contextmanager
def _refusal_reported(folder: Path) -> Iterator[None]:
  """Says in one line what could not be written."""
  try:
    yield
  # ArrayRecord raises RuntimeError with the system's words in it.
  except (OSError, RuntimeError) as error:
    reason = getattr(error, "strerror", None) or str(error).partition(";")[0]
    raise UserError(
      f"cannot write to {folder} ({reason}); its {len(sidecars(folder))}"
      " finished shards stay: make room, or mend what is wrong with the disk,"
      " and run the same command again"
    ) from error


def _encode(row: cache.Row) -> bytes:
  fields = {
    "inputs": np.asarray(row.inputs, "<i4").tobytes(),
    "targets": np.asarray(row.targets, "<i4").tobytes(),
    "prompt": row.prompt,
    "reference": _as_json(row.reference),
  }
  if row.score is not None:
    fields["score"] = row.score
  if row.teacher:
    fields["teacher"] = row.teacher
  return msgpack.packb(fields)
