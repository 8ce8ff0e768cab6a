"""Random permutations of any size, without memory of what was drawn.

grain's index shuffle computes the image of one place directly, so a data order
needs no state: any place of any epoch is a function of a stream, a tuple of
numbers that starts with the seed. A cipher permutes the numbers of some bits,
16 or more, and walks on from each image that is too large ("cycle walking",
https://www.cs.ucdavis.edu/~rogaway/papers/subset.pdf).

Below 65,536 places that walk is long: 45 µs a place for a thousand of them and
1 ms for forty. There the same permutation is computed for all places at once,
3 ms whatever their number, and kept.

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
_ROUNDS = 4  # of the cipher; grain's own value
_SMALL = 1 << 16  # places of the smallest cipher


def permute(place: int, size: int, stream: tuple[int, ...]) -> int:
  """Image of `place` under the permutation of range(size) of a stream."""
  seed = _seed(stream)
  if size <= _SMALL:
    return int(_all_images(size, seed)[place])
  last = size - 1
  if not last & (last - 1):
    # At a power of four grain's cipher is one bit short, and the first and the
    # last place have one image. So there is one place more, and it is left out.
    last += 1
  place = index_shuffle(place, last, seed, _ROUNDS)
  while place >= size:
    place = index_shuffle(place, last, seed, _ROUNDS)
  return place


@functools.lru_cache(maxsize=256)
def _seed(stream: tuple[int, ...]) -> int:
  """One number of all numbers of a stream.

  It is a hash: with a sum, epoch 1 of seed 0 would be epoch 0 of seed 1.
  """
  entropy = np.random.SeedSequence([int(Role.DATA), *stream])
  return int(entropy.generate_state(1)[0])


@functools.lru_cache(maxsize=256)  # of at most 128 kB
def _all_images(size: int, seed: int) -> np.ndarray:
  """[size] what grain's shuffle gives for each place, at most 65,536."""
  if size == 1:  # grain asks no cipher
    return np.zeros(1, np.uint16)
  encrypted = _encrypt(np.arange(_SMALL, dtype=np.uint16), _round_keys(seed))
  # Where the walk from each number ends: at once if it is a place. Each turn
  # doubles the steps that were made, until all images are places.
  ends = np.arange(_SMALL, dtype=np.uint16)
  ends[size:] = encrypted[size:]
  images = encrypted[:size]
  while images.max() >= size:
    images = ends[images]
    ends = ends[ends]
  return images


def _encrypt(numbers: np.ndarray, keys: list[int]) -> np.ndarray:
  """uint16 numbers under Simon (https://eprint.iacr.org/2013/404), 8-bit words.

  Two Feistel rounds a turn, as grain has them: round keys of 32 bits are cut to
  the word.
  """
  left = (numbers >> 8).astype(np.uint8)
  right = (numbers & 255).astype(np.uint8)
  for first, second in zip(keys[::2], keys[1::2], strict=True):
    left ^= _mixed(right) ^ np.uint8(first & 255)
    right ^= _mixed(left) ^ np.uint8(second & 255)
  return left.astype(np.uint16) << 8 | right


def _mixed(word: np.ndarray) -> np.ndarray:
  """Simon's round function; a rotation by 8 bits leaves a word as it is."""
  return ((word << 1 | word >> 7) & word) ^ (word << 2 | word >> 6)


def _round_keys(seed: int) -> list[int]:
  """What C++'s std::seed_seq{seed} generates for `_ROUNDS` numbers.

  [rand.util.seedseq] of the standard, for four numbers of one seed.
  """
  n, word = _ROUNDS, 1 << 32
  b = [0x8B8B8B8B] * n
  for k in range(n):
    mixed = b[k] ^ b[(k + 1) % n] ^ b[k - 1]
    r1 = 1664525 * (mixed ^ mixed >> 27) % word
    r2 = (r1 + (1, 1 + seed, 2, 3)[k]) % word
    b[(k + 1) % n] = (b[(k + 1) % n] + r1) % word
    b[(k + 2) % n] = (b[(k + 2) % n] + r2) % word
    b[k] = r2
  for k in range(n):
    mixed = (b[k] + b[(k + 1) % n] + b[k - 1]) % word
    r3 = 1566083941 * (mixed ^ mixed >> 27) % word
    r4 = (r3 - k) % word
    b[(k + 1) % n] ^= r3
    b[(k + 2) % n] ^= r4
    b[k] = r4
  return b
