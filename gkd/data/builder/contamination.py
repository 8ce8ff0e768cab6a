"""Prompts that occur more than once, in a cache or in two, by content hash.

An evaluation on prompts that were trained on measures memory. Blanks around a
prompt do not count, see `hashes.prompt_hash`.
"""

from typing import NamedTuple

import numpy as np

from gkd.data.cache import TokenCache

_EXAMPLES = 2
_WIDTH = 60  # characters of an example


class Repeats(NamedTuple):
  """Repeated prompts."""

  prompts: int  # different ones
  # Rows of the (second) cache that have one of them; within one cache those
  # beyond the first of each prompt.
  rows: int
  quoted: str  # the first few, cut, as in a sentence


def within(cache: TokenCache) -> Repeats:
  """Prompts that stand in several rows of one cache."""
  _, firsts = np.unique(cache.prompt_hashes, return_index=True)
  return _repeats(cache, np.delete(np.arange(len(cache)), firsts))


def shared(left: TokenCache, right: TokenCache) -> Repeats:
  """Prompts of `right` that also stand in `left`."""
  is_shared = np.isin(right.prompt_hashes, left.prompt_hashes)
  return _repeats(right, np.flatnonzero(is_shared))


def _repeats(cache: TokenCache, rows: np.ndarray) -> Repeats:
  hashes, firsts = np.unique(cache.prompt_hashes[rows], return_index=True)
  shown = rows[np.sort(firsts)[:_EXAMPLES]]
  texts = [row.prompt.strip() for row in cache.read(shown)]
  cut = [t if len(t) <= _WIDTH else f"{t[: _WIDTH - 1]}…" for t in texts]
  return Repeats(len(hashes), len(rows), ", ".join(map(repr, cut)))
