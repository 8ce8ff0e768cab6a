"""Completions of prompts by a model, as a token cache that training reads.

What `gkd sample` does, without a configuration: sequence-level and offline
distillation train on the result like on any other cache. Rows of one prompt
follow one another. Completion k of prompt n depends only on (seed, n, k), where
n is the prompt's row in its cache: neither on the batch nor on which other
prompts are completed. What was killed goes on behind its last shard.

  plan = Completions(model=model, parameters={"sha256": "…"}, prompts=cache,
                     lengths={"inputs": 64, "targets": 32}, num_samples=4)
  result = write_completions("answers", plan, lambda: params)
  print(result.words)
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import functools
import itertools
import logging
import os
from pathlib import Path
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys
from gkd import partitioning
from gkd.data import cache as caches
from gkd.data.builder import CacheBuilder
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.completions import Completions
from gkd.data.completions import Result
from gkd.data.hashes import content_hash
from gkd.data.loader import collate
from gkd.data.provenance import differences
from gkd.progress import Progress
from gkd.sampling import sampler
from gkd.sampling.filters import Decoding
from gkd.types import Array
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


def write_completions(
  path: str | os.PathLike,
  plan: Completions,
  load_params: Callable[[], Params],
  provenance: Mapping[str, Any] | None = None,
) -> Result:
  """Writes completions as a token cache; continues or recognises an older one.

  Args:
    path: the folder to make.
    plan: what to sample.
    load_params: the model's parameters; called if anything is left to do.
    provenance: JSON to keep in `info["written_by"]` beside the plan's key.

  Raises:
    UserError: the folder holds something else, a half-made cache of another
      plan, or is in use; or it cannot be written.
    FloatingPointError: the model's logits were not finite.
  """
  path = Path(path)
  with CacheBuilder(path, plan.key, spare=True) as builder:
    if (path / caches.INFO_FILE).exists():
      return _recognised(TokenCache(path), plan)
    log.info("sampling %s", plan.words)
    before = sum(builder.finished.values()), builder.counts.get("tokens", 0)
    spent = _sample_missing(builder, plan, load_params)
    counts = builder.counts
    info = plan.prompts.info
    written_by = {**plan.key, **counts, **(provenance or {})}
    builder.finish(
      {
        "task": info["task"],
        "split": info["split"],
        "lengths": dict(plan.lengths),
        "vocabulary": plan.prompts.vocabulary,
        "postprocess": info["postprocess"],
        "metrics": info["metrics"],
        "hash": content_hash(plan.key),
        "written_by": written_by,
      }
    )
  total = plan.num_prompts * plan.num_samples
  return Result(
    str(path),
    plan.num_prompts,
    total,
    counts["tokens"],
    counts["truncated"],
    total - before[0],
    counts["tokens"] - before[1],
    *spent,
  )


def _recognised(cache: TokenCache, plan: Completions) -> Result:
  """The finished completions that stand at the path already."""
  found = cache.info.get("written_by")
  if found is None:
    raise UserError(
      f"{cache.path} holds a cache of {cache.info['task']}"
      f" {cache.info['split']} that no model wrote; choose another folder"
    )
  made_with = {name: found.get(name) for name in plan.key}
  if difference := differences(made_with, plan.key):
    raise UserError(
      f"{cache.path} holds completions made with {difference}; choose another"
      " folder, or delete that one to sample anew"
    )
  return Result(
    str(cache.path),
    plan.num_prompts,
    len(cache),
    found["tokens"],
    found["truncated"],
    0,
    0,
    0.0,
    0.0,
  )


def _sample_missing(
  builder: CacheBuilder, plan: Completions, load_params: Callable[[], Params]
) -> tuple[float, float]:
  """Adds the shards that are not there yet; seconds, and of those compiling."""
  finished = builder.finished
  missing = [i for i in range(plan.num_shards) if i not in finished]
  if not missing:  # killed while the cache was moved into place
    return 0.0, 0.0
  params = load_params()
  axes = plan.model.axes(params)
  params = partitioning.place(params, partitioning.shardings(axes, plan.mesh))
  start = time.monotonic()
  # One stream over all shards: the device has work while one is written out.
  started = _started(plan, params, missing)
  first = next(started)  # dispatched once it is compiled
  compiled = time.monotonic()
  drawn = _one_ahead(itertools.chain([first], started))
  total = plan.num_prompts * plan.num_samples
  with Progress(
    total, sum(finished.values()), "sample", unit="completion"
  ) as progress:
    tokens_done = 0

    def report(completions: int, tokens: int) -> None:
      nonlocal tokens_done
      tokens_done += tokens
      rate = tokens_done / (time.monotonic() - compiled)
      progress.update(completions, {"tokens/s": rate})

    for index in missing:
      counts = {"tokens": 0, "truncated": 0}
      batches = -(-len(plan.shard(index)) // plan.batch_size)
      parts = itertools.islice(drawn, batches * plan.num_samples)
      rows = _rows(parts, plan, counts, report)
      builder.add(index, rows, counts)
  return time.monotonic() - start, compiled - start


class _Drawn(NamedTuple):
  """One completion of each prompt of a batch, on the device."""

  rows: list[Row]  # the prompts, without fillers
  tokens: Array  # [B, T] int32
  lengths: Array  # [B] int32
  truncated: Array  # [B] bool
  finite: Array  # [] bool


def _started(
  plan: Completions, params: Params, missing: Sequence[int]
) -> Iterator[_Drawn]:
  """Dispatches batch after batch, the completions of one in turn."""
  sharding = partitioning.batch_sharding(plan.mesh)
  # As the compiled program knows them: 1 and 1.0 are two types for it.
  decoding = Decoding(
    temperature=np.float32(plan.decoding.temperature),
    top_k=np.int32(plan.decoding.top_k),
    top_p=np.float32(plan.decoding.top_p),
  )
  for index in missing:
    shard = plan.shard(index)
    for start in range(0, len(shard), plan.batch_size):
      ids = list(shard[start : start + plan.batch_size])
      rows = plan.prompts.read(ids)
      prompts = [row._replace(targets=row.targets[:0]) for row in rows]
      widths = {"inputs": plan.width, "targets": 1}
      batch = collate(prompts, ids, widths, plan.batch_size)
      inputs, row_ids = jax.device_put((batch.inputs, batch.rows), sharding)
      for k in range(plan.num_samples):
        yield _Drawn(
          rows,
          *_generate(
            plan.model,
            params,
            inputs,
            row_ids,
            np.int32(plan.seed),
            np.int32(k),
            decoding,
            max_length=plan.lengths["targets"],
          ),
        )


@functools.partial(jax.jit, static_argnames=("model", "max_length"))
def _generate(
  model, params, inputs, rows, seed, k, decoding, max_length
) -> tuple[Array, Array, Array, Array]:
  """Completion k of each prompt; see `_Drawn`."""
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
  return samples.tokens, samples.lengths, samples.truncated, finite


def _one_ahead(started: Iterator[_Drawn]) -> Iterator[_Drawn]:
  """In order, on the host; the device works on the next one meanwhile."""
  waiting = next(started, None)
  while waiting is not None:
    following = next(started, None)
    yield _Drawn(waiting.rows, *jax.device_get(waiting[1:]))
    waiting = following


def _rows(
  parts: Iterator[_Drawn],
  plan: Completions,
  counts: dict[str, int],
  report: Callable[[int, int], None],
) -> Iterator[Row]:
  """The rows of a shard, completions of one prompt together; adds up counts."""
  while batch := list(itertools.islice(parts, plan.num_samples)):
    for part in batch:
      if not part.finite:
        raise FloatingPointError(
          "the logits of the model that writes are not finite; look at its"
          " checkpoint, finished shards stay"
        )
      real = slice(len(part.rows))
      tokens = int(part.lengths[real].sum())
      counts["tokens"] += tokens
      counts["truncated"] += int(part.truncated[real].sum())
      report(len(part.rows), tokens)
    for place, row in enumerate(batch[0].rows):
      for part in batch:
        # The reference stays the task's own.
        kept = part.tokens[place, : part.lengths[place]]
        yield row._replace(targets=np.asarray(kept, np.int32))
