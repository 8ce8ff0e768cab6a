"""A language model that is a table: every distribution is known exactly.

The logits after token `s`, for a prompt whose first id is p, are
`table[p % P, s]`. There is nothing else in it, so a test can compute any
probability with NumPy.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np

from gkd.sampling import beam_search
from gkd.sampling import sampler
from gkd.types import Batch
from gkd.types import LanguageModel

PAD_ID, EOS_ID = 0, 1  # as T5 has them
VOCABULARY = types.SimpleNamespace(
  pad_id=PAD_ID, eos_ids=(EOS_ID,), control_ids=()
)


def make_inputs(num_rows):
  """Prompts [num_rows, 4] of each kind in turn, right-padded."""
  inputs = np.zeros((num_rows, 4), np.int32)
  inputs[:, 0] = 2 + np.arange(num_rows) % 3
  inputs[:, 1] = EOS_ID
  return inputs


def prompts(inputs, rows) -> Batch:
  """A batch of prompts alone."""
  return Batch(inputs, inputs > 0, None, None, rows, None)


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

  def prefill(params, inputs, max_length, **unused):
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
    start_id=0,
    init=init,
    hidden=hidden,
    head=lambda params, hidden: hidden,
    prefill=prefill,
    decode=decode,
    axes=lambda params: {"table": (None, None, None)},
  )


# A number of the tokens so far, of which few collide.
NUM_STATES = 1009


def next_state(state, token):
  """Of one token more; the state of none is 0."""
  return (state * 31 + token + 7) % NUM_STATES


def history_model(config: ToyConfig = ToyConfig()) -> LanguageModel:
  """One whose logits depend on all tokens so far: `table[p % P, state]`.

  Sequences of the same tokens in another order differ in probability, and a
  cache that follows the wrong beam is seen. Params are {"table": [P, S, V]}.
  """

  def init(key):
    shape = (config.num_prompts, NUM_STATES, config.width)
    return {"table": 2.0 * jax.random.normal(key, shape)}

  def at(params, inputs, state):
    return params["table"][inputs[:, 0] % config.num_prompts, state]

  def prefill(params, inputs, max_length, **unused):
    del max_length
    state = jnp.zeros(inputs.shape[:1], jnp.int32)
    return (inputs, state), at(params, inputs, state)

  def decode(params, cache, tokens):
    inputs, state = cache
    state = next_state(state, tokens)
    return (inputs, state), at(params, inputs, state)

  def unused(*args, **kwargs):
    raise NotImplementedError

  return LanguageModel(
    config=config,
    vocabulary_size=config.vocabulary_size,
    start_id=0,
    init=init,
    hidden=unused,
    head=unused,
    prefill=prefill,
    decode=decode,
    axes=lambda params: {"table": (None, None, None)},
  )


T5_IDS = {"eos_ids": (EOS_ID,), "forbidden_ids": (PAD_ID,)}


def _jitted(function):
  static = ("model", "num_beams", "max_length", "eos_ids", "forbidden_ids")
  jitted = jax.jit(function, static_argnames=static)

  def call(*args, **options):
    return jitted(*args, **T5_IDS | options)

  call.cache_size = jitted._cache_size
  return call


@_jitted
def sample(model, params, inputs, rows, key, decoding, **options):
  """`sampler.sample`, by default with T5's ids; shared by the tests."""
  return sampler.sample(
    model, params, inputs, inputs > 0, rows, key, **vars(decoding), **options
  )


@_jitted
def search(model, params, inputs, rows, **options):
  """`beam_search.beam_search` in the same way."""
  return beam_search.beam_search(
    model, params, inputs, inputs > 0, rows, **options
  )
