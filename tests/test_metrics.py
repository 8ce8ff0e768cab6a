"""Means that merge: never an average of averages."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import metrics
from gkd.metrics import Mean


def test_merged_parts_equal_the_mean_of_the_whole():
  rng = np.random.RandomState(0)
  values, weights = rng.randn(10), rng.randint(0, 3, 10).astype(float)
  parts = [
    Mean.of(values[part], weights[part])
    for part in (slice(0, 1), slice(1, 8), slice(8, 10))
  ]
  merged = parts[0].merge(parts[1]).merge(parts[2])
  np.testing.assert_allclose(
    merged.compute(), np.average(values, weights=weights), rtol=1e-6
  )
  averages = [part.compute() for part in parts if part.count]
  assert abs(np.mean(averages) - merged.compute()) > 1e-3


@pytest.mark.parametrize(
  ("values", "weights", "expected"),
  [
    ([1.0, 3.0], None, 2),
    ([True, False, True, True], None, 0.75),
    ([2.0, np.inf, np.nan], [1, 0, 0], 2),  # anything under weight 0
    ([[1.0, 2.0], [3.0, 5.0]], [[1.0], [0.0]], 1.5),  # weights broadcast
  ],
)
def test_a_mean_is_that_of_the_values_that_have_weight(
  values, weights, expected
):
  weights = None if weights is None else jnp.array(weights)
  assert Mean.of(jnp.array(values), weights).compute() == expected


def test_nothing_counted_is_nan_and_left_out_of_a_report():
  empty = Mean.of(jnp.ones(2), jnp.zeros(2))
  assert math.isnan(empty.compute())
  assert metrics.compute({"empty": empty, "one": Mean.of(jnp.ones(1))}) == {
    "one": 1.0
  }


def test_merge_takes_names_that_some_states_lack():
  merged = metrics.merge(
    [
      {"a": Mean.of(jnp.array([1.0]))},
      {"a": Mean.of(jnp.array([2.0, 3.0])), "b": Mean.of(jnp.array([7.0]))},
    ]
  )
  assert metrics.compute(merged) == {"a": 2.0, "b": 7.0}


def test_means_pass_through_compiled_code_as_trees():
  double = jax.jit(lambda mean: mean.merge(mean))
  doubled = double(Mean.of(jnp.array([1.0, 2.0])))
  assert float(doubled.count) == 4
  assert doubled.compute() == 1.5


def test_packed_means_are_those_that_were_packed():
  means = {"a": Mean.of(jnp.float32([1, 3])), "b": Mean(2.5, 0.0)}
  packed = jax.jit(metrics.Packed.of)(means)
  assert list(packed) == ["a", "b"]
  assert packed["a"].compute() == 2
  assert (float(packed["b"].total), float(packed["b"].count)) == (2.5, 0)
  with pytest.raises(KeyError, match="c"):
    packed["c"]
  ((array,), _) = jax.tree.flatten(jax.device_get(packed))
  assert array.shape == (2, 2)
