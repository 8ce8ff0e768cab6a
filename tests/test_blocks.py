"""The k largest of many, block by block."""

import jax
import numpy as np
import pytest

from gkd import blocks

top_k = jax.jit(blocks.top_k, static_argnums=1)


@pytest.mark.parametrize("width", [3, 128, 129, 1000])
@pytest.mark.parametrize("k", [1, 8])
def test_top_k_equals_a_stable_sort_with_ties(width, k):
  rng = np.random.default_rng(width)
  # Few different numbers, so that many are equal.
  logits = rng.integers(-3, 4, (5, 2, width)).astype(np.float32)
  logits[0, 0, 1:] = -np.inf
  values, ids = top_k(logits, k)
  order = np.argsort(-logits, axis=-1, kind="stable")[..., :k]
  expected = np.take_along_axis(logits, order, -1)
  there = np.isfinite(expected)
  assert values.shape == ids.shape == (5, 2, k)
  n = order.shape[-1]
  np.testing.assert_array_equal(values[..., :n], expected)
  np.testing.assert_array_equal(np.asarray(ids)[..., :n][there], order[there])
  assert np.isneginf(np.asarray(values)[..., n:]).all()
  assert (np.asarray(ids) < width).all()


@pytest.mark.parametrize("width", [3, 128, 129, 1000])
def test_largest_is_the_first_of_equals_on_any_device(width):
  rng = np.random.default_rng(width)
  logits = rng.integers(-3, 4, (5, 2, width)).astype(np.float32)
  largest = jax.jit(blocks.largest)
  np.testing.assert_array_equal(largest(logits), np.argmax(logits, axis=-1))
  # Blocks of a vocabulary that is split over devices would be gathered.
  traced = largest.trace(logits)
  on_tpu = traced.lower(lowering_platforms=("tpu",)).as_text()
  assert "reshape" not in on_tpu
  assert "reshape" in traced.lower(lowering_platforms=("cpu",)).as_text()
