"""Completions of prompts by a model, as a token cache that training reads.

What `gkd sample` does, without a configuration: sequence-level and offline
distillation train on the result like on any other cache. Rows of one prompt
follow one another. Completion k of prompt n depends only on (seed, n, k), where
n is the prompt's row in its cache: neither on the batch nor on which other
prompts are completed. What was killed goes on behind its last shard.

A beam search writes its best completions, the best first, each with its score.
A prompt of which fewer than n ended has fewer rows, which is counted.

  plan = Completions(model=model, parameters={"sha256": "…"}, prompts=cache,
                     lengths={"inputs": 64, "targets": 32}, num_samples=4)
  result = write_completions("answers", plan, lambda: params)
  print(result.words)
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import logging
import os
from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from gkd import partitioning
from gkd.data import cache as caches
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.completions import generation
from gkd.data.completions.generation import Part
from gkd.data.completions.spec import Completions
from gkd.data.completions.spec import Result
from gkd.data.hashes import content_hash
from gkd.data.hashes import differences
from gkd.data.writer import CacheWriter
from gkd.progress import Progress
from gkd.sampling.generate import prefetch
from gkd.sampling.strategies import BeamSearch
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
  with CacheWriter(path, plan.key, spare=True) as writer:
    if (path / caches.INFO_FILE).exists():
      return _recognised(TokenCache(path), plan)
    log.info("sampling %s", plan.words)
    before = sum(writer.finished.values()), writer.counts.get("tokens", 0)
    spent = _sample_missing(writer, plan, load_params)
    counts, total = writer.counts, sum(writer.finished.values())
    info = plan.prompts.info
    written_by = {**plan.key, **counts, **(provenance or {})}
    writer.finish(
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
  return Result(
    str(path),
    plan.num_prompts,
    total,
    counts["tokens"],
    counts["truncated"],
    counts.get("missing", 0),
    counts.get("same_text", 0),
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
    found.get("missing", 0),
    found.get("same_text", 0),
    0,
    0,
    0.0,
    0.0,
  )


def _sample_missing(
  writer: CacheWriter, plan: Completions, load_params: Callable[[], Params]
) -> tuple[float, float]:
  """Adds the shards that are not there yet; seconds, and of those compiling."""
  finished = writer.finished
  missing = [i for i in range(plan.num_shards) if i not in finished]
  if not missing:  # killed while the cache was moved into place
    return 0.0, 0.0
  params = load_params()
  axes = plan.model.axes(params)
  params = partitioning.place(params, partitioning.shardings(axes, plan.mesh))
  start = time.monotonic()
  # One stream over all shards: the device has work while one is written out.
  started = generation.started(plan, params, missing)
  first = next(started)  # dispatched once it is compiled
  compiled = time.monotonic()
  dispatched = itertools.chain([first], started)
  parts = (
    Part(part.rows, *jax.device_get(part[1:])) for part in prefetch(dispatched)
  )
  total = plan.num_prompts * plan.num_samples
  done = sum(len(plan.shard(i)) for i in finished) * plan.num_samples
  with Progress(total, done, "sample", unit="completion") as progress:
    tokens_done = 0

    def report(completions: int, tokens: int) -> None:
      nonlocal tokens_done
      tokens_done += tokens
      rate = tokens_done / (time.monotonic() - compiled)
      progress.update(completions, {"tokens/s": rate})

    for index in missing:
      counts = dict.fromkeys(plan.counted, 0)
      batches = -(-len(plan.shard(index)) // plan.batch_size)
      of_shard = itertools.islice(parts, batches * plan.passes)
      writer.add(index, _rows(of_shard, plan, counts, report), counts)
  return time.monotonic() - start, compiled - start


def _rows(
  parts: Iterator[Part],
  plan: Completions,
  counts: dict[str, int],
  report: Callable[[int, int], None],
) -> Iterator[Row]:
  """The rows of a shard, completions of one prompt together; adds up counts.

  Drawn ones come in the order of k, those of a search the best first.
  """
  while batch := list(itertools.islice(parts, plan.passes)):
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
      report(part.lengths[real].size, tokens)
    for place in range(len(batch[0].rows)):
      rows = [row for part in batch for row in _completed(part, place)]
      if isinstance(plan.decoding, BeamSearch):
        texts = [plan.prompts.vocabulary.decode(r.targets) for r in rows]
        counts["missing"] += plan.num_samples - len(rows)
        counts["same_text"] += len(texts) - len(set(texts))
      yield from rows


def _completed(part: Part, place: int) -> Iterator[Row]:
  """The row of a prompt, once for each completion in this part."""
  for n, length in enumerate(part.lengths[place]):
    if length:
      # The reference stays the task's own.
      yield part.rows[place]._replace(
        targets=np.asarray(part.tokens[place, n, :length], np.int32),
        score=None if part.scores is None else float(part.scores[place, n]),
      )
