"""The two stacks of T5, encoder and decoder, and their layers.

The same decoder layers serve training, where keys and values come from the
sequence itself, and decoding, where they come from a cache.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from gkd.models import attention
from gkd.models import layers
from gkd.models.attention import KeysValues
from gkd.types import Array


class Encoder(nn.Module):
  """Layers of self-attention and MLP that see the whole input."""

  config: Any  # t5.T5Config

  def setup(self):
    c = self.config
    if not c.bias_per_layer:
      self.relpos_bias = _relative_bias(c)
    self.layers = [_EncoderLayer(c) for _ in range(c.num_encoder_layers)]
    self.encoder_norm = _norm(c)
    self.dropout = layers.dropout(c.dropout_rate)
    # The one dropout of T5X that draws a mask for each position.
    self.last_dropout = nn.Dropout(c.dropout_rate)

  def __call__(self, embedded: Array, mask: Array, deterministic: bool):
    """Token vectors [B, I, D] -> [B, I, D]."""
    bucket_II = buckets(
      self.config, distances(embedded.shape[1]), bidirectional=True
    )
    x_BID = self.dropout(embedded, deterministic)
    for layer, bias in zip(self.layers, _biases(self, bucket_II), strict=True):
      x_BID = layer(x_BID, mask, bias, deterministic)
    return self.last_dropout(self.encoder_norm(x_BID), deterministic)


class Decoder(nn.Module):
  """Causal layers that also attend to the encoder's output; owns the head."""

  config: Any  # t5.T5Config

  def setup(self):
    c = self.config
    if not c.bias_per_layer:
      self.relpos_bias = _relative_bias(c)
    self.layers = [_DecoderLayer(c) for _ in range(c.num_decoder_layers)]
    self.decoder_norm = _norm(c)
    self.dropout = layers.dropout(c.dropout_rate)
    if not c.logits_via_embedding:
      self.logits_dense = layers.Dense(c.vocab_size, jnp.float32)

  def memory(self, encoded: Array) -> tuple[KeysValues, ...]:
    """Keys and values of the encoder's output [B, I, D] for every layer."""
    return tuple(
      layer.encoder_decoder_attention.keys_values(encoded)
      for layer in self.layers
    )

  def __call__(
    self,
    embedded: Array,
    memory: Sequence[KeysValues],
    self_mask: Array,
    cross_mask: Array,
    bucket_TS: Array | np.ndarray,
    deterministic: bool,
    *,
    past: Sequence[KeysValues] | None = None,
    index: Array | None = None,
  ) -> tuple[Array, tuple[KeysValues, ...]]:
    """Token vectors [B, T, D] -> states [B, T, D], and what was attended to.

    With `past`, the keys and values of the (single) token are written to its
    position `index` and the whole buffer is attended to.
    """
    y_BTD = self.dropout(embedded, deterministic)
    attended = []
    for i, bias in enumerate(_biases(self, bucket_TS)):
      y_BTD, keys_values = self.layers[i](
        y_BTD,
        memory[i],
        self_mask,
        cross_mask,
        bias,
        deterministic,
        None if past is None else past[i],
        index,
      )
      attended.append(keys_values)
    y_BTD = self.dropout(self.decoder_norm(y_BTD), deterministic)
    return y_BTD, tuple(attended)


def buckets(
  config: Any, distances: np.ndarray, *, bidirectional: bool
) -> np.ndarray:
  """Bucket numbers of distances (query minus key position), same shape."""
  return attention.relative_position_bucket(
    -distances,
    bidirectional=bidirectional,
    num_buckets=config.relative_buckets,
    max_distance=config.relative_max_distance,
  )


def distances(length: int) -> np.ndarray:
  """[T, T] query position minus key position."""
  position = np.arange(length)
  return position[:, None] - position


class _EncoderLayer(nn.Module):
  config: Any

  def setup(self):
    c = self.config
    if c.bias_per_layer:
      self.relpos_bias = _relative_bias(c)
    self.pre_attention_layer_norm = _norm(c)
    self.attention = _attention(c)
    self.pre_mlp_layer_norm = _norm(c)
    self.mlp = _mlp(c)
    self.dropout = layers.dropout(c.dropout_rate)

  def __call__(self, x_BID, mask, bias, deterministic):
    h_BID = self.pre_attention_layer_norm(x_BID)
    keys_values = self.attention.keys_values(h_BID)
    h_BID = self.attention(h_BID, keys_values, mask, bias, deterministic)
    x_BID += self.dropout(h_BID, deterministic)
    h_BID = self.mlp(self.pre_mlp_layer_norm(x_BID), deterministic)
    return x_BID + self.dropout(h_BID, deterministic)


class _DecoderLayer(nn.Module):
  config: Any

  def setup(self):
    c = self.config
    if c.bias_per_layer:
      self.relpos_bias = _relative_bias(c)
    self.pre_self_attention_layer_norm = _norm(c)
    self.self_attention = _attention(c)
    self.pre_cross_attention_layer_norm = _norm(c)
    self.encoder_decoder_attention = _attention(c)
    self.pre_mlp_layer_norm = _norm(c)
    self.mlp = _mlp(c)
    self.dropout = layers.dropout(c.dropout_rate)

  def __call__(
    self, y_BTD, memory, self_mask, cross_mask, bias, deterministic, past, index
  ):
    h_BTD = self.pre_self_attention_layer_norm(y_BTD)
    own = self.self_attention.keys_values(h_BTD)
    if past is not None:
      own = past.write(own, index)
    h_BTD = self.self_attention(h_BTD, own, self_mask, bias, deterministic)
    y_BTD += self.dropout(h_BTD, deterministic)
    h_BTD = self.encoder_decoder_attention(
      self.pre_cross_attention_layer_norm(y_BTD),
      memory,
      cross_mask,
      None,
      deterministic,
    )
    y_BTD += self.dropout(h_BTD, deterministic)
    h_BTD = self.mlp(self.pre_mlp_layer_norm(y_BTD), deterministic)
    return y_BTD + self.dropout(h_BTD, deterministic), own


def _norm(c) -> layers.RMSNorm:
  return layers.RMSNorm(c.layer_norm_epsilon, c.dtype)


def _attention(c) -> attention.Attention:
  return attention.Attention(
    c.emb_dim, c.num_heads, c.head_dim, c.dropout_rate, c.dtype
  )


def _mlp(c) -> layers.MLP:
  return layers.MLP(
    c.emb_dim, c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype
  )


def _relative_bias(c) -> attention.RelativeBias:
  return attention.RelativeBias(c.num_heads, c.relative_buckets)


def _biases(stack, bucket_TS) -> list[Array]:
  """One bias [H, T, S] per layer; the same one unless bias_per_layer."""
  if stack.config.bias_per_layer:
    return [layer.relpos_bias(bucket_TS) for layer in stack.layers]
  return [stack.relpos_bias(bucket_TS)] * len(stack.layers)
