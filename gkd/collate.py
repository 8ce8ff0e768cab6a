"""Rows of token ids as right-padded batches; the only place that pads."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from gkd.types import Batch
from gkd.types import Source

FILLER_ROW = -1


class Row(Protocol):
  """What a batch needs of a row of a token cache."""

  inputs: np.ndarray
  targets: np.ndarray
  teacher_inputs: np.ndarray  # only of rows whose `lengths` have them


def collate(
  rows: Sequence[Row],
  ids: Sequence[int],
  lengths: Mapping[str, int],
  batch_size: int | None = None,
  *,
  with_targets: bool = True,
) -> Batch:
  """Rows as a right-padded batch of NumPy arrays.

  Args:
    rows: the rows; none is longer than `lengths`.
    ids: their global row ids.
    lengths: {"inputs": I, "targets": T}, with "teacher_inputs" for another
      prompt of the teacher.
    batch_size: fill up to so many rows, with the id −1; default none.
    with_targets: False for prompts alone; targets are then empty.
  """
  size = batch_size or len(rows)
  prompts = {}
  for name, mask in (
    ("inputs", "input_mask"),
    ("teacher_inputs", "teacher_input_mask"),
  ):
    if name in lengths:
      prompts[name], prompts[mask] = _padded(
        [getattr(row, name) for row in rows], size, lengths[name]
      )
      # Attention over an input without any token is undefined.
      prompts[mask][len(rows) :, 0] = True
  targets, is_target = _padded(
    [row.targets for row in rows] if with_targets else [],
    size,
    lengths["targets"],
  )
  row_ids = np.full(size, FILLER_ROW, np.int32)
  row_ids[: len(rows)] = ids
  return Batch(
    **prompts,
    targets=targets,
    weights=is_target.astype(np.float32),
    rows=row_ids,
    source=np.full(size, Source.DATASET, np.int32),
  )


def _padded(
  rows: Sequence[np.ndarray], size: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """[size, width] ids and where they are; one copy for all rows."""
  counts = np.zeros(size, np.int64)
  counts[: len(rows)] = [len(row) for row in rows]
  is_real = np.arange(width) < counts[:, None]
  padded = np.zeros((size, width), np.int32)
  if rows:
    padded[is_real] = np.concatenate(rows)
  return padded, is_real
