"""The modules of T5; `t5.py` wraps them into a `LanguageModel`.

The same decoder layers serve training, where keys and values come from the
sequence itself, and decoding, where they come from a cache.

The teacher-forced masks are T5X's: keys are masked by target id. T5X also masks
whole queries where the target is padding; nothing reads those states, so here
they are left alone.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np

from gkd import masks
from gkd.models import attention
from gkd.models import layers
from gkd.models.attention import KeysValues
from gkd.types import PAD_ID
from gkd.types import Array
from gkd.types import Pair


@flax.struct.dataclass
class DecodeCache:
  """What decoding remembers between tokens.

  Attributes:
    past: per decoder layer, keys and values [B, T, H, K] of the tokens so far.
    memory: per decoder layer, keys and values [B, I, H, K] of the encoder's
      output, projected once.
    memory_mask: [B, 1, 1, I] bool, True on real input tokens.
    index: int32 scalar, tokens fed so far. Tokens beyond T make their logits
      NaN: a full buffer never passes for a shorter history.
  """

  past: tuple[KeysValues, ...]
  memory: tuple[KeysValues, ...]
  memory_mask: Array
  index: Array


class EncoderDecoder(nn.Module):
  """Everything with parameters; its methods are the functions of the model."""

  config: Any  # t5.T5Config

  def setup(self):
    c = self.config
    self.token_embedder = layers.Embedding(c.vocab_size, c.emb_dim, c.dtype)
    self.encoder = _Encoder(c)
    self.decoder = _Decoder(c)

  def __call__(self, inputs: Array, targets: Array) -> Array:
    """Touches every parameter, for init."""
    return self.head(self.hidden(inputs, targets, None, True))

  def hidden(
    self,
    inputs: Array,
    targets: Array,
    segments: Pair | None,
    deterministic: bool,
  ) -> Array:
    """Decoder states [B, T, D]; state t has seen targets before t."""
    encoder_mask = cross_mask = (inputs > PAD_ID)[:, None, None, :]
    position = jnp.arange(targets.shape[1])
    causal_TT = position[:, None] >= position
    self_mask = (targets > PAD_ID)[:, None, None, :] & causal_TT
    previous = masks.shift_right(targets)
    if segments is not None:
      encoder_mask = encoder_mask & _same(segments.inputs, segments.inputs)
      cross_mask = cross_mask & _same(segments.targets, segments.inputs)
      self_mask = self_mask & _same(segments.targets, segments.targets)
      is_first = segments.targets != masks.shift_right(segments.targets)
      previous = jnp.where(is_first, PAD_ID, previous)
    encoded_BID = self.encoder(
      self.token_embedder(inputs), encoder_mask, deterministic
    )
    hidden_BTD, _ = self.decoder(
      self.token_embedder(previous),
      self.decoder.memory(encoded_BID),
      self_mask,
      cross_mask,
      _buckets(self.config, _distances(targets.shape[1]), bidirectional=False),
      deterministic,
    )
    return hidden_BTD

  def head(self, hidden: Array) -> Array:
    """[..., D] -> raw float32 logits [..., V]."""
    if self.config.logits_via_embedding:
      return self.token_embedder.attend(hidden) / np.sqrt(self.config.emb_dim)
    return self.decoder.logits_dense(hidden)

  def empty_cache(self, inputs: Array, max_length: int) -> DecodeCache:
    """Encodes inputs [B, I] and makes room for max_length tokens."""
    c = self.config
    mask_B11I = (inputs > PAD_ID)[:, None, None, :]
    encoded_BID = self.encoder(self.token_embedder(inputs), mask_B11I, True)
    shape = (inputs.shape[0], max_length, c.num_heads, c.head_dim)
    past = tuple(
      KeysValues(jnp.zeros(shape, c.dtype), jnp.zeros(shape, c.dtype))
      for _ in range(c.num_decoder_layers)
    )
    return DecodeCache(
      past=past,
      memory=self.decoder.memory(encoded_BID),
      memory_mask=mask_B11I,
      index=jnp.zeros((), jnp.int32),
    )

  def decode(
    self, cache: DecodeCache, tokens: Array
  ) -> tuple[DecodeCache, Array]:
    """Feeds tokens [B]; returns the cache and the next logits [B, V]."""
    length = cache.past[0].keys.shape[1]
    distance_T = cache.index - jnp.arange(length)
    # Looked up, not computed, so that both modes agree on every boundary.
    bucket_of = _buckets(self.config, np.arange(length), bidirectional=False)
    buckets_1T = jnp.asarray(bucket_of)[jnp.maximum(distance_T, 0)][None]
    hidden_B1D, past = self.decoder(
      self.token_embedder(tokens[:, None]),
      cache.memory,
      (distance_T >= 0)[None, None, None, :],
      cache.memory_mask,
      buckets_1T,
      True,
      past=cache.past,
      index=cache.index,
    )
    hidden_BD = jnp.where(cache.index < length, hidden_B1D[:, 0], jnp.nan)
    cache = cache.replace(past=past, index=cache.index + 1)
    return cache, self.head(hidden_BD)


class _Encoder(nn.Module):
  config: Any

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
    distances = _distances(embedded.shape[1])
    buckets = _buckets(self.config, distances, bidirectional=True)
    x_BID = self.dropout(embedded, deterministic)
    for layer, bias in zip(self.layers, _biases(self, buckets), strict=True):
      x_BID = layer(x_BID, mask, bias, deterministic)
    return self.last_dropout(self.encoder_norm(x_BID), deterministic)


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


class _Decoder(nn.Module):
  config: Any

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
    buckets: Array | np.ndarray,
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
    for i, bias in enumerate(_biases(self, buckets)):
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


def _biases(stack, buckets) -> list[Array]:
  """One bias [H, T, S] per layer; the same one unless bias_per_layer."""
  if stack.config.bias_per_layer:
    return [layer.relpos_bias(buckets) for layer in stack.layers]
  return [stack.relpos_bias(buckets)] * len(stack.layers)


def _distances(length: int) -> np.ndarray:
  """[T, T] query position minus key position."""
  position = np.arange(length)
  return position[:, None] - position


def _buckets(c, distances: np.ndarray, *, bidirectional: bool) -> np.ndarray:
  return attention.relative_position_bucket(
    -distances,
    bidirectional=bidirectional,
    num_buckets=c.relative_buckets,
    max_distance=c.relative_max_distance,
  )


def _same(queries: Array, keys: Array) -> Array:
  """[B, 1, T, S]: whether two positions belong to the same segment."""
  return (queries[:, :, None] == keys[:, None, :])[:, None]
