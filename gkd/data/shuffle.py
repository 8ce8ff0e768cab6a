"""Random permutations that are never written down.

grain's index shuffle computes the image of one place directly, so a data order
takes no memory and no state: any place of any epoch is a function of a stream,
a tuple of numbers that starts with the seed.

Usage:
  row = permute(place, size=1000, stream=(seed, EPOCH, epoch))
"""

import functools

from grain.experimental import index_shuffle
import numpy as np

from gkd.keys import Role

# What a stream below `Role.DATA` is for, its second number. Part of the
# format: never renumber.
EPOCH = 0
SUBSET = 1
PROMPTS = 2
_ROUNDS = 4  # of the shuffle's cipher; grain's own value


def permute(place: int, size: int, stream: tuple[int, ...]) -> int:
  """Image of `place` under the permutation of range(size) of a stream."""
  return index_shuffle(place, size - 1, _seed(stream), _ROUNDS)


@functools.lru_cache(maxsize=256)
def _seed(stream: tuple[int, ...]) -> int:
  """One number of all numbers of a stream.

  It is a hash: with a sum, epoch 1 of seed 0 would be epoch 0 of seed 1.
  """
  entropy = np.random.SeedSequence([int(Role.DATA), *stream])
  return int(entropy.generate_state(1)[0])
