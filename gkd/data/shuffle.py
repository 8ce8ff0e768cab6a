"""Random permutations that are never written down.

grain's index shuffle computes the image of one place directly, so a data order
takes no memory and no state: any place of any epoch is a function of a stream,
a tuple of numbers that starts with the seed.
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
_SMALLEST = 1 << 16  # places of its smallest cipher


def permute(place: int, size: int, stream: tuple[int, ...]) -> int:
  """Image of `place` under the permutation of range(size) of a stream.

  It costs about 5 µs, below 65,536 places in inverse proportion to `size` more:
  the cipher has so many and walks on until it meets one that exists.
  """
  seed, last = _seed(stream), size - 1
  if last >= _SMALLEST and not last & (last - 1):
    # At a power of four grain's cipher is one bit short, and the first and the
    # last place have one image. So there is one place more, and it is left out.
    last += 1
  place = index_shuffle(place, last, seed, _ROUNDS)
  while place >= size:
    place = index_shuffle(place, last, seed, _ROUNDS)
  return place


@functools.lru_cache(maxsize=256)
def _seed(stream: tuple[int, ...]) -> int:
  """A hash of the stream: by a sum, epoch 1 of seed 0 would be 0 of seed 1."""
  entropy = np.random.SeedSequence([int(Role.DATA), *stream])
  return int(entropy.generate_state(1)[0])
