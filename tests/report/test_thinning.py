"""Long curves lose points, never extremes."""

import numpy as np
import pytest

from gkd.report import thinning
from gkd.report.thinning import Line


def _line(values):
  values = list(values)
  return Line(list(range(1, len(values) + 1)), values, values, values)


def test_curve_of_few_points_stays_as_it_is():
  line = _line(np.arange(400.0))
  assert thinning.thin(line) is line


@pytest.mark.parametrize("count", [401, 999, 20_000])
def test_long_curve_is_means_in_a_band_of_its_extremes(count):
  values = np.random.default_rng(0).normal(size=count)
  values[count // 3], values[-2] = 1e6, -1e6  # spikes of a single step
  thin = thinning.thin(_line(values))
  assert len(thin.xs) == 200
  assert max(thin.high) == 1e6
  assert min(thin.low) == -1e6
  assert thin.xs[-1] == count
  # All points count once: a mean over equal stretches is the mean of all.
  start = 0
  for place, end in enumerate(thin.xs):
    part = values[start:end]
    assert 1 <= len(part) <= -(-count // 200)
    np.testing.assert_allclose(thin.ys[place], part.mean(), rtol=1e-9)
    assert (thin.low[place], thin.high[place]) == (part.min(), part.max())
    start = end
  assert start == count
