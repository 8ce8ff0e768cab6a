"""Intervals: NumPy's own resampling, coverage, seeds, and what is resampled."""

import math

import numpy as np
import pytest

from gkd.evaluation import bootstrap
from gkd.evaluation import scores
from gkd.text.statistics import means


def _interval(values, resamples=400, seed=0, num_samples=1):
  measure = scores.summed([means({"x": values})] * num_samples)
  found = bootstrap.scores(
    [measure], len(values), resamples=resamples, seed=seed
  )
  return found["x"][1:3]


def test_interval_is_that_of_plain_resampling():
  values = np.random.default_rng(3).gamma(1.0, size=150)
  generator = np.random.default_rng(4)
  drawn = [generator.choice(values, len(values)).mean() for _ in range(20_000)]
  low, high = np.percentile(drawn, (2.5, 97.5))
  found = _interval(values, resamples=20_000)
  # The ends' own standard error: 0.5 % of the interval with so many resamples.
  assert found == pytest.approx((low, high), abs=0.02 * (high - low))


def test_seed_alone_decides_and_the_size_of_a_block_does_not(monkeypatch):
  values = np.random.default_rng(0).random(50)
  first = _interval(values)
  assert _interval(values) == first
  assert _interval(values, seed=1) != first
  monkeypatch.setattr(bootstrap, "_BLOCK", 130)  # two resamples at once
  assert _interval(values) == first


def test_all_metrics_are_measured_on_the_same_resamples():
  values = np.random.default_rng(0).random(50)
  measures = [
    scores.summed([means({"x": values})]),
    scores.summed([means({"y": 1 - values})]),
  ]
  found = bootstrap.scores(measures, 50, resamples=100, seed=0)
  _, low, high, _ = found["x"]
  assert found["y"][1:3] == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_samples_of_a_prompt_are_resampled_together():
  # Twice the same answers are no more evidence than once: were samples
  # resampled one by one, the interval would be shorter by √2.
  hits = np.random.default_rng(0).random(100) < 0.5
  assert _interval(hits) == _interval(hits, num_samples=2)


def test_interval_is_absent_without_resamples_and_nan_where_none_is_finite():
  assert _interval([1], resamples=0) == (None, None)
  assert all(map(math.isnan, _interval([1.0, math.inf, 2.0])))
