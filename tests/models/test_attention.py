"""Attention and relative buckets against float64 NumPy."""

import jax
import jax.numpy as jnp
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


def numpy_attention(params, x, memory, mask, bias, num_heads):
  def split(y):
    return y.reshape(*y.shape[:2], num_heads, -1)

  def kernel(name):
    return np.asarray(params[name]["kernel"], np.float64)

  q, k, v = (
    split(side @ kernel(name))
    for side, name in ((x, "query"), (memory, "key"), (memory, "value"))
  )
  scores = np.einsum("bthk,bshk->bhts", q, k) + bias
  scores = np.where(mask, scores, -1e10)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  mixed = np.einsum("bhts,bshk->bthk", weights, v)
  return mixed.reshape(*x.shape[:2], -1) @ kernel("out")


def test_attention_equals_numpy_without_dividing_scores():
  random = np.random.RandomState(0)
  x, memory = random.normal(size=(2, 3, 8)), random.normal(size=(2, 5, 8))
  bias = random.normal(size=(2, 3, 5))
  mask = random.rand(2, 1, 3, 5) < 0.7
  mask[0, :, 1] = False  # nothing to attend to: uniform, not NaN
  module = attention.Attention(8, 2, 6, 0.0, jnp.float32)
  arguments = (mask, bias.astype(np.float32), True)

  def run(module, x, memory):
    keys_values = module.keys_values(memory)
    return module(x, keys_values, *arguments)

  x32, memory32 = x.astype(np.float32), memory.astype(np.float32)
  variables = module.init(jax.random.key(0), x32, memory32, method=run)
  # Larger queries, so that the softmax is far from uniform.
  variables["params"]["query"]["kernel"] *= 6.0
  got = module.apply(variables, x32, memory32, method=run)
  want = numpy_attention(variables["params"], x, memory, mask, bias, 2)
  np.testing.assert_allclose(got, want, atol=1e-5)
  assert variables["params"]["query"]["kernel"].shape == (8, 12)
  assert variables["params"]["out"]["kernel"].shape == (12, 8)


def test_writing_keys_replaces_one_position():
  empty = attention.KeysValues(jnp.zeros((1, 4, 2, 3)), jnp.zeros((1, 4, 2, 3)))
  new = attention.KeysValues(
    jnp.full((1, 1, 2, 3), 5.0), jnp.full((1, 1, 2, 3), 7.0)
  )
  written = empty.write(new, jnp.int32(2))
  np.testing.assert_array_equal(written.keys[0, :, 0, 0], [0, 0, 5, 0])
  np.testing.assert_array_equal(written.values[0, :, 0, 0], [0, 0, 7, 0])


def test_relative_bias_is_a_row_per_head():
  buckets = np.array([[0, 1], [3, 0]])
  table = np.arange(8, dtype=np.float32).reshape(2, 4)
  bias = attention.RelativeBias(2, 4).apply(
    {"params": {"rel_embedding": table}}, buckets
  )
  np.testing.assert_array_equal(bias, table[:, buckets])
