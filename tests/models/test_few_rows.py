"""Products of a few vectors with a large matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.models import few_rows
from gkd.models import layers


@pytest.mark.parametrize("shape", [(3,), (1, 3), (8, 1, 3), (64, 3), (65, 3)])
def test_a_product_and_its_gradients_are_those_of_float64(shape):
  random = np.random.RandomState(0)
  x, kernel = random.normal(size=shape), random.normal(size=(3, 5))
  weights = random.normal(size=(*shape[:-1], 5))

  def total(x, kernel):
    return jnp.sum(weights * few_rows.dot(x, kernel, kernel.T))

  y = few_rows.dot(*map(jnp.float32, (x, kernel, kernel.T)))
  dx, dkernel = jax.jit(jax.grad(total, argnums=(0, 1)))(
    jnp.float32(x), jnp.float32(kernel)
  )
  rows, outer = x.reshape(-1, 3), weights.reshape(-1, 5)
  np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
  np.testing.assert_allclose(dx, weights @ kernel.T, atol=1e-5)
  np.testing.assert_allclose(dkernel, rows.T @ outer, atol=2e-5)


def test_a_product_in_bfloat16_is_summed_in_float32():
  random = np.random.RandomState(0)
  x, kernel = random.normal(size=(4, 300)), random.normal(size=(300, 5))
  rounded = [a.astype(jnp.bfloat16) for a in (x, kernel)]
  y = few_rows.rounded_dot(jnp.float32(x), jnp.asarray(rounded[1]))
  expected = np.matmul(*(a.astype(np.float64) for a in rounded))
  assert y.dtype == jnp.float32
  np.testing.assert_allclose(y, expected, atol=1e-4)
  transposed = jnp.asarray(rounded[1].T)
  y = few_rows.dot(jnp.float32(x), transposed.T, transposed)
  np.testing.assert_allclose(y, expected, atol=1e-4)


def test_few_rows_are_on_the_right_and_many_on_the_left():
  def sides(rows):
    x, kernel = jnp.zeros((rows, 512)), jnp.zeros((512, 1024))
    compiled = jax.jit(few_rows.dot).lower(x, kernel, kernel.T).compile()
    return f"f32[1024,{rows}]" in compiled.as_text()

  assert [sides(8), sides(65)] == [True, False]


def test_large_kernels_get_transposes_which_layers_use_for_few_rows():
  large = np.random.RandomState(0).normal(size=(512, 256)).astype(np.float32)
  params = {"layer": {"kernel": large}, "small": {"kernel": large[:2, :2]}}
  prepared, other = few_rows.prepared((params, {"scale": large}), None)
  np.testing.assert_array_equal(prepared["layer"]["transposed"], large.T)
  assert prepared["small"].keys() == {"kernel"}
  assert other.keys() == {"scale"}
  dense = layers.Dense(256, "float32")
  # Which of the two it reads is seen where they differ.
  other = {**prepared["layer"], "transposed": 2 * large.T}
  for rows, factor in ((64, 2), (65, 1)):
    y = dense.apply({"params": other}, jnp.ones((rows, 1, 512)))
    np.testing.assert_allclose(
      y[:, 0], np.tile(factor * large.sum(0), (rows, 1)), rtol=1e-3, atol=1e-3
    )
