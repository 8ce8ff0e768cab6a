"""The generator: a model answers a batch of prompts with a decoding strategy.

Training, evaluation and offline sampling all call `generate`, one jitted
program for each model, strategy and shape.

  samples = generate(model, batch, key, SamplingParams(), max_length=32,
                     vocabulary=vocabulary)
"""

from collections.abc import Iterable
from collections.abc import Iterator
import functools
from typing import TypeVar

import jax
import numpy as np

from gkd.models import few_rows
from gkd.models import layer_stack
from gkd.sampling.sampler import Samples
from gkd.sampling.strategies import Strategy
from gkd.text.vocabulary import Vocabulary
from gkd.types import Batch
from gkd.types import Key
from gkd.types import Model

_T = TypeVar("_T")
_STATIC = ("model", "num_best", "max_length", "eos_ids", "forbidden_ids")


def generate(
  model: Model,
  batch: Batch,
  key: Key,
  strategy: Strategy,
  *,
  max_length: int,
  vocabulary: Vocabulary,
  num_best: int | None = None,
  horizon: int | None = None,
) -> Samples:
  """Generates a target sequence for each prompt.

  Args:
    model: functions and parameters.
    batch: prompts; the draws depend on its row ids, and a filler row (−1) gets
      no tokens and does not keep the loop running. Targets are not read.
    key: of one (seed, step, role), see `keys.stream`; a search does not use it.
    strategy: `SamplingParams` or `BeamSearch`, of host numbers.
    max_length: T, the longest sequence.
    vocabulary: its `eos_ids` end a sequence, its `control_ids` are never
      generated.
    num_best: the number N of sequences of a search to return, [B, N, T], the
      best first (1 for a sample); None for one without the axis, [B, T].
    horizon: of samples, traced: rows end after so many tokens, if T is not
      less; None for T.

  Returns:
    The `Samples`, on the device.
  """
  arguments, static = _arguments(
    model, batch, key, strategy, max_length, vocabulary, num_best, horizon
  )
  return _generate(*arguments, **static)


def trace(
  model: Model,
  batch: Batch,
  key: Key,
  strategy: Strategy,
  *,
  max_length: int,
  vocabulary: Vocabulary,
  horizon: int | None = None,
) -> jax.stages.Traced:
  """The trace of the program of `generate`, which JAX keeps after a call."""
  arguments, static = _arguments(
    model, batch, key, strategy, max_length, vocabulary, None, horizon
  )
  return _generate.trace(*arguments, **static)


def _arguments(
  model, batch, key, strategy, max_length, vocabulary, num_best, horizon
):
  """Those of `_generate`, traced and static."""
  return (
    strategy.as_arrays(),
    model.params,
    (*model.lm.prompts(batch), batch.rows),
    key,
  ), {
    "horizon": None if horizon is None else np.int32(horizon),
    "model": model.lm,
    "num_best": num_best,
    "max_length": max_length,
    "eos_ids": tuple(vocabulary.eos_ids),
    "forbidden_ids": forbidden_ids(model.lm.start_id, vocabulary),
  }


def forbidden_ids(start_id: int, vocabulary: Vocabulary) -> tuple[int, ...]:
  """Never generated: padding, start, control, unless they end a text."""
  never = {vocabulary.pad_id, start_id, *vocabulary.control_ids}
  return tuple(sorted(never - set(vocabulary.eos_ids)))


@functools.partial(jax.jit, static_argnames=_STATIC)
def _generate(
  strategy, params, prompts, key, *, model, num_best, horizon=None, **limits
):
  """Compiled once for each model, strategy and shape."""
  if horizon is not None:  # a search has none
    limits["horizon"] = horizon
  params = layer_stack.unstacked(model.on_device(params))
  if model.gathers_to_sample:
    params = model.gathered(params)
  if model.gathers_to_sample or model.sampling_dtype:
    params = few_rows.prepared(params, model.sampling_dtype)
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
