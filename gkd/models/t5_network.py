"""The network of T5: masks, the two stacks, the head and the decode cache.

`flax_model` makes a `LanguageModel` of its methods. Decoder self-attention has
the masks of T5X: a key whose target is `pad_id` is masked. T5X also masks whole
queries where the target is padding; nothing reads those states, so they are
left alone.
"""

from typing import Any

from flax import linen as nn
import flax.struct
import jax.numpy as jnp
import numpy as np

from gkd import masks
from gkd.logical_axes import constrain_logits
from gkd.models import layers
from gkd.models import t5_stacks
from gkd.models.attention import KeysValues
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import Array
from gkd.types import Pair


@flax.struct.dataclass
class DecodeCache:
  """What decoding remembers between tokens.

  Attributes:
    past: per decoder layer, keys and values [B, H, T, K] of the tokens so far.
    memory: per decoder layer, keys and values [B, H, I, K] of the encoder's
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
  execution: Execution = PLAIN

  def setup(self):
    c = self.config
    self.token_embedder = layers.Embedding(c.vocab_size, c.emb_dim, c.dtype)
    self.encoder = t5_stacks.Encoder(c, self.execution)
    self.decoder = t5_stacks.Decoder(c, self.execution)

  def hidden(
    self,
    inputs: Array,
    targets: Array,
    input_mask: Array,
    segments: Pair | None,
    deterministic: bool,
  ) -> Array:
    """Decoder states [B, T, D]; state t has seen targets before t."""
    c = self.config
    encoder_mask = cross_mask = input_mask[:, None, None, :]
    position = jnp.arange(targets.shape[1])
    causal_TT = position[:, None] >= position
    self_mask = (targets != c.pad_id)[:, None, None, :] & causal_TT
    previous = masks.shift_right(targets, c.start_id)
    if segments is not None:
      encoder_mask = encoder_mask & _same(segments.inputs, segments.inputs)
      cross_mask = cross_mask & _same(segments.targets, segments.inputs)
      self_mask = self_mask & _same(segments.targets, segments.targets)
      is_first = segments.targets != masks.shift_right(segments.targets, 0)
      previous = jnp.where(is_first, c.start_id, previous)
    encoded_BID = self.encoder(
      self.token_embedder(inputs), encoder_mask, deterministic
    )
    return self.decoder(
      self.token_embedder(previous),
      encoded_BID,
      self_mask,
      cross_mask,
      t5_stacks.buckets(
        c,
        t5_stacks.distances(targets.shape[1]),
        bidirectional=False,
      ),
      deterministic,
    )

  def head(self, hidden: Array) -> Array:
    """[..., D] -> raw float32 logits [..., V]."""
    if self.config.logits_via_embedding:
      logits = self.token_embedder.attend(hidden)
      return constrain_logits(logits / np.sqrt(self.config.emb_dim))
    return constrain_logits(self.decoder.logits_dense(hidden))

  def prefill(
    self, inputs: Array, input_mask: Array, max_length: int
  ) -> tuple[DecodeCache, Array]:
    """Encodes inputs, makes room for max_length tokens; logits [B, V]."""
    c = self.config
    mask_B11I = input_mask[:, None, None, :]
    encoded_BID = self.encoder(self.token_embedder(inputs), mask_B11I, True)
    shape = (inputs.shape[0], c.num_heads, max_length, c.head_dim)
    cache = DecodeCache(
      past=(KeysValues.room(shape, c.dtype),) * c.num_decoder_layers,
      memory=self.decoder.memory(encoded_BID),
      memory_mask=mask_B11I,
      index=jnp.zeros((), jnp.int32),
    )
    start = jnp.full(inputs.shape[:1], c.start_id, jnp.int32)
    return self.decode(cache, start)

  def decode(
    self, cache: DecodeCache, tokens: Array
  ) -> tuple[DecodeCache, Array]:
    """Feeds tokens [B]; returns the cache and the next logits [B, V]."""
    length = cache.past[0].keys.shape[2]
    distance_T = cache.index - jnp.arange(length)
    # Looked up, not computed, so that both modes agree on every boundary.
    bucket_of = t5_stacks.buckets(
      self.config, np.arange(length), bidirectional=False
    )
    bucket_1T = jnp.asarray(bucket_of)[jnp.maximum(distance_T, 0)][None]
    hidden_B1D, past = self.decoder.decode(
      self.token_embedder(tokens[:, None]),
      cache.memory,
      (distance_T >= 0)[None, None, None, :],
      cache.memory_mask,
      bucket_1T,
      cache.past,
      cache.index,
    )
    hidden_BD = jnp.where(cache.index < length, hidden_B1D[:, 0], jnp.nan)
    cache = cache.replace(past=past, index=cache.index + 1)
    return cache, self.head(hidden_BD)


def _same(queries: Array, keys: Array) -> Array:
  """[B, 1, T, S]: whether two positions belong to the same segment."""
  return (queries[:, :, None] == keys[:, None, :])[:, None]
