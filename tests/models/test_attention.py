"""Relative buckets as in the T5 paper."""

import numpy as np
import pytest

from gkd.models import attention


@pytest.mark.parametrize(
  ("num_buckets", "max_distance"), [(32, 128), (8, 10), (16, 200)]
)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_geometric_beyond_the_exact_ones(
  bidirectional, num_buckets, max_distance
):
  # T5 paper, section 2.1: half of the buckets hold one distance each, the
  # others grow geometrically up to max_distance.
  each = num_buckets // 2 if bidirectional else num_buckets
  exact = each // 2
  starts = list(range(exact)) + [
    exact * (max_distance / exact) ** (k / (each - exact))
    for k in range(each - exact)
  ]

  def reference(relative):
    offset, distance = 0, -relative
    if bidirectional and distance < 0:
      offset, distance = each, -distance
    distance = max(distance, 0)
    return offset + sum(start <= distance + 1e-6 for start in starts) - 1

  relative = np.arange(-300, 301)
  got = attention.relative_position_bucket(
    relative,
    bidirectional=bidirectional,
    num_buckets=num_buckets,
    max_distance=max_distance,
  )
  np.testing.assert_array_equal(got, [reference(r) for r in relative])
