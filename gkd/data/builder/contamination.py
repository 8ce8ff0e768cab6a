"""Prompts that occur more than once, in a cache or in two, by content hash.

An evaluation on prompts that were trained on measures memory. Blanks around a
prompt do not count, see `hashes.prompt_hash`.

Usage:
  found = shared(train, validation)
  found.prompts, found.rows, found.examples
"""

import dataclasses

import numpy as np

from gkd.data.cache import TokenCache

_EXAMPLES = 2
_WIDTH = 60  # characters of an example


@dataclasses.dataclass(frozen=True)
class Repeats:
  """What was found.

  Attributes:
    prompts: number of different prompts.
    rows: rows of the (second) cache that have one of them; within one cache
      those beyond the first of each prompt.
    examples: texts of the first few, cut.
  """

  prompts: int
  rows: int
  examples: tuple[str, ...]

  @property
  def quoted(self) -> str:
    """The examples in a sentence."""
    return ", ".join(map(repr, self.examples))


def within(cache: TokenCache) -> Repeats:
  """Prompts that stand in several rows of one cache."""
  _, firsts = np.unique(cache.prompt_hashes, return_index=True)
  again = np.ones(len(cache), bool)
  again[firsts] = False
  return _repeats(cache, np.flatnonzero(again))


def shared(left: TokenCache, right: TokenCache) -> Repeats:
  """Prompts of `right` that also stand in `left`."""
  found = np.isin(right.prompt_hashes, left.prompt_hashes)
  return _repeats(right, np.flatnonzero(found))


def _repeats(cache: TokenCache, rows: np.ndarray) -> Repeats:
  hashes, firsts = np.unique(cache.prompt_hashes[rows], return_index=True)
  shown = rows[np.sort(firsts)[:_EXAMPLES]]
  texts = [row.prompt.strip() for row in cache.read(shown)]
  cut = [t if len(t) <= _WIDTH else f"{t[: _WIDTH - 1]}…" for t in texts]
  return Repeats(len(hashes), len(rows), tuple(cut))
