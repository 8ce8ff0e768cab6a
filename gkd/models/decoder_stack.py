"""The layers of decoder-only models and of T5Gemma, and their attention.

The same layers serve training, where keys and values come from the sequence
itself, and decoding, where they come from a cache.
"""

from collections.abc import Sequence
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gkd.logical_axes import constrain_states
from gkd.models import layer_stack
from gkd.models import layers
from gkd.models import rotary
from gkd.models.attention import MASKED_SCORE
from gkd.models.attention import KeysValues
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import Array


class Stack(nn.Module):
  """The layers; owns the last norm and the head of an untied model.

  That of a decoder-only model, or one of the two of a T5Gemma: an encoder has a
  mask that is not causal, a decoder also attends to the encoder's output.
  """

  config: Any  # decoder_only.DecoderConfig
  execution: Execution = PLAIN
  reads_memory: bool = False

  def setup(self):
    c = self.config
    self.layers = [_Layer(c, self.reads_memory) for _ in range(c.num_layers)]
    setattr(self, f"{self.name}_norm", _norm(c))
    self.dropout = layers.dropout(c.dropout_rate)
    if not c.logits_via_embedding:
      self.logits_dense = layers.Dense(c.vocab_size, jnp.float32)

  def memory(self, encoded: Array) -> tuple[KeysValues, ...]:
    """Keys and values of an encoder's output [B, I, D] for every layer."""
    return tuple(
      layer.encoder_decoder_attention.keys_values(encoded)
      for layer in self.layers
    )

  def __call__(
    self,
    embedded: Array,
    positions: Array,
    mask: Array,
    deterministic: bool,
    *,
    encoded: Array | None = None,
    memory_mask: Array | None = None,
  ) -> Array:
    """Token vectors [B, T, D] -> states [B, T, D].

    Args:
      embedded: vectors of all tokens.
      positions: [B, T].
      mask: [B, 1, T, T] bool, True may be attended to.
      deterministic: True switches dropout off.
      encoded: [B, I, E], an encoder's output to attend to.
      memory_mask: [B, 1, 1, I] bool of it.
    """
    c = self.config
    visible = _visible(c, positions, positions, mask)
    is_local = np.array([_is_local(c, i) for i in range(c.num_layers)])

    def call(layer, x_BTD, local):
      if isinstance(local, np.bool_):
        own = visible[local]
      else:  # one program for all layers
        choose = functools.partial(jnp.where, local)
        own = jax.tree.map(
          choose, visible.get(True, visible[False]), visible[False]
        )
      memory = None
      if encoded is not None:
        memory = layer.encoder_decoder_attention.keys_values(encoded)
      return layer(x_BTD, *own, deterministic, memory, memory_mask)[0]

    x_BTD = self.dropout(_scaled(c, embedded), deterministic)
    x_BTD = layer_stack.through(
      self, self.layers, call, constrain_states(x_BTD), is_local
    )
    return self.dropout(self._last_norm(x_BTD), deterministic)

  def decode(
    self,
    embedded: Array,
    positions: Array,
    mask: Array,
    past: Sequence[KeysValues] | None = None,
    index: Array | None = None,
    *,
    memory: Sequence[KeysValues] | None = None,
    memory_mask: Array | None = None,
  ) -> tuple[Array, tuple[KeysValues, ...]]:
    """Token vectors -> states [B, T, D], and what was attended to.

    Args:
      embedded: [B, T, D]; with `past`, T is 1 and its keys and values are
        written to slot `index`.
      positions: [B, S] of the keys, of which the queries are slots `index` on.
      mask: [B, 1, T, S] bool, True may be attended to.
      past: per layer, keys and values of the slots so far.
      index: see above.
      memory: per layer, keys and values of an encoder's output.
      memory_mask: [B, 1, 1, I] bool of it.
    """
    c, own = self.config, positions
    if past is not None:
      own = jax.lax.dynamic_slice_in_dim(positions, index, 1, axis=1)
    visible = _visible(c, own, positions, mask)
    x_BTD, attended = constrain_states(_scaled(c, embedded)), []
    for i, layer in enumerate(self.layers):
      x_BTD, keys_values = layer(
        x_BTD,
        *visible[_is_local(c, i)],
        True,
        None if memory is None else memory[i],
        memory_mask,
        None if past is None else past[i],
        index,
      )
      attended.append(keys_values)
    return self._last_norm(x_BTD), tuple(attended)

  @property
  def _last_norm(self) -> layers.RMSNorm:
    return getattr(self, f"{self.name}_norm")


class _Layer(nn.Module):
  config: Any
  reads_memory: bool

  def setup(self):
    c = self.config
    self.pre_self_attention_norm = _norm(c)
    self.self_attention = _GroupedAttention(c)
    self.pre_mlp_norm = _norm(c)
    self.mlp = layers.MLP(
      c.emb_dim, c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype
    )
    self.dropout = layers.dropout(c.dropout_rate)
    if self.reads_memory:
      self.pre_cross_attention_norm = _norm(c)
      self.encoder_decoder_attention = _GroupedAttention(c)
    if _has_post_norms(c):
      self.post_self_attention_norm = _norm(c)
      self.post_mlp_norm = _norm(c)
      if self.reads_memory:
        self.post_cross_attention_norm = _norm(c)

  def __call__(
    self,
    x_BTD,
    mask,
    angles,
    deterministic,
    memory,
    memory_mask,
    past=None,
    index=None,
  ):
    has_post_norms = _has_post_norms(self.config)
    h_BTD = self.pre_self_attention_norm(x_BTD)
    own = self.self_attention.keys_values(h_BTD, angles)
    if past is not None:
      own = past.write(own, index)
    h_BTD = self.self_attention(h_BTD, own, mask, angles)
    if has_post_norms:
      h_BTD = self.post_self_attention_norm(h_BTD)
    x_BTD += self.dropout(h_BTD, deterministic)
    if self.reads_memory:
      h_BTD = self.encoder_decoder_attention(
        self.pre_cross_attention_norm(x_BTD), memory, memory_mask
      )
      if has_post_norms:
        h_BTD = self.post_cross_attention_norm(h_BTD)
      x_BTD += self.dropout(h_BTD, deterministic)
    h_BTD = self.mlp(self.pre_mlp_norm(x_BTD), deterministic)
    if has_post_norms:
      h_BTD = self.post_mlp_norm(h_BTD)
    return constrain_states(x_BTD + self.dropout(h_BTD, deterministic)), own


class _GroupedAttention(nn.Module):
  """Attention whose G heads of keys serve H / G heads of queries each.

  Paper: Ainslie et al. 2023 (arXiv:2305.13245). Kernels are 2-D, heads major.
  """

  config: Any

  def setup(self):
    c = self.config
    sizes = {
      "query": c.num_heads * c.head_dim,
      "key": c.num_kv_heads * c.head_dim,
      "value": c.num_kv_heads * c.head_dim,
    }
    for name, size in sizes.items():
      dense = layers.Dense(size, c.dtype, use_bias=c.qkv_bias)
      setattr(self, name, dense)
    self.out = layers.Dense(c.emb_dim, c.dtype)
    if c.qk_norm:
      self.query_norm = _norm(c)
      self.key_norm = _norm(c)

  def keys_values(self, x: Array, angles: Array | None = None) -> KeysValues:
    """[B, S, D] -> what queries can attend to, [B, G, S, K] each.

    Args:
      x: vectors; those of an encoder may have another width.
      angles: [B, S, K/2] rotations of the keys; None for none.
    """
    c = self.config
    k_BSGK = self._heads(self.key(x), c.num_kv_heads)
    if c.qk_norm:
      k_BSGK = self.key_norm(k_BSGK)
    if angles is not None:
      k_BSGK = rotary.rotate(k_BSGK, angles)
    return KeysValues.of(k_BSGK, self._heads(self.value(x), c.num_kv_heads))

  def __call__(
    self,
    x: Array,
    memory: KeysValues,
    mask: Array,
    angles: Array | None = None,
  ) -> Array:
    """[B, T, D] -> [B, T, D].

    Args:
      x: vectors on the side of the queries.
      memory: keys and values of S positions.
      mask: [B, 1, 1 or T, S] bool, True may be attended to.
      angles: [B, T, K/2] rotations of the queries; None for none.
    """
    c = self.config
    q_BTHK = self._heads(self.query(x), c.num_heads)
    if c.qk_norm:
      q_BTHK = self.query_norm(q_BTHK)
    if angles is not None:
      q_BTHK = rotary.rotate(q_BTHK, angles)
    scale = c.gemma.query_scale if c.gemma else c.head_dim**-0.5
    if c.gemma is None or c.gemma.attention_cap is None:
      mixed_BTHK = jax.nn.dot_product_attention(
        q_BTHK,
        memory.keys.swapaxes(1, 2),
        memory.values.swapaxes(1, 2),
        mask=mask,
        scale=scale,
      )
    else:
      mixed_BTHK = _capped_attention(
        q_BTHK, memory, mask, scale, c.gemma.attention_cap
      )
    return self.out(mixed_BTHK.reshape(*x.shape[:-1], -1))

  def _heads(self, joined: Array, count: int) -> Array:
    return joined.reshape(*joined.shape[:-1], count, self.config.head_dim)


def _capped_attention(
  q_BTHK: Array, memory: KeysValues, mask: Array, scale: float, cap: float
) -> Array:
  """Attention after cap · tanh(scores / cap), in float32, as Gemma 2 has it.

  Paper: Gemma team 2024 (arXiv:2408.00118); jax's own has no cap.
  """
  *outer, num_heads, head_dim = q_BTHK.shape
  num_groups = memory.keys.shape[1]
  q_BTGRK = q_BTHK.reshape(*outer, num_groups, -1, head_dim)
  scores_BGRTS = scale * jnp.einsum(
    "BTGRK,BGSK->BGRTS",
    q_BTGRK,
    memory.keys,
    preferred_element_type=jnp.float32,
  )
  scores_BGRTS = layers.soft_cap(scores_BGRTS, cap)
  scores_BGRTS = jnp.where(mask[:, :, None], scores_BGRTS, MASKED_SCORE)
  weights = jax.nn.softmax(scores_BGRTS, axis=-1).astype(memory.values.dtype)
  mixed = jnp.einsum("BGRTS,BGSK->BTGRK", weights, memory.values)
  return mixed.reshape(*outer, num_heads, head_dim)


def _norm(c) -> layers.RMSNorm:
  offset = c.gemma.norm_offset if c.gemma else 0.0
  return layers.RMSNorm(c.norm_epsilon, c.dtype, offset)


def _has_post_norms(c) -> bool:
  return c.gemma is not None and c.gemma.post_norms


def _is_local(c, layer: int) -> bool:
  return c.gemma is not None and c.gemma.is_local(layer)


def _scaled(c, embedded: Array) -> Array:
  if c.gemma is None:
    return embedded
  return embedded * jnp.asarray(c.gemma.embedding_scale, c.dtype)


def _visible(
  c, own: Array, positions: Array, mask: Array
) -> dict[bool, tuple[Array, Array]]:
  """{is local: (mask, angles)} of queries at `own` and keys at `positions`."""
  distance_BTS = jnp.abs(own[:, :, None] - positions[:, None, :])

  def near(window):
    if window is None:
      return mask
    return mask & (distance_BTS < window)[:, None]

  visible = {False: (near(c.sliding_window), _angles(c, own, is_local=False))}
  if c.gemma is not None:
    window = c.gemma.sliding_window
    visible[True] = near(window), _angles(c, own, is_local=True)
  return visible


def _angles(c, positions: Array, *, is_local: bool) -> Array:
  """[B, T, K/2] rotations of positions [B, T], in radians."""
  theta, scaling = c.rope_theta, c.rope_scaling
  if is_local:
    theta, scaling = c.gemma.local_rope_theta, None
  return positions[..., None] * rotary.frequencies(c.head_dim, theta, scaling)
