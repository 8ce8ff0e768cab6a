"""Batches of the prompts of a split, and how far an evaluation is with them."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeVar

import jax
import numpy as np

from gkd.evaluation.predictions import Cache
from gkd.progress import Progress
from gkd.types import Batch
from gkd.types import Source
from gkd.types import UserError

_T = TypeVar("_T")
# What is done sooner shows no progress: no need to wait for it.
_QUIET_SECONDS = 5.0


class Examples(NamedTuple):
  """One batch of prompts and what the cache says about its rows."""

  batch: Batch  # without targets; the last one of a split has filler rows
  rows: list  # `data.cache.Row`s, no fillers


def batches(
  cache: Cache,
  num_rows: int,
  lengths: Mapping[str, int],
  batch_size: int,
  sharding: Any = None,
  *,
  name: str,
) -> list[Examples]:
  """The first rows of a split, in order.

  Args:
    cache: where to read.
    num_rows: how many.
    lengths: {"inputs": I, "targets": T}.
    batch_size: B of every batch; the last one is filled up with rows -1.
    sharding: layout of the batches over devices; None as they are made.
    name: of what needs the prompts, for messages.

  Raises:
    UserError: a prompt is longer than I.
  """
  found = []
  width = lengths["inputs"]
  for start in range(0, num_rows, batch_size):
    indices = range(start, min(start + batch_size, num_rows))
    rows = cache.read(list(indices))
    inputs = np.zeros((batch_size, width), np.int32)
    input_mask = np.zeros((batch_size, width), bool)
    # Attention over an input without any token is undefined.
    input_mask[len(rows) :, 0] = True
    row_ids = np.full((batch_size,), -1, np.int32)  # -1 marks filler rows
    row_ids[: len(rows)] = indices
    for place, row in enumerate(rows):
      if len(row.inputs) > width:
        raise UserError(
          f"{name}: row {start + place} has {len(row.inputs)} input tokens,"
          f" more than {width}; raise TASK_FEATURE_LENGTHS or cache the task"
          " again"
        )
      inputs[place, : len(row.inputs)] = row.inputs
      input_mask[place, : len(row.inputs)] = True
    empty = np.zeros((batch_size, lengths["targets"]), np.int32)
    batch = Batch(
      inputs=inputs,
      input_mask=input_mask,
      targets=empty,
      weights=empty.astype(np.float32),
      rows=row_ids,
      source=np.full((batch_size,), int(Source.DATASET), np.int32),
    )
    if sharding is not None:
      batch = jax.device_put(batch, sharding)
    found.append(Examples(batch, rows))
  return found


def with_progress(
  results: Iterator[_T], examples: Sequence[Examples], title: str
) -> Iterator[tuple[Examples, _T]]:
  """Each batch with its result; shows how far it is if that takes long."""
  with Progress(
    sum(len(example.rows) for example in examples),
    description=title,
    unit="prompt",
    delay=_QUIET_SECONDS,
  ) as progress:
    for example, result in zip(examples, results, strict=True):
      yield example, result
      progress.update(len(example.rows))
