"""Long curves lose points, never extremes."""

import numpy as np
import pytest

from gkd.report.downsample import Line
from gkd.report.downsample import downsample


def line_of(values):
  values = list(values)
  return Line(list(range(1, len(values) + 1)), values, values, values)


def test_curve_of_few_points_stays_as_it_is():
  line = line_of(np.arange(400.0))
  assert downsample(line) is line


@pytest.mark.parametrize("count", [401, 999, 20_000])
def test_long_curve_is_means_in_a_band_of_its_extremes(count):
  values = np.random.default_rng(0).normal(size=count)
  values[count // 3], values[-2] = 1e6, -1e6  # spikes of a single step
  found = downsample(line_of(values))
  assert len(found.xs) == 200
  assert found.xs[-1] == count
  # All points count once.
  start = 0
  for place, end in enumerate(found.xs):
    part = values[start:end]
    assert 1 <= len(part) <= -(-count // 200)
    np.testing.assert_allclose(found.ys[place], part.mean(), rtol=1e-9)
    assert (found.low[place], found.high[place]) == (part.min(), part.max())
    start = end
  assert start == count
