"""Completions of prompts on the device, one batch after the other.

`Completions` says which and how; `gkd.data.completions.write` writes them.

for part in prefetch(started(plan, params, shards=[0, 1])):
  part.tokens   # [B, n, T]
"""

from collections.abc import Iterator
from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys
from gkd import partitioning
from gkd.data.cache import Row
from gkd.data.completions.spec import Completions
from gkd.data.loader import collate
from gkd.sampling import beam_search
from gkd.sampling import sampler
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import Array
from gkd.types import Params


class Part(NamedTuple):
  """n completions of each prompt of a batch: one that was drawn, or n best."""

  rows: list[Row]  # the prompts, without fillers
  tokens: Array  # [B, n, T] int32
  lengths: Array  # [B, n] int32; 0 where a search found fewer than n
  truncated: Array  # [B, n] bool
  scores: Array | None  # [B, n] float32 of a search
  finite: Array  # [] bool, the model's logits


def started(
  plan: Completions, params: Params, shards: Sequence[int]
) -> Iterator[Part]:
  """Dispatches the batches of these shards; of each `plan.passes` in turn."""
  sharding = partitioning.batch_sharding(plan.mesh)
  limits = {"max_length": plan.lengths["targets"]}
  way = _as_compiled(plan)
  for index in shards:
    shard = plan.shard(index)
    for start in range(0, len(shard), plan.batch_size):
      ids = list(shard[start : start + plan.batch_size])
      rows = plan.prompts.read(ids)
      prompts = [row._replace(targets=row.targets[:0]) for row in rows]
      widths = {"inputs": plan.width, "targets": 1}
      batch = collate(prompts, ids, widths, plan.batch_size)
      arrays = jax.device_put((batch.inputs, batch.rows), sharding)
      asked = plan.model, params, *arrays
      if isinstance(way, BeamSearch):
        yield Part(
          rows, *_search(*asked, way, num_best=plan.num_samples, **limits)
        )
        continue
      for k in range(plan.num_samples):
        draw = np.int32(plan.seed), np.int32(k)
        yield Part(rows, *_generate(*asked, *draw, way, **limits))


def _as_compiled(plan: Completions) -> SamplingParams | BeamSearch:
  """Numbers as the program knows them: 1 and 1.0 are two types for it."""
  way = plan.decoding
  if isinstance(way, BeamSearch):
    return BeamSearch(way.size, np.float32(way.alpha))
  return SamplingParams(
    temperature=np.float32(way.temperature),
    top_k=np.int32(way.top_k),
    top_p=np.float32(way.top_p),
  )


@functools.partial(jax.jit, static_argnames=("model", "max_length"))
def _generate(
  model, params, inputs, rows, seed, k, decoding, max_length
) -> tuple[Array | None, ...]:
  """Completion k of each prompt; the arrays of a `Part`."""
  samples = sampler.sample(
    model,
    params,
    inputs,
    rows,
    keys.stream(seed, k, keys.Role.OFFLINE_SAMPLE),
    decoding,
    max_length=max_length,
  )
  finite = jnp.all(jnp.isfinite(samples.log_probs))
  found = samples.tokens, samples.lengths, samples.truncated
  return *(array[:, None] for array in found), None, finite


@functools.partial(jax.jit, static_argnames=("model", "num_best", "max_length"))
def _search(
  model, params, inputs, rows, way, num_best, max_length
) -> tuple[Array, ...]:
  """The best completions of each prompt; the arrays of a `Part`."""
  beams = beam_search.beam_search(
    model,
    params,
    inputs,
    rows,
    num_beams=way.size,
    alpha=way.alpha,
    max_length=max_length,
  )
  finite = ~jnp.any(jnp.isnan(beams.scores))
  found = beams.tokens, beams.lengths, beams.truncated, beams.scores
  return *(array[:, :num_best] for array in found), finite
