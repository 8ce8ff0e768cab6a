"""Batches as a pure function of (seed, step): nothing about data is saved.

Row n of a run (n = step · batch size + place in the batch) is the cache row at
position n mod N of a permutation that is drawn anew for each epoch n div N. The
permutation is never written down: grain's index shuffle computes any place of
it directly. A resumed run therefore sees the data it would have seen.

Usage:
  loader = Loader(cache, batch_size=32, lengths={"inputs": 64, "targets": 32},
                  seed=0)
  batch = loader.batch(step)
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools

from grain.experimental import index_shuffle
import numpy as np

from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.keys import Role
from gkd.types import EOS_ID
from gkd.types import Batch
from gkd.types import Source
from gkd.types import UserError

FILLER_ROW = -1
_ROUNDS = 4  # of the shuffle's cipher; grain's own value
# Streams of this module below `Role.DATA`.
_EPOCH = 0
_SUBSET = 1


class Loader:
  """Global batches of one cache.

  Attributes:
    cache: where the rows come from.
    batch_size: B, over all processes.
    lengths: {"inputs": I, "targets": T}, the widths of a batch.
    seed: of the order.
    num_rows: N, rows in an epoch.
  """

  def __init__(
    self,
    cache: TokenCache,
    *,
    batch_size: int,
    lengths: Mapping[str, int],
    seed: int,
    shuffle: bool = True,
    limit: int | None = None,
  ):
    """Checks that the cache can serve what is asked.

    Args:
      cache: where the rows come from.
      batch_size: B, at least 1.
      lengths: {"inputs": I, "targets": T}; at most what the cache was made
        with, at least its longest row.
      seed: of the order, at least 0.
      shuffle: draw a permutation for each epoch; False keeps the cache's order.
      limit: use only so many rows: drawn by `seed` with shuffle, a smaller
        limit being a part of a larger one; the first ones without.
    """
    if batch_size < 1:
      raise UserError(f"BATCH_SIZE is {batch_size}; give 1 or more")
    if seed < 0:
      raise UserError(f"RANDOM_SEED is {seed}; give 0 or more")
    if limit is not None and limit < 1:
      raise UserError(f"a limit of {limit} rows; give 1 or more, or none")
    if not len(cache):
      raise UserError(
        f"cache {cache.path} has no rows; check the task and its split"
      )
    _check_lengths(cache, lengths)
    self.cache = cache
    self.batch_size = batch_size
    self.lengths = dict(lengths)
    self.seed = seed
    self.num_rows = min(len(cache), limit or len(cache))
    self._shuffle = shuffle

  def batch(self, step: int) -> Batch:
    """Global batch of a step, NumPy arrays; the same whenever it is called."""
    first = step * self.batch_size
    indices = [self.row(first + i) for i in range(self.batch_size)]
    return collate(self.cache.read(indices), indices, self.lengths)

  def row(self, n: int) -> int:
    """Cache row of the n-th example of a run."""
    epoch, place = divmod(n, self.num_rows)
    if not self._shuffle:
      return place
    place = _permute(place, self.num_rows, (self.seed, _EPOCH, epoch))
    return self._subset(place)

  def ordered(
    self, batch_size: int | None = None
  ) -> Iterator[tuple[Batch, list[Row]]]:
    """All rows once, by rising row index, for evaluation.

    The last batch is filled up: filler rows have row id -1, a lone EOS as
    input, no targets and weights 0. The list holds the real rows only.
    """
    size = batch_size or self.batch_size
    places = range(self.num_rows)
    if self._shuffle:
      places = sorted(self._subset(place) for place in places)
    for start in range(0, self.num_rows, size):
      indices = list(places[start : start + size])
      rows = self.cache.read(indices)
      yield collate(rows, indices, self.lengths, size), rows

  def _subset(self, place: int) -> int:
    """Cache row at a place of the subset; any place, without a limit."""
    if self.num_rows == len(self.cache):
      return place
    return _permute(place, len(self.cache), (self.seed, _SUBSET))


def collate(
  rows: Sequence[Row],
  indices: Sequence[int],
  lengths: Mapping[str, int],
  batch_size: int | None = None,
) -> Batch:
  """Rows as a right-padded batch of NumPy arrays.

  Args:
    rows: the rows; none is longer than `lengths`.
    indices: their global row ids.
    lengths: {"inputs": I, "targets": T}.
    batch_size: fill up to so many rows; default none.
  """
  size = batch_size or len(rows)
  inputs = np.zeros((size, lengths["inputs"]), np.int32)
  targets = np.zeros((size, lengths["targets"]), np.int32)
  weights = np.zeros((size, lengths["targets"]), np.float32)
  ids = np.full(size, FILLER_ROW, np.int32)
  ids[: len(rows)] = indices
  # Attention over an input without any token is undefined.
  inputs[len(rows) :, 0] = EOS_ID
  for i, row in enumerate(rows):
    inputs[i, : len(row.inputs)] = row.inputs
    targets[i, : len(row.targets)] = row.targets
    # From the length and not from the ids: whatever the ids mean.
    weights[i, : len(row.targets)] = 1.0
  return Batch(
    inputs=inputs,
    targets=targets,
    weights=weights,
    rows=ids,
    source=np.full(size, Source.DATASET, np.int32),
  )


def _permute(place: int, size: int, stream: tuple[int, ...]) -> int:
  """Image of `place` under the permutation of range(size) of a stream."""
  seed = _shuffle_seed(stream)
  return index_shuffle(place, max_index=size - 1, seed=seed, rounds=_ROUNDS)


@functools.lru_cache(maxsize=256)
def _shuffle_seed(stream: tuple[int, ...]) -> int:
  """One number of all numbers of a stream.

  It is a hash: with a sum, epoch 1 of seed 0 would be epoch 0 of seed 1.
  """
  entropy = np.random.SeedSequence([int(Role.DATA), *stream])
  return int(entropy.generate_state(1)[0])


def _check_lengths(cache: TokenCache, lengths: Mapping[str, int]) -> None:
  for name, made in cache.info["lengths"].items():
    if name not in lengths:
      raise UserError(
        f"lengths {dict(lengths)} lack {name!r}; set TASK_FEATURE_LENGTHS to"
        " {'inputs': …, 'targets': …}"
      )
    asked, longest = lengths[name], cache.info["longest"][name]
    if asked > made:
      raise UserError(
        f"{name} length {asked} is beyond the cache {cache.path}, whose rows"
        f" were cut at {made}; make a cache with the longer length"
      )
    if asked < longest:
      raise UserError(
        f"{name} length {asked} is too short for the cache {cache.path}, which"
        f" has a row of {longest}; make a cache with the shorter length or ask"
        f" for {longest} to {made}"
      )
