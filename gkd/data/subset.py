"""The part of a cache that a run uses: rows, or prompts with their targets.

Parts are drawn by a seed and nest: 0.5 % of the rows, or prompts, lie within
5 % of them. At a constant number of rows N, `targets_per_prompt` m trades
prompts for targets: N/m prompts with m targets each, the prompts for 2m being
among those for m (prompt diversity, Fig. 6 of the teacher-hacking paper).

Targets of one prompt are the rows with the same prompt text, in the order of
the cache: what `gkd sample` writes.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from gkd.data import shuffle
from gkd.data.cache import TokenCache
from gkd.errors import UserError
from gkd.errors import row_name


@dataclasses.dataclass(frozen=True)
class Rows:
  """Rows of a cache by their place in a subset.

  Attributes:
    total: rows of the cache, or prompts with `groups`.
    size: number of them in use.
    stream: of the permutation that they are the first of, if not all are used.
    groups: [total, m] rows of the cache of each prompt; None: single rows, all
      of the cache.
  """

  total: int
  size: int
  stream: tuple[int, ...]
  groups: np.ndarray | None = None

  @property
  def _rows_each(self) -> int:
    return 1 if self.groups is None else self.groups.shape[1]

  def __len__(self) -> int:
    return self.size * self._rows_each

  def __getitem__(self, place: int) -> int:
    item, target = divmod(place, self._rows_each)
    if self.size < self.total:
      item = shuffle.permute(item, self.total, self.stream)
    return item if self.groups is None else int(self.groups[item, target])

  def __iter__(self) -> Iterator[int]:
    return map(self.__getitem__, range(len(self)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subset:
  """How much of a cache is used.

  Attributes:
    limit: number of rows; None for all.
    fraction: share of the rows, or of the prompts with `targets_per_prompt`;
      above 0, at most 1; None for all.
    targets_per_prompt: number of first targets of each prompt; None takes rows
      as they come, whatever their prompts.
    seed: of the draw; None for the seed of the run.
  """

  limit: int | None = None
  fraction: float | None = None
  targets_per_prompt: int | None = None
  seed: int | None = None

  def __post_init__(self):
    _at_least(1, TRAIN_LIMIT=self.limit)
    _at_least(1, TARGETS_PER_PROMPT=self.targets_per_prompt)
    _at_least(0, SUBSET_SEED=self.seed)
    if self.fraction is not None and not 0 < self.fraction <= 1:
      raise UserError(
        f"TRAIN_FRACTION is {self.fraction:g}; give a number above 0 and at"
        " most 1, or None"
      )
    if None not in (self.limit, self.fraction):
      raise UserError(
        f"TRAIN_LIMIT is {self.limit} and TRAIN_FRACTION {self.fraction:g};"
        " give one of the two"
      )
    if self.seed is not None and not self._draws:
      raise UserError(
        f"SUBSET_SEED is {self.seed} but all rows are used and it does nothing;"
        " give TRAIN_LIMIT or TRAIN_FRACTION, or leave it out"
      )
    m = self.targets_per_prompt
    if m is not None and self.limit is not None and self.limit % m:
      raise UserError(
        f"TRAIN_LIMIT {self.limit} is no multiple of TARGETS_PER_PROMPT {m};"
        f" give {(self.limit // m + 1) * m} or another number of rows"
      )

  @property
  def _draws(self) -> bool:
    return self.limit is not None or self.fraction not in (None, 1)

  def of(
    self, cache: TokenCache, seed: int, *, needs_targets: bool = False
  ) -> Rows:
    """The rows of `cache`, drawn with `seed` unless the subset has its own.

    With `needs_targets` they are among those with a target, where any has one.
    """
    seed = seed if self.seed is None else self.seed
    rows = range(len(cache))
    if needs_targets:
      rows = cache.with_target or rows
    m = self.targets_per_prompt
    if m is None:
      size = min(self._size(len(rows), 1), len(rows))
      single = None if len(rows) == len(cache) else np.asarray(rows)[:, None]
      return Rows(len(rows), size, (seed, shuffle.SUBSET), single)
    groups = _groups(cache, m, np.asarray(rows))
    size = self._size(len(groups), m)
    if size > len(groups):
      raise UserError(
        f"TRAIN_LIMIT {self.limit} with TARGETS_PER_PROMPT {m} needs {size}"
        f" prompts and cache {cache.path} has {len(groups)}; lower the first or"
        " raise the second"
      )
    return Rows(len(groups), size, (seed, shuffle.PROMPTS), groups)

  def describe(self, rows: Rows, cache: TokenCache, seed: int) -> str:
    """Number of rows, and how they came about."""
    text = f"{len(rows):,} rows"
    if len(rows) < len(cache):
      text = f"{len(rows):,} of {len(cache):,} rows"
    if self.limit is not None and self.limit > len(rows):
      text += f", fewer than TRAIN_LIMIT {self.limit:,}"
    if m := self.targets_per_prompt:
      targets = "1 target" if m == 1 else f"{m} targets"
      text += f": {len(rows) // m:,} prompts × {targets}"
    if len(rows) < len(cache) and self._draws:
      text += f", drawn by seed {seed if self.seed is None else self.seed}"
    return text

  def _size(self, total: int, rows_each: int) -> int:
    """How many of `total` are drawn, each of which stands for `rows_each`."""
    if self.limit is not None:
      return self.limit // rows_each
    if self.fraction is not None:
      return max(round(self.fraction * total), 1)
    return total


def rising(rows: Rows) -> np.ndarray:
  """[len(rows)] int64, the rows of a subset sorted."""
  return np.sort(np.fromiter(rows, np.int64, len(rows)))


def _groups(cache: TokenCache, size: int, rows: np.ndarray) -> np.ndarray:
  """[prompts, size] of `rows` the first of each prompt, by first appearance."""
  order = rows[np.argsort(cache.prompt_hashes[rows], kind="stable")]
  hashes = cache.prompt_hashes[order]
  starts = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1]))
  counts = np.diff(starts, append=len(order))
  if counts.min() < size:
    few = starts[counts < size]
    row = int(order[few].min())
    prompt = cache.read([row])[0].prompt
    raise UserError(
      f"{len(few)} of {len(counts)} prompts of cache {cache.path} have fewer"
      f" than {size} targets, the first is {row_name(row)}, {prompt[:60]!r};"
      f" lower TARGETS_PER_PROMPT to {counts.min()}, or sample more completions"
      " of each prompt"
    )
  starts = starts[np.argsort(order[starts])]
  return order[starts[:, None] + np.arange(size)]


def _at_least(least: int, **values: int | None) -> None:
  for name, value in values.items():
    if value is not None and value < least:
      raise UserError(f"{name} is {value}; give {least} or more, or None")
