"""Cross-entropy against T5X's own losses and against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd import trees
from gkd.losses import likelihood
from gkd.models import t5
from tests import golden_t5x

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


def test_losses_and_scores_of_t5xs_logits_equal_t5x(forward):
  outputs, targets, weights = forward
  logits = outputs["logits"]
  values = cross_entropy(logits, targets, z_loss=Z_LOSS)
  plain = cross_entropy(logits, targets)
  z_loss = Z_LOSS * (cross_entropy(logits, targets, z_loss=1.0) - plain)
  scores = sequence_log_probs(logits, targets, weights)
  np.testing.assert_allclose(scores, outputs["sequence_scores"], rtol=1e-5)
  reductions = reductions_of(weights)
  for name, per_token, coefficients in [
    *((name, values, part) for name, part in reductions.items()),
    ("metric_cross_ent_loss", plain, weights),
    ("metric_z_loss", z_loss, weights),
  ]:
    np.testing.assert_allclose(
      jnp.sum(coefficients * per_token), outputs[name], rtol=1e-5, err_msg=name
    )


def reductions_of(weights, segments=None):
  """{name of T5X's loss: coefficients}."""
  return {
    "loss": coefficients_of(weights, "sum"),
    "loss_NUM_REAL_TARGET_TOKENS": coefficients_of(weights, "token"),
    "loss_NUM_TOTAL_TARGET_TOKENS": weights / weights.size,
    "loss_AVERAGE_PER_SEQUENCE": coefficients_of(weights, "sequence", segments),
  }


# Outputs of T5X, the batch, and the parameters that made them.
SCORED = [
  ("forward_start", "batch", "params_start.npz"),
  ("forward_end10", "batch", "legacy_checkpoint_10.tar.gz"),
  ("forward_start_packed", "packed_batch", "params_start.npz"),
]


@pytest.fixture(scope="module", params=MODELS[:2])
def scored(request, golden):
  """`scored(outputs, batch, params)`: T5X's outputs, our batch and model."""
  name = request.param
  config = t5.T5Config(**golden_t5x.SIZE, **golden_t5x.MODELS[name][0])
  model = t5.encoder_decoder(config)

  def scored(outputs, batch, params):
    folder = golden / "t5x"
    file = folder / name / params
    is_archive = file.suffix == ".gz"
    read = golden_t5x.checkpoint_target if is_archive else golden_t5x.load
    arrays = golden_t5x.load(folder / f"{batch}.npz")
    expected = golden_t5x.load(folder / name / f"{outputs}.npz")
    return (
      expected,
      golden_t5x.batch_of(arrays),
      model,
      trees.unflatten(read(file)),
    )

  return scored


@functools.partial(jax.jit, static_argnums=0)
def values_and_scores(model, params, batch):
  """Cross-entropy per token; `score_batch`, in chunks of two sizes."""
  logits = model.logits(
    params, batch.inputs, batch.targets, segments=batch.segments
  )
  return (
    cross_entropy(logits, batch.targets, z_loss=Z_LOSS),
    likelihood.score_batch(model, params, batch),
    likelihood.score_batch(model, params, batch, chunk_size=4),
  )


@pytest.mark.parametrize(("outputs", "batch", "params"), SCORED)
def test_the_models_losses_and_scores_equal_t5x(scored, outputs, batch, params):
  """From parameters and tokens to each number that T5X wrote."""
  expected, batch, model, params = scored(outputs, batch, params)
  values, scores, chunked = values_and_scores(model, params, batch)
  segments = batch.segments.targets if batch.segments else None
  for name, coefficients in reductions_of(batch.weights, segments).items():
    np.testing.assert_allclose(
      jnp.sum(coefficients * values), expected[name], rtol=1e-5, err_msg=name
    )
  for ours in (scores, chunked):
    np.testing.assert_allclose(ours, expected["sequence_scores"], rtol=1e-5)


def test_a_packed_batch_equals_the_unpacked(scored):
  """The same four examples, two to a row: losses and scores."""
  _, alone, model, params = scored(*SCORED[0])
  _, packed, _, _ = scored(*SCORED[2])
  found = []
  for batch in (alone, packed):
    values, scores, _ = values_and_scores(model, params, batch)
    segments = batch.segments.targets if batch.segments else None
    losses = [
      jnp.sum(coefficients_of(batch.weights, reduction, segments) * values)
      for reduction in ("sum", "token", "sequence")
    ]
    found.append([*losses, *scores.reshape(2, -1).sum(axis=1)])
  np.testing.assert_allclose(*found, rtol=1e-5)


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
