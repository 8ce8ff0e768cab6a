"""Shifts, masks and normalisers, each against a loop written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks

# Tokens that count in each row; one row is empty.
WEIGHTS = np.array(
  [[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]], np.float32
)
REDUCTIONS = ("sequence", "token", "sum")
reductions = pytest.mark.parametrize("reduction", REDUCTIONS)


def reduce_by_loop(values, weights, reduction):
  """The loss as its definition says it, sequence by sequence."""
  sums = [float((v * w).sum()) for v, w in zip(values, weights, strict=True)]
  counts = [float(w.sum()) for w in weights]
  if reduction == "sum":
    return sum(sums)
  if reduction == "token":
    return sum(sums) / sum(counts)
  means = [s / n for s, n in zip(sums, counts, strict=True) if n]
  return sum(means) / len(means)


def test_shift_right_equals_t5x(golden):
  batch = np.load(golden / "t5x" / "batch.npz")
  shifted = masks.shift_right(jnp.asarray(batch["decoder_target_tokens"]), 0)
  np.testing.assert_array_equal(shifted, batch["decoder_input_tokens"])


def test_padded_ids_get_no_probability_and_no_gradient():
  logits = jnp.arange(10.0).reshape(2, 5)

  def first_log_prob(logits):
    masked = masks.mask_padded_ids(logits, 3)
    return jnp.sum(jax.nn.log_softmax(masked)[:, 0])

  masked = masks.mask_padded_ids(logits, 3)
  assert np.isneginf(np.asarray(masked[:, 3:])).all()
  np.testing.assert_array_equal(masked[:, :3], logits[:, :3])
  gradient = jax.grad(first_log_prob)(logits)
  assert np.isfinite(np.asarray(gradient)).all()
  assert not np.asarray(gradient[:, 3:]).any()


def test_width_cuts_columns_and_forbidden_ids_are_masked():
  masked = masks.mask_padded_ids(
    jnp.zeros((1, 6)), 3, width=4, forbidden_ids=(0,)
  )
  np.testing.assert_array_equal(masked, [[-np.inf, 0, 0, -np.inf]])


@reductions
def test_coefficients_equal_the_definition(reduction):
  values = np.random.RandomState(0).randn(*WEIGHTS.shape)
  coefficients = masks.coefficients(jnp.asarray(WEIGHTS), reduction)
  np.testing.assert_allclose(
    np.sum(np.asarray(coefficients) * values),
    reduce_by_loop(values, WEIGHTS, reduction),
    rtol=1e-5,
  )


@reductions
def test_padding_and_filler_rows_change_no_coefficient(reduction):
  plain = masks.coefficients(jnp.asarray(WEIGHTS), reduction)
  padded = masks.coefficients(
    jnp.asarray(np.pad(WEIGHTS, [(0, 2), (0, 3)])), reduction
  )
  np.testing.assert_allclose(padded[:4, :4], plain, rtol=1e-6)
  assert not np.asarray(padded[4:]).any()
  assert not np.asarray(padded[:, 4:]).any()


@reductions
def test_packed_coefficients_equal_the_unpacked(reduction):
  """Rows of 4, 1, 0 and 2 tokens packed as [4 tokens], [1 + 2 tokens]."""
  apart = np.asarray(masks.coefficients(jnp.asarray(WEIGHTS), reduction))
  weights = jnp.array([[1.0, 1, 1, 1], [1, 1, 1, 0]])
  segments = jnp.array([[1, 1, 1, 1], [1, 2, 2, 0]])
  packed = masks.coefficients(weights, reduction, segments)
  np.testing.assert_allclose(
    packed,
    [apart[0], [apart[1, 0], apart[3, 0], apart[3, 1], 0]],
    rtol=1e-6,
  )


@reductions
def test_a_batch_without_tokens_has_zero_coefficients(reduction):
  coefficients = masks.coefficients(jnp.zeros((2, 3)), reduction)
  np.testing.assert_array_equal(coefficients, np.zeros((2, 3)))


def test_each_sequence_weighs_the_same_only_under_sequence():
  by_row = {
    reduction: np.asarray(
      masks.coefficients(jnp.asarray(WEIGHTS), reduction)
    ).sum(axis=1)
    for reduction in REDUCTIONS
  }
  np.testing.assert_allclose(by_row["sequence"], [1 / 3, 1 / 3, 0, 1 / 3])
  np.testing.assert_allclose(by_row["token"], [4 / 7, 1 / 7, 0, 2 / 7])
  np.testing.assert_allclose(by_row["sum"], [4, 1, 0, 2])


def test_an_unknown_reduction_is_named():
  with pytest.raises(ValueError, match=r"unknown reduction 'mean'.*'sequence'"):
    masks.coefficients(jnp.ones((1, 1)), "mean")
