"""Batches of the prompts of a split, and how far an evaluation is with them."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeVar

import jax

from gkd.collate import collate
from gkd.evaluation.evaluation import Evaluation
from gkd.progress import Progress
from gkd.types import Batch
from gkd.types import UserError

_T = TypeVar("_T")
# What is done sooner shows no progress: no need to wait for it.
_QUIET_SECONDS = 5.0


class Examples(NamedTuple):
  """One batch of prompts and what the cache says about its rows."""

  batch: Batch  # without targets; the last one of a split has filler rows
  rows: list  # `data.cache.Row`s, no fillers


def batches(evaluation: Evaluation, sharding: Any = None) -> list[Examples]:
  """The evaluated rows of a split, in order.

  Args:
    evaluation: the split; the last batch is filled up with rows of id −1.
    sharding: layout of the batches over devices; None as they are made.

  Raises:
    UserError: a prompt is longer than the evaluation's inputs.
  """
  found = []
  size, lengths = evaluation.batch_size, evaluation.lengths
  for start in range(0, evaluation.num_rows, size):
    indices = range(start, min(start + size, evaluation.num_rows))
    rows = evaluation.cache.read(list(indices))
    for index, row in zip(indices, rows, strict=True):
      if len(row.inputs) > lengths["inputs"]:
        raise UserError(
          f"evaluation of {evaluation.name}, split {evaluation.split!r}: row"
          f" {index} has {len(row.inputs)} input tokens, more than"
          f" {lengths['inputs']}; raise TASK_FEATURE_LENGTHS or cache the task"
          " again"
        )
    batch = collate(rows, indices, lengths, size, with_targets=False)
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
