"""Which checkpoints stay."""

import math

import pytest

from gkd.checkpoints.retention import PreservationPolicy
from gkd.checkpoints.store import Store
from gkd.types import UserError

STEPS = range(10, 101, 10)


def test_the_newest_the_best_and_every_nth():
  values = {10: 0.1, 20: 0.9, 50: 0.8, 90: 0.2}
  assert PreservationPolicy(latest=2).choose(STEPS, values) == {90, 100}
  assert PreservationPolicy(latest=1, every=40).choose(STEPS, values) == {
    40,
    80,
    100,
  }
  best = {"best": 2, "metric": "m"}
  assert PreservationPolicy(latest=1, **best).choose(STEPS, values) == {
    20,
    50,
    100,
  }
  least = PreservationPolicy(latest=1, mode="min", **best)
  assert least.choose(STEPS, values) == {10, 90, 100}
  assert PreservationPolicy(latest=3).choose([7], {}) == {7}


def test_only_evaluated_steps_with_a_number_can_be_best():
  keep = PreservationPolicy(latest=1, best=2, metric="m")
  values = {10: math.nan, 20: math.inf, 30: 0.5, 35: 9.0}
  assert keep.choose(STEPS, values) == {30, 100}


def test_of_equals_the_first_is_best_whenever_it_is_asked():
  keep = PreservationPolicy(latest=1, best=1, metric="m")
  for last in STEPS:
    chosen = keep.choose(range(10, last + 1, 10), dict.fromkeys(STEPS, 0.5))
    assert chosen == {10, last}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"latest": 0}, "KEEP is 0; give at least 1"),
    ({"every": -1}, "KEEP_EVERY is -1; give at least 0"),
    ({"best": -1}, "KEEP_BEST is -1"),
    ({"best": 1}, "KEEP_BEST is 1 but BEST_METRIC is empty"),
    ({"metric": "m"}, "no effect without KEEP_BEST"),
    ({"mode": "min"}, "no effect without KEEP_BEST"),
    ({"best": 1, "metric": "m", "mode": "best"}, "BEST_MODE is 'best'"),
  ],
)
def test_impossible_choices_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    PreservationPolicy(**fields)


def test_a_store_keeps_the_latest(tmp_path):
  with Store(tmp_path, PreservationPolicy(latest=2)) as store:
    for step in (1, 2, 3, 10):
      store.save(step, {"x": step})
    assert store.steps() == [3, 10]
  assert sorted(f.name for f in tmp_path.iterdir()) == ["00000003", "00000010"]


def test_a_store_keeps_the_best(tmp_path):
  keep = PreservationPolicy(latest=1, best=1, metric="m", mode="min")
  with Store(tmp_path, keep) as store:
    for step, value in ((1, 0.5), (2, 0.3), (3, 0.4), (4, 0.6)):
      store.values[step] = value
      store.save(step, {"x": step})
    assert store.steps() == [2, 4]
  again = Store(tmp_path, PreservationPolicy(latest=1))
  again.prune(4)
  assert again.steps() == [4]
