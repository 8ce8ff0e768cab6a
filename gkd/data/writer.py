"""Writes token caches, without TensorFlow.

`materialise` writes seqio tasks through this; generated problems and sampled
texts (sequence-level distillation) come here directly, and training reads all
of them alike.

Usage:
  rows = [Row(inputs, targets, prompt="1+1=", reference="2"), …]
  write_rows(path, rows, {"task": "sums", "split": "train", "lengths":
    {"inputs": 8, "targets": 4}, "vocabulary": vocabulary})
"""

from collections.abc import Iterable
from collections.abc import Mapping
import hashlib
import json
import os
from pathlib import Path
import shutil
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
import msgpack
import numpy as np

from gkd.data import cache
from gkd.data.cache import Row
from gkd.types import UserError

ROWS_PER_SHARD = 1 << 17
# Rows are read one by one, at random: a larger group is decoded whole.
_WRITER_OPTIONS = "group_size:1"
_SUFFIX = ".array_record"


def write_rows(
  path: str | os.PathLike, rows: Iterable[Row], info: Mapping[str, Any]
) -> str:
  """Writes a cache, whole or not at all.

  Args:
    path: the folder to make. A half-written one is replaced, a complete one is
      an error.
    rows: `Row`s, read once; memory does not grow with their number.
    info: `task`, `split`, `lengths` {inputs, targets} and `vocabulary` (the
      object) are required; `postprocess` (None: the text itself), `metrics`,
      both as "module:function", and whatever else is worth keeping, such as
      provenance. Added here: `format`, `rows`, `has_targets` (every row has
      some), `longest` {inputs, targets}, `shards`, `files`, `hash`.

  Returns:
    The path.
  """
  path = Path(path)
  if cache.is_complete(path):
    raise UserError(
      f"cache {path} exists already; delete it first or choose another folder"
    )
  _check_replaceable(path)
  partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
  shutil.rmtree(partial, ignore_errors=True)
  try:
    partial.mkdir(parents=True)
  except OSError as error:
    raise UserError(
      f"cannot write a cache to {path} ({error.strerror}); give a folder that"
      " can be written"
    ) from error
  try:
    written = _write_shards(partial, rows, info["lengths"])
    content = {"postprocess": None, "metrics": [], **info, **written}
    content["vocabulary"] = info["vocabulary"].save(partial)
    content["format"] = cache.FORMAT
    content["files"] = {
      file.name: {"bytes": file.stat().st_size, "sha256": cache.file_hash(file)}
      for file in sorted(partial.iterdir())
    }
    content.setdefault("hash", content_hash(content))
    _write_synced(partial / cache.INFO_FILE, json.dumps(content, indent=2))
    shutil.rmtree(path, ignore_errors=True)
    os.rename(partial, path)
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  return str(path)


def content_hash(value: Any) -> str:
  """sha256 of a JSON value, whatever the order of its keys."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False)
  return hashlib.sha256(text.encode()).hexdigest()


def _check_replaceable(path: Path) -> None:
  """Refuses to delete a folder that is not the rest of a cache."""
  names = [file.name for file in path.iterdir()] if path.is_dir() else []
  if names and not any(
    name == cache.INFO_FILE or name.endswith(_SUFFIX) for name in names
  ):
    raise UserError(
      f"{path} holds other files than a cache ({sorted(names)[0]}, …); choose"
      " another folder"
    )


def _write_shards(
  folder: Path, rows: Iterable[Row], lengths: Mapping[str, int]
) -> dict[str, Any]:
  """Writes shards and prompt hashes; returns what info.json says of them."""
  counts: list[int] = []
  hashes: list[int] = []
  longest = {"inputs": 0, "targets": 0}
  has_targets = True
  writer = None
  for row in rows:
    if writer is None or counts[-1] == ROWS_PER_SHARD:
      if writer is not None:
        writer.close()
      writer = ArrayRecordWriter(
        str(folder / _shard_name(len(counts))), _WRITER_OPTIONS
      )
      counts.append(0)
    for name in longest:
      longest[name] = max(longest[name], len(getattr(row, name)))
      if longest[name] > lengths[name]:
        raise UserError(
          f"row {len(hashes)} has {longest[name]} {name} tokens and the cache"
          f" holds {lengths[name]}; give longer lengths or shorten the row"
        )
    has_targets &= len(row.targets) > 0
    writer.write(_encode(row))
    hashes.append(_prompt_hash(row.prompt))
    counts[-1] += 1
  if writer is not None:
    writer.close()
  np.save(folder / cache.PROMPTS_FILE, np.asarray(hashes, np.uint64))
  return {
    "rows": len(hashes),
    "has_targets": has_targets,
    "longest": longest,
    "shards": [
      {"file": _shard_name(i), "rows": n} for i, n in enumerate(counts)
    ],
  }


def _shard_name(index: int) -> str:
  return f"rows-{index:05d}{_SUFFIX}"


def _encode(row: Row) -> bytes:
  return msgpack.packb(
    {
      "inputs": np.asarray(row.inputs, "<i4").tobytes(),
      "targets": np.asarray(row.targets, "<i4").tobytes(),
      "prompt": row.prompt,
      "reference": json.dumps(row.reference, ensure_ascii=False),
    }
  )


def _prompt_hash(prompt: str) -> int:
  digest = hashlib.blake2b(prompt.strip().encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


def _write_synced(path: Path, text: str) -> None:
  with path.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
