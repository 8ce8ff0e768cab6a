"""What decoder-only networks share: masks, positions, head, decode cache.

`flax_model` makes a `LanguageModel` of its methods. The stream has the prompts,
padded to I, and then the targets, so that a row has a gap of padding in
between: no query sees it, and positions do not count it.
"""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gkd.logical_axes import constrain_logits
from gkd.models import layers
from gkd.models.attention import KeysValues
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import Array
from gkd.types import UserError


@flax.struct.dataclass
class DecodeCache:
  """What decoding remembers between tokens.

  Attributes:
    past: per layer, keys and values [B, G, I + T, K] of prompt and tokens so
      far, G heads of keys.
    input_mask: [B, I] bool, True on prompt tokens.
    index: int32 scalar, tokens fed so far. Tokens beyond T make their logits
      NaN: a full buffer never passes for a shorter history.
  """

  past: tuple[KeysValues, ...]
  input_mask: Array
  index: Array


class DecoderOnly(nn.Module):
  """Everything with parameters; its methods are the functions of the model.

  Attributes:
    config: with vocab_size, emb_dim, logits_via_embedding, dtype, and as
      `first_id` what a text without a prompt begins with.
    stack: makes the layers of a config, with the methods of
      `decoder_stack.Stack`; has `logits_dense` where the head is not the
      embedding.
    execution: how they are run.
  """

  config: Any
  stack: Callable[[Any, Execution], nn.Module]
  execution: Execution = PLAIN

  def setup(self):
    c = self.config
    # Of this scale the logits of a tied head are about 1.
    self.token_embedder = layers.Embedding(
      c.vocab_size, c.emb_dim, c.dtype, stddev=c.emb_dim**-0.5
    )
    self.decoder = self.stack(c, self.execution)

  def hidden(
    self,
    inputs: Array,
    targets: Array,
    input_mask: Array,
    segments: None,
    deterministic: bool,
  ) -> Array:
    """States [B, T, D]; state t has seen the prompt and targets before t."""
    if segments is not None:
      raise UserError(
        "a decoder-only model was given a packed batch; expected one prompt and"
        " its target in a row; leave the segments out"
      )
    inputs, input_mask = self._prompt(inputs, input_mask)
    num_fed = targets.shape[1] - 1
    states_BSD = self.decoder(
      self.token_embedder(jnp.concatenate([inputs, targets[:, :-1]], axis=1)),
      _positions(input_mask, num_fed),
      _causal(
        jnp.pad(input_mask, ((0, 0), (0, num_fed)), constant_values=True)
      ),
      deterministic,
    )
    first_B1D = _at_last(states_BSD, input_mask)
    return jnp.concatenate(
      [first_B1D, states_BSD[:, inputs.shape[1] :]], axis=1
    )

  def head(self, hidden: Array) -> Array:
    """[..., D] -> raw float32 logits [..., V]."""
    if self.config.logits_via_embedding:
      return constrain_logits(self.token_embedder.attend(hidden))
    return constrain_logits(self.decoder.logits_dense(hidden))

  def prefill(
    self, inputs: Array, input_mask: Array, max_length: int
  ) -> tuple[DecodeCache, Array]:
    """Reads the prompts, makes room for max_length tokens; logits [B, V]."""
    inputs, input_mask = self._prompt(inputs, input_mask)
    states_BID, attended = self.decoder.decode(
      self.token_embedder(inputs),
      _positions(input_mask, 0),
      _causal(input_mask),
    )
    room = [(0, 0), (0, 0), (0, max_length), (0, 0)]
    past = jax.tree.map(lambda buffer: jnp.pad(buffer, room), attended)
    cache = DecodeCache(past, input_mask, jnp.zeros((), jnp.int32))
    return cache, self.head(_at_last(states_BID, input_mask)[:, 0])

  def decode(
    self, cache: DecodeCache, tokens: Array
  ) -> tuple[DecodeCache, Array]:
    """Feeds tokens [B]; returns the cache and the next logits [B, V]."""
    width = cache.input_mask.shape[1]
    length = cache.past[0].keys.shape[2] - width
    fed = jnp.arange(length) <= cache.index
    fed_BT = jnp.broadcast_to(fed, (tokens.shape[0], length))
    seen_BS = jnp.concatenate([cache.input_mask, fed_BT], axis=1)
    hidden_B1D, past = self.decoder.decode(
      self.token_embedder(tokens[:, None]),
      _positions(cache.input_mask, length),
      seen_BS[:, None, None, :],
      cache.past,
      width + cache.index,
    )
    hidden_BD = jnp.where(cache.index < length, hidden_B1D[:, 0], jnp.nan)
    cache = cache.replace(past=past, index=cache.index + 1)
    return cache, self.head(hidden_BD)

  def _prompt(self, inputs: Array, mask: Array) -> tuple[Array, Array]:
    """Ids and mask [B, I], with the start token for a prompt without any.

    Whatever fills the rest, it is no id outside the table, whose NaN would
    spread.
    """
    is_empty = ~jnp.any(mask, axis=1, keepdims=True)
    is_start = is_empty & (jnp.arange(inputs.shape[1]) == 0)
    inputs = jnp.where(mask, inputs, self.config.first_id)
    return inputs, mask | is_start


def _positions(input_mask: Array, num_fed: int) -> Array:
  """[B, I + num_fed] positions of prompt tokens and of those that follow."""
  within_BI = jnp.cumsum(input_mask, axis=1) - 1
  return jnp.concatenate(
    [within_BI, within_BI[:, -1:] + 1 + jnp.arange(num_fed)], axis=1
  )


def _causal(is_real: Array) -> Array:
  """[B, 1, S, S] of slots [B, S]: real ones up to the query's."""
  before_SS = jnp.tri(is_real.shape[1], dtype=bool)
  return (before_SS & is_real[:, None, :])[:, None]


def _at_last(states: Array, input_mask: Array) -> Array:
  """[B, 1, D], the states [B, S, D] at the last tokens of the prompts."""
  slots = jnp.arange(input_mask.shape[1])
  last_B1 = jnp.max(jnp.where(input_mask, slots, 0), axis=1, keepdims=True)
  return jnp.take_along_axis(states, last_B1[..., None], axis=1)
