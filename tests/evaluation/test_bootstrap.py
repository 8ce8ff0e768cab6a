"""Intervals: NumPy's own resampling, coverage, seeds, and what is resampled."""

import math

import numpy as np
import pytest

from gkd.evaluation import bootstrap
from gkd.evaluation import scores
from gkd.text.statistics import means


def _interval(values, resamples=400, seed=0):
  measure = scores.summed([means({"x": values})])
  found = bootstrap.intervals([measure], len(values), resamples, seed)
  return found["x"]


def test_interval_is_that_of_plain_resampling():
  values = np.random.default_rng(3).gamma(1.0, size=150)
  generator = np.random.default_rng(4)
  drawn = [generator.choice(values, len(values)).mean() for _ in range(20_000)]
  low, high = np.percentile(drawn, (2.5, 97.5))
  found = _interval(values, resamples=20_000)
  # The ends' own standard error: 0.5 % of the interval with so many resamples.
  assert found == pytest.approx((low, high), abs=0.02 * (high - low))


def test_interval_covers_the_true_share_as_often_as_it_says():
  share, number, trials = 0.3, 200, 400
  generator = np.random.default_rng(0)
  covered = 0
  for seed in range(trials):
    hits = generator.random(number) < share
    low, high = _interval(hits, seed=seed)
    covered += low <= share <= high
  # 95 %, less a little for the percentile method on 200 examples; the standard
  # error over 400 trials is 1.1 points.
  assert 0.91 < covered / trials < 0.98


def test_interval_shrinks_with_the_root_of_the_number_of_prompts():
  generator = np.random.default_rng(0)
  widths = []
  for number in (100, 1600):
    low, high = _interval(generator.random(number), resamples=2000)
    widths.append(high - low)
  assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


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
  found = bootstrap.intervals(measures, 50, 100, seed=0)
  low, high = found["x"]
  assert found["y"] == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_samples_of_a_prompt_are_resampled_together():
  # Twice the same answers are no more evidence than once: were samples
  # resampled one by one, the interval would be shorter by √2.
  hits = np.random.default_rng(0).random(100) < 0.5
  once = scores.summed([means({"x": hits})])
  twice = scores.summed([means({"x": hits})] * 2)
  found = [
    bootstrap.intervals([measure], 100, 200, seed=0)["x"]
    for measure in (once, twice)
  ]
  assert found[0] == found[1]


def test_nothing_is_resampled_where_no_resamples_are_asked_for():
  assert (
    bootstrap.intervals([scores.summed([means({"x": [1]})])], 1, 0, 0) == {}
  )


def test_values_that_are_not_finite_have_no_ends():
  low, high = _interval([1.0, math.inf, 2.0])
  assert math.isnan(low)
  assert math.isnan(high)
