"""Makes a token cache of a seqio task.

The task's own source and preprocessors run once; tokens, prompt texts and
postprocessed references go to disk, with the names of the task's postprocess
and metric functions. From then on nothing needs TensorFlow.

A cache is keyed by a hash of the task, its preprocessing (functions, their
arguments and the source code they stand in), raw files, split, vocabulary and
lengths: a change of any of them makes a new one. An existing one is found
without importing TensorFlow. Rows are taken in the source's order; the loader
shuffles. Shards are written by worker processes; a killed command goes on
behind those that are finished.

Usage:
  path = find_or_build("gsm8k", "train", cache_dir="cache", lengths={"inputs":
    128, "targets": 256}, task_module="gkd.tasks.arithmetic", data_dir=data_dir,
    vocabulary=vocabulary)
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import logging
import os
from pathlib import Path
from typing import Any
from typing import Literal
from typing import get_args

from gkd.data import cache
from gkd.data import hashes
from gkd.data import shards
from gkd.data.builder import cache_key
from gkd.data.builder import lookup
from gkd.data.builder import seqio_source
from gkd.data.builder import staleness
from gkd.data.builder import workers
from gkd.data.builder.tokenise import FEATURES
from gkd.data.builder.tokenise import Job
from gkd.data.builder.tokenise import Recipe
from gkd.data.writer import CacheWriter
from gkd.errors import UserError
from gkd.progress import Progress
from gkd.text import raw_files
from gkd.text.vocabulary import Vocabulary

log = logging.getLogger("gkd")

Overlong = Literal["truncate", "refuse"]
_QUIET_SECONDS = 1.0  # a small cache needs no progress line


def find_or_build(
  task_name: str,
  split: str,
  *,
  cache_dir: str | os.PathLike,
  lengths: Mapping[str, int],
  task_module: str,
  data_dir: str | None,
  vocabulary: Vocabulary,
  overlong: Overlong = "truncate",
  num_workers: int | None = None,
  check: bool = False,
) -> str:
  """Path of the cache of one split of a task; made if it does not exist.

  Args:
    task_name: name of the seqio task.
    split: one of its splits; of a TFDS source also slices and sums of them.
    cache_dir: folder of all caches; the new one is
      `<cache_dir>/<task_name>/<split>-<hash>`.
    lengths: {"inputs": I, "targets": T} in tokens, EOS included.
    task_module: module whose `register(data_dir, vocabulary)` adds the task to
      seqio's registry.
    data_dir: raw data, as `register` wants it.
    vocabulary: the vocabulary of inputs and targets.
    overlong: cut rows that are longer than `lengths` and count them, their EOS
      kept as `seqio.preprocessors.append_eos_after_trim` does; or refuse them.
    num_workers: processes that tokenise; default: one a core, at least two. It
      changes nothing in the cache.
    check: also read an existing cache and compare its hashes, and ask the task
      for its arguments; one that is damaged or stale is made anew.

  Raises:
    UserError: an unknown task or split, no rows, rows too long with "refuse", a
      metric or postprocess function that cannot be imported without TensorFlow,
      a full disk.
  """
  _check_arguments(lengths, overlong, num_workers)
  found = lookup.find(
    cache_dir, task_name, split, lengths, vocabulary, overlong, data_dir
  )
  if found is not None and not check:
    return found
  if found is not None and not _can_be_made(found, data_dir):
    cache.TokenCache(found).verify()
    return found  # a cache that was brought here, or outlived its files
  task = seqio_source.load(task_name, split, task_module, data_dir, vocabulary)
  with raw_files.noting() as opened:
    examples = seqio_source.read(task, split, lengths, vocabulary)
    examples = _checked(examples, f"{task_name} {split}", data_dir)
    opened |= seqio_source.raw_files(task, split, data_dir)
    raw = staleness.describe(opened)
    info = {
      "task": task_name,
      "split": split,
      "lengths": dict(lengths),
      "overlong": overlong,
      "sources": cache_key.sources(task, task_module),
      **cache_key.functions(task),
      # Then there are no raw files that could change.
      "generated": getattr(task.source, "generated", False),
    }
    key = _key(info, task, vocabulary, raw, data_dir)
    info |= {"hash": hashes.content_hash(key), "vocabulary": vocabulary}
    name = f"{lookup.folder_name(split)}-{info['hash'][:12]}"
    path = Path(cache_dir) / task_name / name
    key["rows_per_shard"] = shards.FIRST_ROWS
    with CacheWriter(path, key, wait=True) as writer:
      # Another process may have made it while this one waited.
      if writer.exists and _is_usable(path, data_dir, check):
        writer.discard()
        return str(path)
      _write_shards(writer, examples, info, num_workers)
      _check_lengths(writer, info)
      # A source may open a file later than its first row.
      info["raw_files"] = staleness.describe(opened) | raw
      return writer.finish(info)


def _key(
  info: Mapping[str, Any],
  task: Any,
  vocabulary: Vocabulary,
  raw: Mapping[str, Mapping[str, Any]],
  data_dir: str | None,
) -> dict[str, Any]:
  """Everything that the rows of a cache depend on, as JSON."""
  return {
    **info,
    "format": cache.FORMAT,
    "vocabulary": vocabulary.spec(),
    "preprocessing": cache_key.preprocessing(task, data_dir),
    "raw_files": {name: noted["sha256"] for name, noted in raw.items()},
  }


def _check_arguments(lengths, overlong, num_workers) -> None:
  if overlong not in get_args(Overlong):
    raise UserError(
      f"overlong is {overlong!r}; expected one of {get_args(Overlong)}"
    )
  if set(lengths) != set(FEATURES) or min(lengths.values()) < 1:
    raise UserError(
      f"lengths are {dict(lengths)}; give 'inputs' and 'targets', 1 or more"
    )
  if num_workers is not None and num_workers < 1:
    raise UserError(f"{num_workers} workers; give 1 or more")


def _checked(
  examples: seqio_source.Examples, what: str, data_dir: str | None
) -> seqio_source.Examples:
  """The same, if there are any; opens the files of a source on the way."""
  first = list(itertools.islice(examples.rows, 1))
  if not first:
    raise UserError(
      f"{what} has no rows; check the task, its split and the files in"
      f" {data_dir or 'its data directory'}"
    )
  return examples._replace(rows=itertools.chain(first, examples.rows))


def _can_be_made(path: str, data_dir: str | None) -> bool:
  """Whether this machine has what a cache was made of."""
  lacking = staleness.missing(cache.TokenCache(path).info, data_dir)
  return seqio_source.is_possible() and not lacking


def _is_sound(path: str | os.PathLike) -> bool:
  """Reads a finished cache and compares its hashes; says what is wrong."""
  try:
    cache.TokenCache(path).verify()
  except UserError as error:
    log.warning("%s", error)
    return False
  return True


def _is_usable(path: Path, data_dir: str | None, check: bool) -> bool:
  """Whether the cache that stands at a path is to be kept.

  Its raw files are in its key, but not those that a source opens later on.
  """
  info = cache.TokenCache(path).info
  if not staleness.is_fresh(path, info, data_dir):
    return False
  if check and not _is_sound(path):
    log.warning("cache %s is made anew", path)
    return False
  os.utime(path / cache.INFO_FILE)  # of several that fit, the newest is found
  return True


def _write_shards(
  writer: CacheWriter,
  examples: seqio_source.Examples,
  info: Mapping[str, Any],
  num_workers: int | None,
) -> None:
  """Writes the shards that are not there yet."""
  log.info("tokenising %s, split %s", info["task"], info["split"])
  recipe = Recipe(
    folder=str(writer.folder),
    lengths=info["lengths"],
    vocabulary=info["vocabulary"],
    postprocess=info["postprocess"],
    add_eos=examples.add_eos,
  )
  finished = writer.finished
  jobs = _jobs(examples.rows, finished)
  progress = Progress(
    examples.total,
    initial=sum(finished.values()),
    description=f"cache {info['task']} {info['split']}",
    unit="row",
    delay=_QUIET_SECONDS,
  )
  with progress:
    count = num_workers or workers.default_count()
    for _, rows in workers.run(jobs, recipe, count):
      progress.update(rows)


def _jobs(
  rows: Iterable[Mapping[str, Any]], finished: Mapping[int, int]
) -> Iterator[Job]:
  """Rows cut into shards; finished ones are skipped."""
  rows = iter(rows)
  first_row = 0
  for index in itertools.count():
    size = shards.rows_in(index)
    examples = list(itertools.islice(rows, size))
    if not examples:
      return
    if index not in finished:
      yield Job(index, first_row, examples)
    first_row += len(examples)


def _check_lengths(writer: CacheWriter, info: dict[str, Any]) -> None:
  """Counts what was cut and rows without targets; adds that to `info`."""
  counts, lengths = writer.counts, info["lengths"]
  what = f"{info['task']} {info['split']}"
  long = {name: counts[f"truncated_{name}"] for name in FEATURES}
  if info["overlong"] == "refuse" and any(long.values()):
    writer.discard()
    raise UserError(
      f"{what}: "
      + " and ".join(
        f"{long[name]} rows have more than {lengths[name]} {name} tokens"
        for name in FEATURES
        if long[name]
      )
      + "; give longer lengths in TASK_FEATURE_LENGTHS or allow truncation"
    )
  for name in FEATURES:
    if long[name]:
      log.warning(
        "%s: %d rows had more than %d %s tokens and were cut",
        *(what, long[name], lengths[name], name),
      )
  if 0 < counts["prompts_alone"] < counts["rows"]:
    log.warning(
      "%s: %d of %d rows have no target; the split counts as prompts alone",
      *(what, counts["prompts_alone"], counts["rows"]),
    )
  info |= {f"truncated_{name}": long[name] for name in FEATURES}
