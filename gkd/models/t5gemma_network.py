"""The network of T5Gemma: masks, the two stacks, the head and decoding."""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp

from gkd import masks
from gkd.logical_axes import constrain_logits
from gkd.models import decoder_stack
from gkd.models import layers
from gkd.models.attention import KeysValues
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.models.t5_network import DecodeCache
from gkd.types import Array
from gkd.types import Pair
from gkd.types import UserError


class EncoderDecoder(nn.Module):
  """Everything with parameters; its methods are the functions of the model."""

  config: Any  # t5gemma.T5GemmaConfig
  execution: Execution = PLAIN

  def setup(self):
    c = self.config
    self.encoder_embedder = _embedding(c, c.encoder.emb_dim)
    self.decoder_embedder = _embedding(c, c.decoder.emb_dim)
    self.encoder = decoder_stack.Stack(c.stack("encoder"), self.execution)
    self.decoder = decoder_stack.Stack(
      c.stack("decoder"), self.execution, reads_memory=True
    )

  def hidden(
    self,
    inputs: Array,
    targets: Array,
    input_mask: Array,
    segments: Pair | None,
    deterministic: bool,
  ) -> Array:
    """Decoder states [B, T, D]; state t has seen targets before t."""
    if segments is not None:
      raise UserError(
        "a T5Gemma was given a packed batch; expected one prompt and its target"
        " in a row; leave the segments out"
      )
    previous = masks.shift_right(targets, self.config.start_id)
    positions = _positions(*previous.shape)
    causal_TT = positions[0, :, None] >= positions[0]
    return self.decoder(
      self.decoder_embedder(previous),
      positions,
      causal_TT[None, None],
      deterministic,
      encoded=self._encoded(inputs, input_mask, deterministic),
      memory_mask=input_mask[:, None, None, :],
    )

  def head(self, hidden: Array) -> Array:
    """[..., D] -> raw float32 logits [..., V], capped."""
    c = self.config
    if c.logits_via_embedding:
      logits = self.decoder_embedder.attend(hidden)
    else:
      logits = self.decoder.logits_dense(hidden)
    if c.logit_cap is not None:
      logits = layers.soft_cap(logits, c.logit_cap)
    return constrain_logits(logits)

  def prefill(
    self, inputs: Array, input_mask: Array, max_length: int
  ) -> tuple[DecodeCache, Array]:
    """Encodes inputs, makes room for max_length tokens; logits [B, V]."""
    c, side = self.config, self.config.decoder
    shape = (len(inputs), side.num_kv_heads, max_length, side.head_dim)
    cache = DecodeCache(
      past=(KeysValues.room(shape, c.dtype),) * side.num_layers,
      memory=self.decoder.memory(self._encoded(inputs, input_mask, True)),
      memory_mask=input_mask[:, None, None, :],
      index=jnp.zeros((), jnp.int32),
    )
    start = jnp.full(inputs.shape[:1], c.start_id, jnp.int32)
    return self.decode(cache, start)

  def decode(
    self, cache: DecodeCache, tokens: Array
  ) -> tuple[DecodeCache, Array]:
    """Feeds tokens [B]; returns the cache and the next logits [B, V]."""
    length = cache.past[0].keys.shape[2]
    fed_T = jnp.arange(length) <= cache.index
    hidden_B1D, past = self.decoder.decode(
      self.decoder_embedder(tokens[:, None]),
      _positions(len(tokens), length),
      fed_T[None, None, None, :],
      cache.past,
      cache.index,
      memory=cache.memory,
      memory_mask=cache.memory_mask,
    )
    hidden_BD = jnp.where(cache.index < length, hidden_B1D[:, 0], jnp.nan)
    cache = cache.replace(past=past, index=cache.index + 1)
    return cache, self.head(hidden_BD)

  def _encoded(self, inputs: Array, mask: Array, deterministic: bool) -> Array:
    """The encoder's output [B, I, E] of inputs [B, I].

    Whatever fills the rest of a row, it is no id outside the table, whose NaN
    would spread.
    """
    inputs = jnp.where(mask, inputs, self.config.pad_id)
    return self.encoder(
      self.encoder_embedder(inputs),
      _positions(*inputs.shape),
      mask[:, None, None, :],
      deterministic,
    )


def _embedding(c, width: int) -> layers.Embedding:
  # Of this scale the logits of a tied head are about 1.
  return layers.Embedding(c.vocab_size, width, c.dtype, stddev=width**-0.5)


def _positions(batch: int, length: int) -> Array:
  return jnp.broadcast_to(jnp.arange(length), (batch, length))
