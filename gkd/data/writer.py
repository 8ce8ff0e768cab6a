"""Writes token caches, without TensorFlow.

For rows that a program has: generated problems, tests. What takes long goes
through `builder`, which survives a kill; training reads all of them alike.

Usage:
  rows = [Row(inputs, targets, prompt="1+1=", reference="2"), …]
  write_rows(path, rows, {"task": "sums", "split": "train", "lengths":
    {"inputs": 8, "targets": 4}, "vocabulary": vocabulary})
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import os
from typing import Any

from gkd.data import shards
from gkd.data.builder import CacheBuilder
from gkd.data.cache import Row
from gkd.types import UserError


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
  builder = CacheBuilder(path)
  _refuse_existing(builder)
  with builder:
    _refuse_existing(builder)  # made while this process waited for the lock
    rows = _checked(rows, info["lengths"])
    for index, first in enumerate(rows):
      rest = itertools.islice(rows, shards.rows_in(index) - 1)
      builder.add(index, itertools.chain([first], rest))
    return builder.finish(info)


def _refuse_existing(builder: CacheBuilder) -> None:
  if builder.exists:
    raise UserError(
      f"cache {builder.path} exists already; delete it first or choose another"
      " folder"
    )


def _checked(rows: Iterable[Row], lengths: Mapping[str, int]) -> Iterator[Row]:
  """The rows; one that is too long ends it."""
  for number, row in enumerate(rows):
    for name, length in lengths.items():
      found = len(getattr(row, name))
      if found > length:
        raise UserError(
          f"row {number} has {found} {name} tokens and the cache holds"
          f" {length}; give longer lengths or shorten the row"
        )
    yield row
