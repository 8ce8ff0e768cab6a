"""Answers to all prompts of a split, batch by batch."""

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax

from gkd.sampling import sampler
from gkd.sampling.sampler import Decoding
from gkd.types import Batch
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params


class Examples(NamedTuple):
  """One batch of prompts and what the cache says about its rows."""

  batch: Batch  # without targets; the last one of a split has filler rows
  rows: list  # `data.cache.Row`s, no fillers


def answer(
  model: LanguageModel,
  params: Params,
  examples: Sequence[Examples],
  key: Key,
  decoding: Decoding,
  *,
  max_length: int,
  eos_id: int,
) -> list[sampler.Samples]:
  """One answer to each prompt, left on the device: batches overlap."""
  return [
    _generate(
      model,
      params,
      example.batch.inputs,
      example.batch.rows,
      key,
      decoding,
      max_length=max_length,
      eos_id=eos_id,
    )
    for example in examples
  ]


@functools.partial(jax.jit, static_argnames=("model", "max_length", "eos_id"))
def _generate(model, params, inputs, rows, key, decoding, max_length, eos_id):
  """`sampler.sample`, compiled once per model and shape."""
  return sampler.sample(
    model,
    params,
    inputs,
    rows,
    key,
    decoding,
    max_length=max_length,
    eos_id=eos_id,
  )
