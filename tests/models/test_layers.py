"""Layers against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.models import layers


def test_rms_norm_equals_numpy():
  random = np.random.RandomState(0)
  # Small enough for the epsilon to matter.
  x = 1e-3 * random.normal(size=(3, 8))
  scale = random.normal(size=8)
  got = layers.RMSNorm(1e-6, jnp.float32).apply(
    {"params": {"scale": scale.astype(np.float32)}}, x.astype(np.float32)
  )
  want = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_rms_norm_of_bfloat16_is_computed_in_float32():
  x = jnp.linspace(0.1, 3.0, 512).astype(jnp.bfloat16)
  norm = layers.RMSNorm(1e-6, jnp.bfloat16)
  got = norm.apply({"params": {"scale": jnp.ones(512)}}, x)
  wide = np.asarray(x, np.float64)
  want = wide / np.sqrt((wide**2).mean())
  assert got.dtype == jnp.bfloat16
  # A single rounding: half a unit in the last of 8 bits.
  np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8)


def test_embedding_looks_up_and_refuses_unknown_ids():
  table = np.random.RandomState(0).normal(size=(5, 4)).astype(np.float32)
  embedding = layers.Embedding(5, 4, jnp.float32)
  got = embedding.apply(
    {"params": {"embedding": table}}, np.array([[3, 0], [4, 5]])
  )
  np.testing.assert_array_equal(got[0], table[[3, 0]])
  np.testing.assert_array_equal(got[1, 0], table[4])
  assert np.isnan(got[1, 1]).all()


def test_dropout_has_one_mask_for_all_positions_and_keeps_the_mean():
  x = np.ones((4, 5, 500), np.float32)
  got = np.asarray(
    layers.dropout(0.25).apply(
      {}, x, False, rngs={"dropout": jax.random.key(0)}
    )
  )
  np.testing.assert_array_equal(got, np.repeat(got[:, :1], 5, axis=1))
  np.testing.assert_allclose(np.unique(got), [0, 1 / 0.75])
  assert got.mean() == pytest.approx(1, abs=0.05)
  assert not (got[0] == got[1]).all()
