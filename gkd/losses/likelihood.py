"""Cross-entropy as T5X computes it, and log-probabilities of sequences.

Per token, unreduced: masks.py has the normalisers. Cross-entropy runs over all
columns of the logits, padded vocabulary rows included, as in T5X.

Source: t5x/losses.py (`cross_entropy_with_logits`,
`compute_weighted_cross_entropy`) and `score_batch` of t5x/models.py.
"""

import jax
import jax.numpy as jnp

from gkd import masks
from gkd.losses.chunked import sum_over_chunks
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params


def cross_entropy(
  logits: Array,
  targets: Array,
  *,
  z_loss: float = 0.0,
  label_smoothing: float = 0.0,
) -> Array:
  """-sum_v y_v log softmax(logits)_v - H(y) + z_loss (log Z)^2 per token.

  y puts 1-s on the target and s/(V-1) on every other id, s = label_smoothing;
  its entropy is subtracted so that a perfect prediction scores 0.

  Args:
    logits: [..., V] raw logits.
    targets: [...] int ids.
    z_loss: coefficient that keeps log Z = logsumexp(logits) near 0; T5X
      trains with 1e-4.
    label_smoothing: s, in [0, 1).

  Returns:
    [...] float32 nats.

  >>> value = cross_entropy(jnp.zeros((1, 4)), jnp.array([2]))
  >>> print(f"{value[0]:.4f}")
  1.3863
  """
  logits = logits.astype(jnp.float32)
  log_q = jax.nn.log_softmax(logits)
  value = -_select(log_q, targets)
  if label_smoothing:
    width = logits.shape[-1]
    low = label_smoothing / (width - 1)
    high = 1.0 - label_smoothing
    # sum_v y_v log q_v with two distinct weights: no [..., V] array of y.
    value = -(high - low) * _select(log_q, targets) - low * jnp.sum(
      log_q, axis=-1
    )
    value += high * jnp.log(high) + (width - 1) * low * jnp.log(low)
  if z_loss:
    log_z = jax.nn.logsumexp(logits, axis=-1)
    value += z_loss * jnp.square(log_z)
  return value


def token_log_probs(logits: Array, targets: Array) -> Array:
  """Log softmax(logits) of each target: [..., V], [...] -> [...] float32."""
  return _select(jax.nn.log_softmax(logits.astype(jnp.float32)), targets)


def sequence_log_probs(logits: Array, targets: Array, weights: Array) -> Array:
  """Log p(y|x) of each row: sum of its counted targets' log-probabilities.

  Equals T5X's `score_batch` (no z-loss, not divided by the length).

  Args:
    logits: [B, T, V] raw logits, aligned with targets.
    targets: [B, T] int ids.
    weights: [B, T]; targets of weight 0 may hold anything.

  Returns:
    [B] float32 nats.
  """
  log_probs = token_log_probs(logits, targets)
  return jnp.sum(jnp.where(weights > 0, log_probs * weights, 0.0), axis=-1)


def score_batch(
  model: LanguageModel, params: Params, batch: Batch, chunk_size: int = 32
) -> Array:
  """Log p(targets | inputs) of each row of a batch, as T5X's `score_batch`.

  Probabilities are over the real ids. A row of a packed batch scores the sum of
  its sequences, as in T5X.

  Args:
    model: what scores; dropout is off.
    params: its parameters.
    batch: the weights choose the targets that count.
    chunk_size: number of positions whose logits exist at once.

  Returns:
    [B] float32 nats.
  """
  params = model.on_device(params)

  def of_positions(positions) -> Array:
    hidden, targets, weights = positions
    logits = model.head(params, hidden)
    logits = masks.mask_padded_ids(logits, model.vocabulary_size)
    return sequence_log_probs(logits, targets, weights)

  positions = (model.hidden_of(params, batch), batch.targets, batch.weights)
  return sum_over_chunks(of_positions, positions, chunk_size)


def score_tokens(model: LanguageModel, params: Params, batch: Batch) -> Array:
  """Log p(target | what is before it) of each token: [B, T] float32 nats.

  As `score_batch`, but for the weights; logits exist of one position at a time.
  """
  params = model.on_device(params)

  def of_position(position) -> Array:
    hidden, targets = position
    logits = model.head(params, hidden)
    logits = masks.mask_padded_ids(logits, model.vocabulary_size)
    return token_log_probs(logits, targets)

  positions = (model.hidden_of(params, batch), batch.targets)
  by_position = [jnp.moveaxis(array, 1, 0) for array in positions]
  return jax.lax.map(of_position, by_position).T


def _select(values: Array, ids: Array) -> Array:
  """values[..., ids]; a masked sum, because a gather's gradient is a scatter.

  Scatters are slow on TPU, and a sum over a sharded vocabulary stays local.
  """
  hit = jnp.arange(values.shape[-1]) == ids[..., None]
  return jnp.sum(jnp.where(hit, values, 0.0), axis=-1)
