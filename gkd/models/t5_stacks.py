"""The two stacks of T5, encoder and decoder, and their layers.

The same decoder layers serve training, where keys and values come from the
sequence itself, and decoding, where they come from a cache.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from gkd.logical_axes import constrain_states
from gkd.models import attention
from gkd.models import layer_stack
from gkd.models import layers
from gkd.models.attention import KeysValues
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import Array


class Encoder(nn.Module):
  """Layers of self-attention and MLP that see the whole input."""

  config: Any  # t5.T5Config
  execution: Execution = PLAIN

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
    x_BID = constrain_states(self.dropout(embedded, deterministic))
    bias = _shared_bias(self, bucket_II)

    def call(layer, x_BID):
      own = layer.relpos_bias(bucket_II) if bias is None else bias
      return layer(x_BID, mask, own, deterministic)

    x_BID = layer_stack.through(self, self.layers, call, x_BID)
    return self.last_dropout(self.encoder_norm(x_BID), deterministic)


class Decoder(nn.Module):
  """Causal layers that also attend to the encoder's output; owns the head."""

  config: Any  # t5.T5Config
  execution: Execution = PLAIN

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
    encoded: Array,
    self_mask: Array,
    cross_mask: Array,
    bucket_TT: np.ndarray,
    deterministic: bool,
  ) -> Array:
    """Token vectors [B, T, D] and the encoder's output -> states [B, T, D]."""
    bias = _shared_bias(self, bucket_TT)

    def call(layer, y_BTD):
      memory = layer.encoder_decoder_attention.keys_values(encoded)
      own = layer.relpos_bias(bucket_TT) if bias is None else bias
      y_BTD, _ = layer(y_BTD, memory, self_mask, cross_mask, own, deterministic)
      return y_BTD

    y_BTD = constrain_states(self.dropout(embedded, deterministic))
    y_BTD = layer_stack.through(self, self.layers, call, y_BTD)
    return self.dropout(self.decoder_norm(y_BTD), deterministic)

  def decode(
    self,
    embedded: Array,
    memory: Sequence[KeysValues],
    self_mask: Array,
    cross_mask: Array,
    bucket_1T: Array,
    past: Sequence[KeysValues],
    index: Array,
  ) -> tuple[Array, tuple[KeysValues, ...]]:
    """The vector [B, 1, D] of a token -> its state, and what was attended to.

    Its keys and values are written to position `index` of `past`, all of which
    is attended to.
    """
    y_B1D, attended = embedded, []
    bias = _shared_bias(self, bucket_1T)
    for layer, *kept in zip(self.layers, memory, past, strict=True):
      own = layer.relpos_bias(bucket_1T) if bias is None else bias
      y_B1D, keys_values = layer(
        y_B1D, kept[0], self_mask, cross_mask, own, True, kept[1], index
      )
      attended.append(keys_values)
    return self.decoder_norm(y_B1D), tuple(attended)


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
    return constrain_states(x_BID + self.dropout(h_BID, deterministic))


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
    self,
    y_BTD,
    memory,
    self_mask,
    cross_mask,
    bias,
    deterministic,
    past=None,
    index=None,
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
    return constrain_states(y_BTD + self.dropout(h_BTD, deterministic)), own


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


def _shared_bias(stack, bucket_TS) -> Array | None:
  """The bias [H, T, S] of all layers; None where each has its own."""
  if stack.config.bias_per_layer:
    return None
  return stack.relpos_bias(bucket_TS)
