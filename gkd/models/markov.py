"""A Markov chain whose next token also depends on the prompt, as a model.

Its distribution is a table, so the probability of any sequence is known in
closed form: a truth that larger models can learn in part.

  log p(y_t | x, y_<t) = log softmax(table[c] + sum_i prompt[x_i, c] / sqrt(I)),

c the last `order` tokens, x_1 … x_I the prompt. `init` draws both tables from
normal distributions, and that of the end-of-sequence so that sequences have
about `mean_length` tokens.

  model = markov_chain(MarkovConfig(vocab_size=14, sharpness=3.0))
  params = model.init(jax.random.key(0))
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from gkd.types import Array
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Pair
from gkd.types import Params

# A logit, of probability 1e-9 or so: with 0 every other model, which has only
# learned that these ids do not occur, would be infinitely far from the chain.
_UNUSED = -20.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class MarkovConfig:
  """Sizes of the tables, and what `init` draws them from.

  Attributes:
    vocab_size: V, of which all ids are real.
    order: number of tokens that the next one depends on.
    sharpness: standard deviation of the logits; 0 is uniform.
    mean_length: expected number of tokens, the end included.
    pad_id: fills the context of the first tokens.
    eos_ids: what ends a sequence; several are equally likely.
    unused_ids: ids that do not occur, such as padding and the unknown token.
  """

  vocab_size: int
  order: int = 1
  sharpness: float = 2.0
  mean_length: float = 8.0
  pad_id: int = 0
  eos_ids: tuple[int, ...] = (1,)
  unused_ids: tuple[int, ...] = (0, 2)


def markov_chain(config: MarkovConfig) -> LanguageModel:
  """The record; params are `table` [C, V] and `prompt` [V, C, V], C = V^order.

  Packed batches are not supported.
  """

  def prefill(params, inputs, max_length, *, input_mask=None):
    del max_length
    start = sum(
      config.pad_id * config.vocab_size**n for n in range(config.order)
    )
    context = jnp.full(inputs.shape[0], start, jnp.int32)
    rows = _of_prompts(config, params, inputs, input_mask)
    return (rows, context), _at_contexts(rows, context[:, None])[:, 0]

  def decode(params, cache, tokens):
    del params
    rows, context = cache
    context = (context * config.vocab_size + tokens) % rows.shape[1]
    return (rows, context), _at_contexts(rows, context[:, None])[:, 0]

  return LanguageModel(
    config=config,
    vocabulary_size=config.vocab_size,
    start_id=config.pad_id,
    init=functools.partial(_init, config),
    hidden=functools.partial(_logits, config),
    head=lambda params, hidden: hidden,
    prefill=prefill,
    decode=decode,
    axes=lambda params: {"table": (None,) * 2, "prompt": (None,) * 3},
  )


def _init(config: MarkovConfig, key: Key) -> Params:
  size = config.vocab_size
  scale = config.sharpness / math.sqrt(2)  # two terms of equal variance
  drawn = scale * jax.random.normal(key, (1 + size, size**config.order, size))
  ends, unused = list(config.eos_ids), list(config.unused_ids)
  others = np.setdiff1d(np.arange(size), ends + unused)
  # As the sum of both terms is distributed, of which the end gets its share.
  total = jax.nn.logsumexp(math.sqrt(2) * drawn[0][:, others], axis=-1)
  end = jnp.mean(total) - math.log((config.mean_length - 1) * len(ends))
  table = drawn[0].at[:, ends].set(end).at[:, unused].set(_UNUSED)
  return {"table": table, "prompt": drawn[1:].at[..., ends + unused].set(0.0)}


def _logits(
  config: MarkovConfig,
  params: Params,
  inputs: Array,
  targets: Array,
  *,
  input_mask: Array | None = None,
  segments: Pair | None = None,
  **unused,
) -> Array:
  """[B, T, V]; what the head gets is what it returns."""
  del unused
  assert segments is None, "packed"
  fill = ((0, 0), (config.order, 0))
  padded = jnp.pad(targets, fill, constant_values=config.pad_id)
  context = jnp.zeros_like(targets)
  for place in range(config.order):
    tokens = padded[:, place : place + targets.shape[1]]
    context = context * config.vocab_size + tokens
  rows = _of_prompts(config, params, inputs, input_mask)
  return _at_contexts(rows, context)


def _of_prompts(
  config: MarkovConfig,
  params: Params,
  inputs: Array,
  input_mask: Array | None,
) -> Array:
  """[B, C, V], the logits of each prompt and context."""
  mask = inputs != config.pad_id if input_mask is None else input_mask
  rows = jnp.where(mask[..., None, None], params["prompt"][inputs], 0.0)
  length = jnp.maximum(jnp.sum(mask, axis=1), 1)[:, None, None]
  return params["table"] + jnp.sum(rows, axis=1) / jnp.sqrt(length)


def _at_contexts(rows: Array, contexts: Array) -> Array:
  """[B, C, V] and indices of contexts [B, T] -> [B, T, V]."""
  return jnp.take_along_axis(rows, contexts[..., None], axis=1)
