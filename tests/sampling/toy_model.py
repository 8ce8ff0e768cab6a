"""A language model that is a table: every distribution is known exactly.

The logits after token `s`, for a prompt whose first id is p, are
`table[p % P, s]`. There is nothing else in it, so a test can compute any
probability with NumPy.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gkd.types import LanguageModel


@dataclasses.dataclass(frozen=True)
class ToyConfig:
  """Sizes: P kinds of prompts, V columns of logits, real ids among them."""

  num_prompts: int = 3
  width: int = 12
  vocabulary_size: int = 10


def toy_model(config: ToyConfig = ToyConfig(), on_decode=None) -> LanguageModel:
  """The record; params are {"table": [P, V, V]}.

  Args:
    config: sizes.
    on_decode: called on the host at each decoding step, to count them.
  """

  def init(key):
    shape = (config.num_prompts, config.width, config.width)
    return {"table": 2.0 * jax.random.normal(key, shape)}

  def rows(params, inputs, previous):
    return params["table"][inputs[:, :1] % config.num_prompts, previous]

  def hidden(params, inputs, targets, **unused):
    del unused
    previous = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
    return rows(params, inputs, previous)

  def prefill(params, inputs, max_length):
    del max_length
    start = jnp.zeros((inputs.shape[0], 1), jnp.int32)
    return inputs, rows(params, inputs, start)[:, 0]

  def decode(params, cache, tokens):
    if on_decode is not None:
      jax.debug.callback(on_decode)
    return cache, rows(params, cache, tokens[:, None])[:, 0]

  return LanguageModel(
    config=config,
    vocabulary_size=config.vocabulary_size,
    init=init,
    hidden=hidden,
    head=lambda params, hidden: hidden,
    prefill=prefill,
    decode=decode,
    axes=lambda params: {"table": (None, None, None)},
  )
