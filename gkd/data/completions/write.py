"""Completions of prompts by a model, as a token cache that training reads.

Rows of one prompt follow one another. Completion k of prompt n depends only on
(seed, n, k), where n is the prompt's row in its cache: neither on the batch nor
on which other prompts are completed. What was killed goes on behind its last
shard. A beam search writes its best completions, the best first, each with its
score; a prompt of which fewer ended has fewer rows, which is counted.

spec = Completions(model=model, parameters={"sha256": "…"}, prompts=cache,
                   lengths={"inputs": 64, "targets": 32}, num_samples=4)
result = write_completions("completions", spec, lambda: params)
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import logging
import os
from pathlib import Path
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from gkd import keys
from gkd import partitioning
from gkd import processes
from gkd import watchdog
from gkd.collate import collate
from gkd.data import cache_info
from gkd.data import key_differences
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.completions.spec import Completions
from gkd.data.completions.spec import Result
from gkd.data.hashes import content_hash
from gkd.data.writer import CacheWriter
from gkd.errors import explaining_memory
from gkd.progress import Progress
from gkd.sampling.generate import generate
from gkd.sampling.generate import prefetch
from gkd.sampling.sampler import Samples
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


class _Part(NamedTuple):
  """n completions of each prompt of a batch: one that was drawn, or n best."""

  prompts: list[Row]  # without fillers
  samples: Samples  # [B, n, T]; length 0 where a search found fewer than n


@explaining_memory("lower BATCH_SIZE")
def write_completions(
  path: str | os.PathLike,
  spec: Completions,
  load_params: Callable[[], Params],
  provenance: Mapping[str, Any] | None = None,
) -> Result | None:
  """Writes completions as a token cache; continues or recognises an older one.

  Args:
    path: the folder to make; one with anything else in it is refused.
    spec: what to sample.
    load_params: the model's parameters; called if anything is left to do.
    provenance: JSON to keep in `info["written_by"]` beside the spec's key.

  Returns:
    What was written; None in a process that only takes part.

  Raises:
    FloatingPointError: the model's logits were not finite.
  """
  path = Path(path)
  if not processes.is_writer():
    return _follow(spec, load_params)
  with CacheWriter(path, spec.key, spare=True) as writer:
    if (path / cache_info.INFO_FILE).exists():
      processes.from_writer(list)  # nothing is left to do
      return _recognised(TokenCache(path), spec)
    log.info("sampling %s", spec.describe())
    before = sum(writer.finished.values()), writer.counts.get("tokens", 0)
    seconds, compile_seconds = _add_missing(writer, spec, load_params)
    counts, total = writer.counts, sum(writer.finished.values())
    kept = ("task", "split", "postprocess", "metrics")
    writer.finish(
      {
        **{name: spec.prompts.info[name] for name in kept},
        "lengths": dict(spec.lengths),
        "vocabulary": spec.prompts.vocabulary,
        "hash": content_hash(spec.key),
        "written_by": {**spec.key, **counts, **(provenance or {})},
      }
    )
  return Result(
    path=str(path),
    prompts=len(spec.rows),
    completions=total,
    **counts,
    new_completions=total - before[0],
    new_tokens=counts["tokens"] - before[1],
    seconds=seconds,
    compile_seconds=compile_seconds,
  )


def _follow(spec: Completions, load_params: Callable[[], Params]) -> None:
  """Computes what the writer writes, in the other processes."""
  if missing := processes.from_writer(list):
    params = partitioning.place_model(
      Model(spec.model, load_params()), spec.mesh
    ).params
    with watchdog.of_process.limited(watchdog.STUCK_SECONDS):
      for _ in prefetch(_dispatched(spec, params, missing)):
        watchdog.of_process.at("sample")


def _recognised(cache: TokenCache, spec: Completions) -> Result:
  """The finished completions that stand at the path already."""
  written_by = cache.info.get("written_by")
  if written_by is None:
    raise UserError(
      f"{cache.path} holds a cache of {cache.info['task']}"
      f" {cache.info['split']} that no model wrote; choose another folder"
    )
  made_with = {name: written_by.get(name) for name in spec.key}
  if difference := key_differences.describe(made_with, spec.key):
    raise UserError(
      f"{cache.path} holds completions made with {difference}; choose another"
      " folder, or delete that one to sample anew"
    )
  counts = {name: written_by[name] for name in _new_counts(spec)}
  return Result(str(cache.path), len(spec.rows), len(cache), **counts)


def _new_counts(spec: Completions) -> dict[str, int]:
  """What is added up over the completions, see `Result`."""
  names = ["tokens", "truncated"]
  names += ["missing", "same_text"] * spec.decoding.is_search
  return dict.fromkeys(names, 0)


def _add_missing(
  writer: CacheWriter, spec: Completions, load_params: Callable[[], Params]
) -> tuple[float, float]:
  """Adds the shards that are not there yet; seconds, and of those compiling."""
  finished = writer.finished
  missing = processes.from_writer(
    lambda: [i for i in range(spec.num_shards) if i not in finished]
  )
  if not missing:  # killed while the cache was moved into place
    return 0.0, 0.0
  model = Model(spec.model, load_params())
  params = partitioning.place_model(model, spec.mesh).params
  start = time.monotonic()
  # One stream over all shards: the device has work while one is written out.
  dispatched = _dispatched(spec, params, missing)
  first = next(dispatched)  # dispatched once it is compiled
  compiled = time.monotonic()
  parts = prefetch(itertools.chain([first], dispatched))
  total = len(spec.rows) * spec.num_samples
  done = sum(len(spec.shard(i)) for i in finished) * spec.num_samples
  with (
    Progress(total, done, "sample", unit="completion") as progress,
    watchdog.of_process.limited(watchdog.STUCK_SECONDS),
  ):
    tokens_done = 0

    def report(completions: int, tokens: int) -> None:
      nonlocal tokens_done
      tokens_done += tokens
      rate = tokens_done / (time.monotonic() - compiled)
      progress.update(completions, {"tokens/s": rate})
      watchdog.of_process.at("sample")

    for index in missing:
      counts = _new_counts(spec)
      batches = -(-len(spec.shard(index)) // spec.batch_size)
      of_shard = itertools.islice(parts, batches * _passes(spec))
      writer.add(index, _rows(of_shard, spec, counts, report), counts)
  return time.monotonic() - start, compiled - start


def _passes(spec: Completions) -> int:
  """How often the prompts of a batch are completed."""
  return 1 if spec.decoding.is_search else spec.num_samples


def _dispatched(
  spec: Completions, params: Params, shards: Sequence[int]
) -> Iterator[_Part]:
  """Dispatches the batches of these shards; of each one pass after another."""
  sharding = partitioning.batch_sharding(spec.mesh)
  model, passes = Model(spec.model, params), _passes(spec)
  for index in shards:
    shard = spec.shard(index)
    for start in range(0, len(shard), spec.batch_size):
      ids = list(shard[start : start + spec.batch_size])
      rows = spec.prompts.read(ids)
      widths = {"inputs": spec.width, "targets": 1}
      batch = collate(rows, ids, widths, spec.batch_size, with_targets=False)
      batch = partitioning.place(batch, sharding)
      for k in range(passes):
        samples = generate(
          model,
          batch,
          _key(np.int32(spec.seed), np.int32(k)),
          spec.decoding,
          max_length=spec.lengths["targets"],
          vocabulary=spec.prompts.vocabulary,
          num_best=spec.num_samples // passes,
        )
        yield _Part(rows, processes.replicate(samples))


@jax.jit
def _key(seed, k):
  """The key of completion k of each prompt."""
  return keys.stream(seed, k, keys.Role.OFFLINE_SAMPLE)


def _rows(
  parts: Iterator[_Part],
  spec: Completions,
  counts: dict[str, int],
  report: Callable[[int, int], None],
) -> Iterator[Row]:
  """The rows of a shard, completions of one prompt together; adds up counts.

  Drawn ones come in the order of k, those of a search the best first.
  """
  while batch := list(itertools.islice(parts, _passes(spec))):
    prompts = batch[0].prompts
    passes = jax.device_get([part.samples for part in batch])
    for samples in passes:
      if not samples.is_finite:
        raise FloatingPointError(
          "the logits of the model that writes are not finite; look at its"
          " checkpoint, finished shards stay"
        )
      lengths = samples.lengths[: len(prompts)]
      counts["tokens"] += int(lengths.sum())
      counts["truncated"] += int(samples.truncated[: len(prompts)].sum())
      report(lengths.size, int(lengths.sum()))
    for place, prompt in enumerate(prompts):
      rows = [
        row
        for samples in passes
        for row in _completed(prompt, samples, place, spec.prompts)
      ]
      if spec.decoding.is_search:
        texts = [spec.prompts.vocabulary.decode(r.targets) for r in rows]
        counts["missing"] += spec.num_samples - len(rows)
        counts["same_text"] += len(texts) - len(set(texts))
      yield from rows


def _completed(
  prompt: Row, samples: Samples, place: int, cache: TokenCache
) -> Iterator[Row]:
  """The row of a prompt, once for each completion; its reference stays.

  Of a prompt without one it is the completion.
  """
  for n, length in enumerate(samples.lengths[place]):
    if length:
      scores = samples.scores
      targets = np.asarray(samples.tokens[place, n, :length], np.int32)
      reference = prompt.reference
      if reference is None:
        text = cache.vocabulary.decode(targets.tolist())
        reference = cache.postprocess(text, example=None, is_target=True)
      yield prompt._replace(
        targets=targets,
        reference=reference,
        score=None if scores is None else float(scores[place, n]),
      )
