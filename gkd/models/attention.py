"""Multi-head attention and relative position biases, as in T5.

Two things differ from other transformers: scores are not divided by the root of
the head size (the query's initialiser is smaller instead), and positions enter
only as a bias per head and bucket of distances, added to the scores.

Keys and values are made by `keys_values` and passed in, so that the decoder can
keep those of past tokens and project the encoder's output only once.
"""

from typing import Any
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gkd.logical_axes import constrain
from gkd.models import layers
from gkd.types import Array

# A fully masked row gets this everywhere: uniform attention instead of NaN.
MASKED_SCORE = -1e10


class KeysValues(NamedTuple):
  """Keys and values of one attention layer, [B, H, S, K] each.

  Heads come before positions, so that a decoding step reads its cache as it
  lies: each head's scores are a product of one matrix with one vector.
  """

  keys: Array
  values: Array

  @classmethod
  def of(cls, keys: Array, values: Array) -> "KeysValues":
    """Of [B, S, H, K] each, as projections make them."""
    return cls(keys.swapaxes(1, 2), values.swapaxes(1, 2))

  @classmethod
  def room(cls, shape: tuple[int, ...], dtype: Any) -> "KeysValues":
    """Zeros [B, H, S, K], on devices the rows and heads that they work on."""
    zeros = constrain(jnp.zeros(shape, dtype), "batch", "heads", "length", "kv")
    return cls(zeros, zeros)

  def write(self, new: "KeysValues", index: Array) -> "KeysValues":
    """Copy with `new` [B, H, 1, K] at position `index` (clamped to S - 1)."""
    return KeysValues(
      *(
        jax.lax.dynamic_update_slice_in_dim(buffer, entry, index, axis=2)
        for buffer, entry in zip(self, new, strict=True)
      )
    )


class Attention(nn.Module):
  """softmax(q·k + bias) v, with heads joined in 2-D kernels (D, H·K)."""

  features: int
  num_heads: int
  head_dim: int
  dropout_rate: float
  dtype: Any

  def setup(self):
    joined = self.num_heads * self.head_dim

    def query_init(*args):
      return _FAN_IN_NORMAL(*args) / jnp.sqrt(self.head_dim)

    self.query = layers.Dense(joined, self.dtype, query_init)
    self.key = layers.Dense(joined, self.dtype, _FAN_IN_NORMAL)
    self.value = layers.Dense(joined, self.dtype, _FAN_IN_NORMAL)
    self.out = layers.Dense(self.features, self.dtype, _FAN_IN_NORMAL)
    self.dropout = layers.dropout(self.dropout_rate)

  def keys_values(self, x: Array) -> KeysValues:
    """[B, S, D] -> what queries can attend to."""
    return KeysValues.of(self._split(self.key(x)), self._split(self.value(x)))

  def __call__(
    self,
    x: Array,
    memory: KeysValues,
    mask: Array,
    bias: Array | None,
    deterministic: bool,
  ) -> Array:
    """Attends from x to memory.

    Args:
      x: [B, T, D] the side of the queries.
      memory: keys and values of S positions.
      mask: bool, broadcastable to [B, H, T, S]; True may be attended to.
      bias: optional float32 [H, T, S], added to the scores.
      deterministic: True switches dropout off.

    Returns:
      [B, T, D] in the compute dtype; scores and softmax are float32.
    """
    q_BTHK = self._split(self.query(x))
    scores_BHTS = jnp.einsum(
      "BTHK,BHSK->BHTS",
      q_BTHK,
      memory.keys,
      preferred_element_type=jnp.float32,
    )
    if bias is not None:
      scores_BHTS += bias
    scores_BHTS = jnp.where(mask, scores_BHTS, MASKED_SCORE)
    weights_BHTS = jax.nn.softmax(scores_BHTS, axis=-1).astype(self.dtype)
    # One dropout mask for all queries, as T5X does.
    weights_BHTS = self.dropout(weights_BHTS, deterministic)
    mixed_BTHK = jnp.einsum("BHTS,BHSK->BTHK", weights_BHTS, memory.values)
    return self.out(mixed_BTHK.reshape(*x.shape[:-1], -1))

  def _split(self, joined: Array) -> Array:
    """[B, T, H·K] -> [B, T, H, K], heads major."""
    return joined.reshape(*joined.shape[:-1], self.num_heads, self.head_dim)


class RelativeBias(nn.Module):
  """One learnt number per head and bucket of relative positions."""

  num_heads: int
  num_buckets: int

  @nn.compact
  def __call__(self, buckets: Array | np.ndarray) -> Array:
    """[T, S] bucket numbers -> [H, T, S] float32."""
    init = nn.initializers.variance_scaling(1.0, "fan_avg", "uniform")
    shape = (self.num_heads, self.num_buckets)
    table_HN = layers.parameter(self, "rel_embedding", init, shape)
    table_HN = table_HN.astype(jnp.float32)
    # A product with one-hot rows: the gradient of a gather would be a scatter
    # of T·S values into a few buckets. It copies numbers, hence full precision.
    one_hot_TSN = jax.nn.one_hot(buckets, self.num_buckets, dtype=jnp.float32)
    return jnp.einsum(
      "HN,TSN->HTS", table_HN, one_hot_TSN, precision=jax.lax.Precision.HIGHEST
    )


def relative_position_bucket(
  relative_position: np.ndarray,
  *,
  bidirectional: bool,
  num_buckets: int,
  max_distance: int,
) -> np.ndarray:
  """Bucket of each distance: exact when small, logarithmic up to max_distance.

  Source: `_relative_position_bucket` of Mesh TensorFlow and T5X. In float64, so
  that distances that lie exactly on a boundary (16 of 8·2, …) fall on the same
  side on every machine; T5X's epsilon puts them into the upper bucket.

  Args:
    relative_position: int array, key position minus query position.
    bidirectional: True splits the buckets between keys before and after; False
      treats keys after the query as distance 0.
    num_buckets: number of buckets.
    max_distance: all distances from here up share the last bucket.

  Returns:
    int32 array of bucket numbers in [0, num_buckets).
  """
  distance = -np.asarray(relative_position)
  offset = 0
  if bidirectional:
    num_buckets //= 2
    offset = np.where(distance < 0, num_buckets, 0)
    distance = np.abs(distance)
  distance = np.maximum(distance, 0)
  num_exact = num_buckets // 2
  fraction = np.log(
    np.maximum(distance, 1) / num_exact + np.finfo(np.float32).eps
  ) / np.log(max_distance / num_exact)
  # int() of a negative number rounds up; those are overruled below.
  large = num_exact + (fraction * (num_buckets - num_exact)).astype(np.int32)
  large = np.minimum(large, num_buckets - 1)
  bucket = np.where(distance < num_exact, distance, large)
  return (offset + bucket).astype(np.int32)


_FAN_IN_NORMAL = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
