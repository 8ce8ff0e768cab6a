"""The layers of decoder-only models, and their attention.

The same layers serve training, where keys and values come from the sequence
itself, and decoding, where they come from a cache.
"""

from collections.abc import Sequence
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from gkd.models import layers
from gkd.models import rotary
from gkd.models.attention import KeysValues
from gkd.types import Array


class Decoder(nn.Module):
  """The layers; owns the last norm and the head."""

  config: Any

  def setup(self):
    c = self.config
    self.layers = [_Layer(c) for _ in range(c.num_layers)]
    self.decoder_norm = _norm(c)
    self.dropout = layers.dropout(c.dropout_rate)
    if not c.logits_via_embedding:
      self.logits_dense = layers.Dense(c.vocab_size, jnp.float32)

  def __call__(
    self,
    embedded: Array,
    positions: Array,
    mask: Array,
    deterministic: bool,
    *,
    past: Sequence[KeysValues] | None = None,
    index: Array | None = None,
  ) -> tuple[Array, tuple[KeysValues, ...]]:
    """Token vectors -> states [B, T, D], and what was attended to.

    Args:
      embedded: [B, T, D]; with `past`, T is 1 and its keys and values are
        written to slot `index`.
      positions: [B, S] of the keys, of which the queries are slots `index` on.
      mask: [B, 1, T, S] bool, True may be attended to.
      deterministic: True switches dropout off.
      past: per layer, keys and values of the slots so far.
      index: see above.
    """
    c, own = self.config, positions
    if past is not None:
      own = jax.lax.dynamic_slice_in_dim(positions, index, 1, axis=1)
    distance_BTS = own[:, :, None] - positions[:, None, :]

    def near(window):
      if window is None:
        return mask
      return mask & (distance_BTS < window)[:, None]

    angles = _angles(c, own, is_local=False)
    visible = {False: (near(c.sliding_window), angles)}
    if c.gemma is not None:
      angles = _angles(c, own, is_local=True)
      visible[True] = near(c.gemma.sliding_window), angles
      embedded *= jnp.asarray(c.gemma.embedding_scale, c.dtype)
    x_BTD = self.dropout(embedded, deterministic)
    attended = []
    for i, layer in enumerate(self.layers):
      is_local = c.gemma is not None and c.gemma.is_local(i)
      x_BTD, keys_values = layer(
        x_BTD,
        *visible[is_local],
        deterministic,
        None if past is None else past[i],
        index,
      )
      attended.append(keys_values)
    x_BTD = self.dropout(self.decoder_norm(x_BTD), deterministic)
    return x_BTD, tuple(attended)


class _Layer(nn.Module):
  config: Any

  def setup(self):
    c = self.config
    self.pre_self_attention_norm = _norm(c)
    self.self_attention = _GroupedAttention(c)
    self.pre_mlp_norm = _norm(c)
    self.mlp = layers.MLP(
      c.emb_dim, c.mlp_dim, c.mlp_activations, c.dropout_rate, c.dtype
    )
    self.dropout = layers.dropout(c.dropout_rate)
    if _has_post_norms(c):
      self.post_self_attention_norm = _norm(c)
      self.post_mlp_norm = _norm(c)

  def __call__(self, x_BTD, mask, angles, deterministic, past, index):
    h_BTD, own = self.self_attention(
      self.pre_self_attention_norm(x_BTD), mask, angles, past, index
    )
    if _has_post_norms(self.config):
      h_BTD = self.post_self_attention_norm(h_BTD)
    x_BTD += self.dropout(h_BTD, deterministic)
    h_BTD = self.mlp(self.pre_mlp_norm(x_BTD), deterministic)
    if _has_post_norms(self.config):
      h_BTD = self.post_mlp_norm(h_BTD)
    return x_BTD + self.dropout(h_BTD, deterministic), own


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

  def __call__(
    self,
    x: Array,
    mask: Array,
    angles: Array,
    past: KeysValues | None,
    index: Array | None,
  ) -> tuple[Array, KeysValues]:
    """[B, T, D] -> [B, T, D], and what was attended to.

    Args:
      x: token vectors.
      mask: [B, 1, T, S] bool, True may be attended to.
      angles: [B, T, K/2] rotations of the T positions.
      past: keys and values [B, S, G, K], into which those of the one token are
        written at `index`; None for those of x.
      index: see above.
    """
    c = self.config
    q_BTHK = self._heads(self.query(x), c.num_heads)
    k_BTGK = self._heads(self.key(x), c.num_kv_heads)
    if c.qk_norm:
      q_BTHK, k_BTGK = self.query_norm(q_BTHK), self.key_norm(k_BTGK)
    own = KeysValues(
      rotary.rotate(k_BTGK, angles),
      self._heads(self.value(x), c.num_kv_heads),
    )
    if past is not None:
      own = past.write(own, index)
    mixed_BTHK = jax.nn.dot_product_attention(
      rotary.rotate(q_BTHK, angles),
      *own,
      mask=mask,
      scale=c.gemma.query_scale if c.gemma else c.head_dim**-0.5,
    )
    return self.out(mixed_BTHK.reshape(*x.shape[:-1], -1)), own

  def _heads(self, joined: Array, count: int) -> Array:
    return joined.reshape(*joined.shape[:-1], count, self.config.head_dim)


def _norm(c) -> layers.RMSNorm:
  offset = c.gemma.norm_offset if c.gemma else 0.0
  return layers.RMSNorm(c.norm_epsilon, c.dtype, offset)


def _has_post_norms(c) -> bool:
  return c.gemma is not None and c.gemma.post_norms


def _angles(c, positions: Array, *, is_local: bool) -> Array:
  """[B, T, K/2] rotations of positions [B, T], in radians."""
  theta, scaling = c.rope_theta, c.rope_scaling
  if is_local:
    theta, scaling = c.gemma.local_rope_theta, None
  return positions[..., None] * rotary.frequencies(c.head_dim, theta, scaling)
