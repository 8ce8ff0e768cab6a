"""Makes the token cache of a seqio task; from then on nothing needs TensorFlow.

Rows are taken in the source's order; the loader shuffles. Worker processes
write the shards; a killed command goes on behind those that are finished.

path = find_or_build(CacheSpec(task="gsm8k", split="train", cache_dir="cache",
  lengths={"inputs": 128, "targets": 256}, task_module="gkd.tasks.arithmetic",
  data_dir=data_dir, vocabulary=vocabulary))
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import itertools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from gkd.data import cache as caches
from gkd.data import cache_info
from gkd.data import hashes
from gkd.data import shards
from gkd.data.builder import cache_key
from gkd.data.builder import lookup
from gkd.data.builder import workers
from gkd.data.builder.lookup import CacheSpec
from gkd.data.builder.tokenise import Examples
from gkd.data.builder.tokenise import Job
from gkd.data.builder.tokenise import Recipe
from gkd.data.writer import CacheWriter
from gkd.errors import UserError
from gkd.progress import Progress
from gkd.text import chat_formats
from gkd.text import raw_files
from gkd.text import task_modules
from gkd.text.vocabulary import Vocabulary

log = logging.getLogger("gkd")
_MOST_WORKERS = 256

_QUIET_SECONDS = 1.0  # a small cache needs no progress line


def find_or_build(
  spec: CacheSpec, *, num_workers: int | None = None, check: bool = False
) -> str:
  """Path of the cache of one split of a task; made if it does not exist.

  Args:
    spec: the cache.
    num_workers: processes that tokenise; default: one a core, at least two. It
      changes nothing in the cache.
    check: also read an existing cache and compare its hashes, and ask the task
      for its arguments; a damaged or stale cache is rebuilt.
  """
  if num_workers is not None and not 1 <= num_workers <= _MOST_WORKERS:
    raise UserError(f"{num_workers} workers; give 1 to {_MOST_WORKERS}")
  path = lookup.find(spec)
  if path is None:
    return _build(spec, num_workers, check)
  if check:
    cache = caches.TokenCache(path)
    _, missing = cache_key.compare(cache.info, spec.data_dir)
    if _has_seqio() and not missing:
      return _build(spec, num_workers, check)
    cache.verify()  # it was copied here, or outlived its raw files
  return path


def own_vocabulary(spec: CacheSpec) -> Vocabulary | None:
  """That of the task, which the caches of it have too; None: it has none."""
  if path := lookup.find(dataclasses.replace(spec, vocabulary=None)):
    return caches.TokenCache(path).vocabulary
  if not spec.task_module or spec.data_files or not _has_seqio():
    return None
  from gkd.data.builder import seqio_source

  return seqio_source.own_vocabulary(spec)


def _has_seqio() -> bool:
  try:
    from gkd.data.builder import seqio_source  # noqa: F401
  except ImportError:
    return False
  return True


def _build(spec: CacheSpec, num_workers: int | None, check: bool) -> str:
  """Asks the task for its key; makes the cache unless a sound one has it."""
  try:
    from gkd.data.builder import seqio_source
  except ImportError as error:
    raise UserError(
      f"making the cache of {spec.name} needs seqio and TensorFlow ({error});"
      " install them or copy a cache made elsewhere here"
    ) from error
  task = seqio_source.load(spec)
  with raw_files.recording() as opened:
    examples = seqio_source.read(task, spec)
    opened |= seqio_source.raw_files(task, spec)
    raw = cache_key.raw_file_states(opened)
    _check_prompts(spec, examples)
    info = {
      **spec.fields,
      "key_format": cache_key.FORMAT,
      "sources": cache_key.source_hashes(task, spec.task_module),
      **seqio_source.function_names(task, spec.task_module),
      # Then there are no raw files that could change.
      "generated": getattr(task.source, "generated", False),
    }
    if not task_modules.takes_vocabulary(spec.task_module):
      info["own_vocabulary"] = True
    key = {
      **info,
      "format": cache_info.FORMAT,
      "vocabulary": spec.vocabulary.spec(),
      "arguments": cache_key.arguments(task, spec.data_dir),
      "raw_files": {name: state["sha256"] for name, state in raw.items()},
    }
    info["hash"] = hashes.content_hash(key)
    key["rows_per_shard"] = shards.FIRST_ROWS
    path = spec.folder(info["hash"])
    with CacheWriter(path, key, wait=True) as writer:
      # Another process may have made it while this one waited.
      if writer.exists and _is_usable(path, spec, check):
        writer.discard()
        return str(path)
      _write_shards(writer, examples, spec, info["postprocess"], num_workers)
      info |= _row_counts(writer, spec)
      info |= token_facts(writer.counts, writer.notes)
      # A source may open a file later than its first row.
      info["raw_files"] = cache_key.raw_file_states(opened) | raw
      made = writer.finish({**info, "vocabulary": spec.vocabulary})
  if "prompts_alone" in info:
    log.warning(
      "%s: %s; such rows have no metrics, and training on targets leaves them"
      " out",
      *(spec.name, caches.TokenCache(made).without_target),
    )
  return made


def _check_prompts(spec: CacheSpec, examples: Examples) -> None:
  """Refuses prompts that cannot have what the model expects around them."""
  vocabulary, length = spec.vocabulary, spec.lengths["inputs"]
  if examples.add_eos is None and (spec.frame or vocabulary.prompt_start):
    raise UserError(
      f"{spec.name} makes its tokens itself, so that what begins a prompt"
      " cannot be put before it; end its preprocessors with seqio's tokenize"
      " and append_eos, or give TRAIN_CACHE"
    )
  (empty,) = chat_formats.encode_prompts(vocabulary, [""], spec.frame)
  if spec.frame and len(empty) >= length:
    raise UserError(
      f"{spec.name}: the {spec.frame.name} format takes {len(empty)} of"
      f" {length} inputs tokens; give longer lengths in TASK_FEATURE_LENGTHS,"
      " or CHAT_FORMAT 'none'"
    )


def _is_usable(path: Path, spec: CacheSpec, check: bool) -> bool:
  """Whether the cache that stands at a path is to be kept.

  Its raw files are in its key, but not those that a source opens later on.
  """
  cache = caches.TokenCache(path)
  if not cache_key.is_fresh(path, cache.info, spec.data_dir):
    return False
  if check:
    try:
      cache.verify()
    except UserError as error:
      log.warning("%s", error)
      log.warning("cache %s is made anew", path)
      return False
  # Of several that fit, the newest is found.
  os.utime(path / cache_info.INFO_FILE)
  return True


def _write_shards(
  writer: CacheWriter,
  examples: Examples,
  spec: CacheSpec,
  postprocess: str | None,
  num_workers: int | None,
) -> None:
  """Writes the shards that are not there yet."""
  log.info("tokenising %s, split %s", spec.task, spec.split)
  recipe = Recipe(
    folder=str(writer.folder),
    lengths=dict(spec.lengths),
    vocabulary=spec.vocabulary,
    postprocess=postprocess,
    add_eos=examples.add_eos,
    frame=spec.frame,
    cut_left=spec.overlong == "truncate_left",
  )
  finished = writer.finished
  with Progress(
    examples.total,
    initial=sum(finished.values()),
    description=f"cache {spec.name}",
    unit="row",
    delay=_QUIET_SECONDS,
  ) as progress:
    jobs = _jobs(examples.rows, finished)
    for rows in workers.run(jobs, recipe, num_workers):
      progress.update(rows)


def _jobs(
  rows: Iterable[Mapping[str, Any]], finished: Mapping[int, int]
) -> Iterator[Job]:
  """Rows cut into shards; finished ones are skipped."""
  rows = iter(rows)
  first_row = 0
  for index in itertools.count():
    examples = list(itertools.islice(rows, shards.rows_in(index)))
    if not examples:
      return
    if index not in finished:
      yield Job(index, first_row, examples)
    first_row += len(examples)


def _row_counts(writer: CacheWriter, spec: CacheSpec) -> dict[str, int]:
  """Counts of rows that were cut, with a warning, and of prompts alone."""
  counts = writer.counts
  cut = {name: counts[f"truncated_{name}"] for name in cache_info.FEATURES}
  if spec.overlong == "refuse" and any(cut.values()):
    writer.discard()
    long = " and ".join(
      f"{cut[name]} rows have more than {spec.lengths[name]} {name} tokens"
      for name in cache_info.FEATURES
      if cut[name]
    )
    raise UserError(
      f"{spec.name}: {long}; give longer lengths in TASK_FEATURE_LENGTHS or"
      " allow truncation"
    )
  for name in filter(cut.get, cache_info.FEATURES):
    log.warning(
      "%s: %d rows had more than %d %s tokens and were cut",
      *(spec.name, cut[name], spec.lengths[name], name),
    )
  numbers = {f"truncated_{name}": count for name, count in cut.items()}
  if 0 < counts["prompts_alone"] < counts["rows"]:
    numbers["prompts_alone"] = counts["prompts_alone"]
  return numbers


def token_facts(
  counts: Mapping[str, int], notes: Mapping[str, str]
) -> dict[str, Any]:
  """What info.json says of tokens, of the counts and notes of `tokenise.rows`.

  Percentiles of the numbers of tokens before rows are cut; and, if there are
  any, the texts that the vocabulary does not keep.
  """
  facts: dict[str, Any] = {"token_lengths": {}}
  for name in cache_info.FEATURES:
    prefix = f"tokens_{name}:"
    rows = {
      int(key.removeprefix(prefix)): count
      for key, count in counts.items()
      if key.startswith(prefix) and count
    }
    if not rows:  # there are prompts alone
      continue
    lengths = np.repeat([*rows], [*rows.values()])
    facts["token_lengths"][name] = {
      str(percent): int(np.percentile(lengths, percent, method="inverted_cdf"))
      for percent in (50, 90, 99, 100)
    }
    if count := counts.get(f"lossy_{name}"):
      facts.setdefault("lossy", {})[name] = {
        "rows": count,
        "unknown_tokens": counts[f"unknown_{name}"],
        "example": notes[f"lossy_{name}"],
      }
  return facts
