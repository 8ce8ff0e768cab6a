"""A family that is not T5: bigrams that also see the prompt's mean."""

import dataclasses

import jax
import jax.numpy as jnp

from gkd.models import registry
from gkd.types import LanguageModel


@dataclasses.dataclass(frozen=True)
class BigramConfig:
  """Sizes: V rows of the tables, D width; a tuple, as JSON has none."""

  rows: int
  width: int = 8
  scales: tuple[float, ...] = (1.0, 0.5)


def model(rows: int = 18, width: int = 8) -> LanguageModel:
  """The record; params are prompt and previous [V, D], and head [D, V]."""
  return build(BigramConfig(rows, width))


@dataclasses.dataclass
class Unfrozen:
  """A config that could change after it was hashed."""

  width: int = 8


def unfrozen() -> LanguageModel:
  """A model that cannot be trained."""
  return dataclasses.replace(model(), config=Unfrozen())


def build(config: BigramConfig) -> LanguageModel:
  """The model of a config."""

  def init(key):
    keys = jax.random.split(key, 3)
    table = (config.rows, config.width)
    return {
      "prompt": jax.random.normal(keys[0], table),
      "previous": jax.random.normal(keys[1], table),
      "head": 0.1 * jax.random.normal(keys[2], table[::-1]),
    }

  def state(params, summary, previous):
    own, prompt = config.scales
    return jnp.tanh(own * params["previous"][previous] + prompt * summary)

  def summary(params, inputs, input_mask):
    mask = (inputs > 0 if input_mask is None else input_mask)[..., None]
    total = jnp.where(mask, params["prompt"][inputs], 0).sum(1)
    return total / jnp.maximum(mask.sum(1), 1)

  def hidden(params, inputs, targets, *, input_mask=None, **unused):
    del unused
    previous = jnp.pad(targets[:, :-1], ((0, 0), (1, 0)))
    return state(params, summary(params, inputs, input_mask)[:, None], previous)

  def head(params, hidden):
    return hidden @ params["head"]

  def prefill(params, inputs, max_length, *, input_mask=None):
    del max_length
    cache = summary(params, inputs, input_mask)
    start = jnp.zeros(inputs.shape[0], jnp.int32)
    return decode(params, cache, start)

  def decode(params, cache, tokens):
    return cache, head(params, state(params, cache, tokens))

  return LanguageModel(
    config=config,
    vocabulary_size=config.rows,
    start_id=0,
    init=init,
    hidden=hidden,
    head=head,
    prefill=prefill,
    decode=decode,
    axes=lambda params: {
      "prompt": ("vocab", "embed"),
      "previous": ("vocab", "embed"),
      "head": ("embed", "vocab"),
    },
  )


def register() -> None:
  """Lets its checkpoints open by themselves."""
  registry.register("bigram", BigramConfig, build)
