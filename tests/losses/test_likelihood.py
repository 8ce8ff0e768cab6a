"""Cross-entropy against T5X's own losses and against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd.losses import likelihood

MODELS = ("t5_1_1_tiny", "t5_1_0_tiny", "t5_1_1_scan_tiny")
Z_LOSS = 1e-4  # of the fixtures

cross_entropy = functools.partial(
  jax.jit, static_argnames=("z_loss", "label_smoothing")
)(likelihood.cross_entropy)
sequence_log_probs = jax.jit(likelihood.sequence_log_probs)
coefficients_of = functools.partial(jax.jit, static_argnums=1)(
  masks.coefficients
)


@pytest.fixture(params=MODELS)
def forward(request, golden):
  """T5X's outputs of one model on batch.npz, the targets and the weights."""
  folder = golden / "t5x"
  outputs = np.load(folder / request.param / "forward_start.npz")
  batch = np.load(folder / "batch.npz")
  targets = batch["decoder_target_tokens"]
  return outputs, targets, batch["decoder_loss_weights"].astype(np.float32)


@pytest.mark.parametrize(
  ("name", "reduction"),
  [
    ("loss", "sum"),
    ("loss_NUM_REAL_TARGET_TOKENS", "token"),
    ("loss_AVERAGE_PER_SEQUENCE", "sequence"),
  ],
)
def test_loss_equals_t5x_under_each_normaliser(forward, name, reduction):
  outputs, targets, weights = forward
  values = cross_entropy(outputs["logits"], targets, z_loss=Z_LOSS)
  coefficients = coefficients_of(jnp.asarray(weights), reduction)
  np.testing.assert_allclose(
    jnp.sum(coefficients * values), outputs[name], rtol=1e-5
  )


def test_loss_over_all_positions_equals_t5x(forward):
  outputs, targets, weights = forward
  values = cross_entropy(outputs["logits"], targets, z_loss=Z_LOSS)
  np.testing.assert_allclose(
    jnp.sum(weights * values) / targets.size,
    outputs["loss_NUM_TOTAL_TARGET_TOKENS"],
    rtol=1e-5,
  )


def test_z_loss_equals_t5x(forward):
  outputs, targets, weights = forward
  plain = cross_entropy(outputs["logits"], targets)
  np.testing.assert_allclose(
    jnp.sum(weights * plain), outputs["metric_cross_ent_loss"], rtol=1e-5
  )
  both = cross_entropy(outputs["logits"], targets, z_loss=1.0)
  np.testing.assert_allclose(
    Z_LOSS * jnp.sum(weights * (both - plain)),
    outputs["metric_z_loss"],
    rtol=1e-5,
  )


def test_sequence_scores_equal_t5x(forward):
  outputs, targets, weights = forward
  np.testing.assert_allclose(
    sequence_log_probs(outputs["logits"], targets, weights),
    outputs["sequence_scores"],
    rtol=1e-5,
  )


@pytest.mark.parametrize("model", ["t5_1_1_tiny", "t5_1_0_tiny"])
def test_packed_losses_equal_t5x_and_the_unpacked(golden, model):
  """T5X divides by the real tokens; per sequence it cannot see the packing."""
  folder = golden / "t5x"
  packed = np.load(folder / "packed_batch.npz")
  outputs = np.load(folder / model / "forward_start_packed.npz")
  alone = np.load(folder / model / "forward_start.npz")
  values = cross_entropy(
    outputs["logits"], packed["decoder_target_tokens"], z_loss=Z_LOSS
  )
  weights = jnp.asarray(packed["decoder_loss_weights"])
  segments = jnp.asarray(packed["decoder_segment_ids"])
  for name, reduction in (
    ("loss", "sum"),
    ("loss_NUM_REAL_TARGET_TOKENS", "token"),
  ):
    coefficients = coefficients_of(weights, reduction, segments)
    np.testing.assert_allclose(
      jnp.sum(coefficients * values), outputs[name], rtol=1e-5
    )
  coefficients = coefficients_of(weights, "sequence", segments)
  np.testing.assert_allclose(
    jnp.sum(coefficients * values),
    alone["loss_AVERAGE_PER_SEQUENCE"],
    rtol=1e-5,
  )


def numpy_cross_entropy(logits, targets, z_loss, label_smoothing):
  """T5X's definition with an explicit soft one-hot, in float64."""
  logits = np.asarray(logits, np.float64)
  width = logits.shape[-1]
  log_z = np.log(np.exp(logits).sum(axis=-1))
  low = label_smoothing / (width - 1)
  soft = np.full(logits.shape, low)
  np.put_along_axis(soft, targets[..., None], 1 - label_smoothing, axis=-1)
  value = -(soft * (logits - log_z[..., None])).sum(axis=-1)
  with np.errstate(divide="ignore", invalid="ignore"):
    least = -np.where(soft > 0, soft * np.log(soft), 0).sum(axis=-1)
  return value - least + z_loss * log_z**2


@pytest.mark.parametrize("z_loss", [0.0, 0.01])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.6])
def test_cross_entropy_equals_float64(z_loss, label_smoothing):
  rng = np.random.RandomState(0)
  logits = 3 * rng.randn(2, 5, 17).astype(np.float32)
  targets = rng.randint(0, 17, (2, 5))
  np.testing.assert_allclose(
    cross_entropy(
      logits, targets, z_loss=z_loss, label_smoothing=label_smoothing
    ),
    numpy_cross_entropy(logits, targets, z_loss, label_smoothing),
    rtol=1e-5,
    atol=1e-6,
  )


def test_smoothed_cross_entropy_of_the_soft_target_is_zero():
  target, smoothing, width = 3, 0.2, 6
  soft = np.full(width, smoothing / (width - 1))
  soft[target] = 1 - smoothing
  value = cross_entropy(
    jnp.log(soft), jnp.array(target), label_smoothing=smoothing
  )
  np.testing.assert_allclose(value, 0, atol=1e-6)


def test_gradient_is_the_softmax_minus_the_target():
  rng = np.random.RandomState(1)
  logits, targets = rng.randn(4, 9).astype(np.float32), np.array([0, 8, 3, 1])
  gradient = jax.grad(lambda logits: cross_entropy(logits, targets).sum())(
    logits
  )
  softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(gradient, softmax - np.eye(9)[targets], atol=1e-6)


def test_uncounted_targets_may_be_impossible():
  logits = jnp.array([[[0.0, -jnp.inf], [0.0, -jnp.inf]]])
  score = sequence_log_probs(
    logits, jnp.array([[0, 1]]), jnp.array([[1.0, 0.0]])
  )
  np.testing.assert_array_equal(score, [0.0])


def test_bfloat16_logits_give_float32_losses():
  logits = jnp.asarray(np.random.RandomState(2).randn(3, 11), jnp.bfloat16)
  targets = np.array([1, 2, 3])
  value = cross_entropy(logits, targets)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(
    value,
    numpy_cross_entropy(np.asarray(logits, np.float64), targets, 0.0, 0.0),
    rtol=1e-5,
  )
