"""Chunks of positions: the dense result, without a [B, T, V] array."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd.losses import divergence
from gkd.losses.chunked import loss_over_chunks
from gkd.losses.chunked import sum_over_chunks
from gkd.losses.objective import Distillation
from gkd.losses.objective import Scored
from gkd.metrics import Mean
from gkd.types import Batch

B, T, D, E, V = 3, 10, 8, 12, 64


@pytest.fixture(scope="module")
def problem():
  rng = np.random.RandomState(0)

  def normal(*shape):
    return jnp.asarray(rng.randn(*shape), jnp.float32)

  lengths = np.array([10, 4, 7])
  weights = jnp.asarray(np.arange(T) < lengths[:, None], jnp.float32)
  batch = Batch(
    inputs=jnp.ones((B, 2), jnp.int32),
    input_mask=jnp.ones((B, 2), bool),
    targets=jnp.asarray(rng.randint(2, 50, (B, T))),
    weights=weights,
    rows=jnp.arange(B),
    source=jnp.arange(B),
  )
  trained = normal(B, T, D), normal(D, V)
  return trained, normal(B, T, E), normal(E, V + 4), batch


@functools.cache
def loss_and_gradient(chunk_size):
  """Compiled: problem -> ((loss, metrics), gradients)."""
  kind = divergence.GeneralizedJSD(0.3)
  objective = Distillation(kind, 0.5, 1.0, chunk_size)

  def loss(trained, teacher_hidden, teacher_kernel, batch):
    hidden, kernel = trained
    return objective(
      Scored(hidden, lambda h: h @ kernel),
      {"teacher": Scored(teacher_hidden, lambda h: h @ teacher_kernel)},
      batch,
      masks.coefficients(batch.weights, "sequence"),
      vocabulary_size=60,
    )

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


# Divides T, does not, more than all.
@pytest.mark.parametrize("chunk_size", [5, 4, 64])
def test_chunked_equals_dense_in_value_metrics_and_gradient(
  problem, chunk_size
):
  (loss, measured), gradients = loss_and_gradient(None)(*problem)
  (chunked, parts), chunked_gradients = loss_and_gradient(chunk_size)(*problem)
  np.testing.assert_allclose(chunked, loss, rtol=1e-6)
  for ours, dense in zip(chunked_gradients, gradients, strict=True):
    assert np.abs(np.asarray(dense)).max() > 1e-3
    np.testing.assert_allclose(ours, dense, rtol=1e-5, atol=1e-7)
  assert parts.keys() == measured.keys()
  for name, mean in measured.items():
    np.testing.assert_allclose(
      [parts[name].total, parts[name].count],
      [mean.total, mean.count],
      rtol=1e-5,
      err_msg=name,
    )


def test_sum_over_chunks_adds_up_any_tree_of_sums():
  arrays = {"x": jnp.arange(14.0).reshape(2, 7), "y": jnp.ones((2, 7, 3))}

  def function(part):
    return {"x": jnp.sum(part["x"], axis=1), "y": jnp.sum(part["y"])}

  sums = sum_over_chunks(function, arrays, 3)
  np.testing.assert_array_equal(sums["x"], [21.0, 70.0])
  assert sums["y"] == 42


def test_chunks_of_t5_small_hold_no_array_of_all_logits():
  """B 8, T 512, V 32,128, D 512: a quarter of the dense form's memory."""
  rows, length, width, features = 8, 512, 32128, 512

  def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)

  hidden, table = array(rows, length, features), array(features, width)
  ids = functools.partial(array, dtype=jnp.int32)
  batch = Batch(
    inputs=ids(rows, 2),
    input_mask=array(rows, 2, dtype=bool),
    targets=ids(rows, length),
    weights=array(rows, length),
    rows=ids(rows),
    source=ids(rows),
  )

  def compiled(chunk_size):
    step = loss_and_gradient(chunk_size)
    return step.lower((hidden, table), hidden, table, batch).compile()

  logits = f"[{rows},{length},{width}]"
  dense, chunked = compiled(None), compiled(64)
  assert logits in dense.as_text()
  assert logits not in chunked.as_text()
  used, whole = (
    program.memory_analysis().temp_size_in_bytes for program in (chunked, dense)
  )
  assert used < whole / 4


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_only_the_head_and_its_states_have_a_gradient(chunk_size):
  def loss(hidden, kernel, scale):
    def function(logits, scale):
      total = jnp.sum(jnp.square(logits) * scale[..., None])
      return total, {"mean": Mean.of(logits[..., 0])}

    total, metrics = loss_over_chunks(
      function, lambda h: h @ kernel, hidden, scale, chunk_size
    )
    return total + metrics["mean"].total

  arrays = jnp.ones((2, 3, 4)), jnp.ones((4, 5)), jnp.ones((2, 3))
  by_hidden, by_kernel, by_scale = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
  np.testing.assert_array_equal(by_hidden, 2 * 4 * 5 * jnp.ones((2, 3, 4)))
  np.testing.assert_array_equal(by_kernel, 2 * 4 * 6 * jnp.ones((4, 5)))
  assert not by_scale.any()
