"""A permutation for each stream, and another one for another stream."""

import itertools

from grain.experimental import index_shuffle
import numpy as np

from gkd.data.shuffle import permute


def drawn(size, stream):
  return [permute(place, size, stream) for place in range(size)]


def test_every_place_has_an_image_of_its_own():
  # At 65,537 grain's own shuffle gives two places one image.
  for size in (1, 2, 40, 1000, 65_537):
    assert sorted(drawn(size, (0, 0, 0))) == list(range(size))


def test_it_is_grains_shuffle():
  entropy = np.random.SeedSequence([1, 5, 0, 2])  # 1: the role of data
  seed = int(entropy.generate_state(1)[0])
  for size in (1, 40, 65_536, 65_538, 10**9):
    for place in {0, size // 3, size - 1}:
      expected = index_shuffle(place, max_index=size - 1, seed=seed, rounds=4)
      assert permute(place, size, (5, 0, 2)) == expected


def test_streams_have_no_permutation_in_common():
  # Sums of seed and epoch would repeat: (0, 1) and (1, 0) above all.
  streams = itertools.product(range(3), range(2), range(3))
  found = {
    tuple(permute(i, 1000, stream) for i in range(20)) for stream in streams
  }
  assert len(found) == 18
