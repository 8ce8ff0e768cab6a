"""The generator: a model answers a batch of prompts with a decoding strategy.

Training, evaluation and offline sampling all call `generate`, one jitted
program for each model, strategy and shape.

  samples = generate(model, params, inputs, input_mask, example_ids, key,
                     SamplingParams(), max_length=32,
                     eos_ids=vocabulary.eos_ids, pad_id=vocabulary.pad_id)
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import functools
from typing import TypeVar

import jax

from gkd.sampling.sampler import Samples
from gkd.sampling.strategies import Strategy
from gkd.types import Array
from gkd.types import Key
from gkd.types import LanguageModel
from gkd.types import Params

_T = TypeVar("_T")
_STATIC = ("model", "num_best", "max_length", "eos_ids", "forbidden_ids")


def generate(
  model: LanguageModel,
  params: Params,
  inputs: Array,
  input_mask: Array,
  example_ids: Array,
  key: Key,
  strategy: Strategy,
  *,
  max_length: int,
  eos_ids: Sequence[int],
  pad_id: int,
  num_best: int | None = None,
) -> Samples:
  """Generates a target sequence for each prompt.

  Args:
    model: the model.
    params: its parameters.
    inputs: [B, I] int32 prompts, right-padded.
    input_mask: [B, I] bool, True on prompt ids.
    example_ids: [B] int32 global ids, which the draws depend on; −1 marks a
      filler row, which gets no tokens and does not keep the loop running.
    key: of one (seed, step, role), see `keys.stream`; a search does not use it.
    strategy: `SamplingParams` or `BeamSearch`, of host numbers.
    max_length: T, the longest sequence.
    eos_ids: the vocabulary's ids that end a sequence.
    pad_id: the vocabulary's padding, which is never generated.
    num_best: the number N of sequences of a search to return, [B, N, T], the
      best first (1 for a sample); None for one without the axis, [B, T].

  Returns:
    The `Samples`, on the device.
  """
  return _generate(
    strategy.as_arrays(),
    params,
    (inputs, input_mask, example_ids),
    key,
    model=model,
    num_best=num_best,
    max_length=max_length,
    eos_ids=tuple(eos_ids),
    forbidden_ids=forbidden_ids(model.start_id, eos_ids, pad_id),
  )


def forbidden_ids(
  start_id: int, eos_ids: Sequence[int], pad_id: int
) -> tuple[int, ...]:
  """Ids that are never generated: padding and start, unless they end a text."""
  return tuple(sorted({pad_id, start_id} - set(eos_ids)))


@functools.partial(jax.jit, static_argnames=_STATIC)
def _generate(strategy, params, prompts, key, *, model, num_best, **limits):
  """Compiled once for each model, strategy and shape."""
  samples = strategy.generate(
    model, params, *prompts, key=key, num_best=num_best or 1, **limits
  )
  return samples.best if num_best is None else samples


def prefetch(dispatched: Iterable[_T]) -> Iterator[_T]:
  """Results in order, each complete; the device computes the next meanwhile.

  Args:
    dispatched: yields a result as soon as its computation is dispatched.
  """
  waiting: list[_T] = []
  for result in dispatched:
    waiting.append(result)
    if len(waiting) > 1:
      yield jax.block_until_ready(waiting.pop(0))
  yield from map(jax.block_until_ready, waiting)
