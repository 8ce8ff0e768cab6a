"""Finds or makes the token caches that a command reads.

An existing cache is found without TensorFlow, and so are the rates of a mixture
that seqio registers; only making a new one imports seqio, inside `build_cache`.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import functools
import logging
from typing import Any

from gkd import files
from gkd.config import vocabularies
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data import cache_info
from gkd.data import split_names
from gkd.data.builder import build_cache
from gkd.data.builder import contamination
from gkd.data.builder import lookup
from gkd.data.builder import mixture_rates
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.data.cache_info import FEATURES
from gkd.data.mixture import Mixture
from gkd.text import chat_formats
from gkd.text import file_rows
from gkd.text.data_files import TASK_MODULE
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import first_difference
from gkd.types import UserError

log = logging.getLogger("gkd")
# Once in a process: a command looks for the same cache several times.
_log_once = functools.cache(log.info)


def open_cache(
  data: DataConfig,
  folders: Folders,
  *,
  num_workers: int | None = None,
  rebuild: bool = False,
) -> TokenCache:
  """The cache of a split, made now if it does not exist.

  Args:
    data: names the cache, or task and split.
    folders: where raw files are and caches go.
    num_workers: processes that tokenise; default: one a core, at least two.
    rebuild: read every byte of an existing cache, and ask the task for its
      arguments; one that is damaged or stale is made anew.

  Raises:
    UserError: something is missing, or there are several caches.
  """
  refuse_several(data, folders)
  if data.cache:
    cache = TokenCache(files.local_path(data.cache))
    if data.vocabulary:
      name = f"VOCABULARY {data.vocabulary!r}"
      remedy = (
        "set VOCABULARY and EXTRA_IDS to the cache's, or make the cache again"
      )
      check_vocabulary(cache, vocabularies.of(data, folders), name, remedy)
  else:
    spec = _spec(data, folders, vocabulary_of(data, folders))
    path = None if rebuild else lookup.find(spec)
    if not path and not spec.task_module:
      raise UserError(
        f"task {data.task!r}: no cache of split {data.split!r} in"
        f" {folders.cache_dir} and TASK_MODULE is empty; give the module that"
        " registers the task, your own DATA_FILES, or TRAIN_CACHE and"
        " EVAL_CACHE"
      )
    cache = TokenCache(
      path
      or build_cache.find_or_build(spec, num_workers=num_workers, check=rebuild)
    )
  for line in cache_info.lossy(cache.info):
    log.warning("%s %s: %s", cache.info["task"], cache.info["split"], line)
  if (of_teacher := data.of_teacher) is None:
    return cache
  other = open_cache(
    of_teacher, folders, num_workers=num_workers, rebuild=rebuild
  )
  remedy = "make the cache of the teacher's prompts again with that VOCABULARY"
  check_vocabulary(other, cache.vocabulary, f"cache {cache.path}", remedy)
  return cache.with_teacher_prompts(other)


def open_mixture(
  data: DataConfig, folders: Folders, *, rebuild: bool = False, **options: Any
) -> Mixture:
  """The caches that a run trains on; see `open_cache` for the options."""
  field = "cache" if data.cache else "task"

  @functools.cache
  def open_part(name: str) -> TokenCache:
    part = dataclasses.replace(data, mixture=None, **{field: name})
    return open_cache(part, folders, rebuild=rebuild, **options)

  rates = data.mixture
  if isinstance(data.cache, Mapping):
    rates = data.cache
  elif data.cache:
    names = [data.cache] if isinstance(data.cache, str) else data.cache
    rates = dict.fromkeys(names, 1)
  if not rates:
    rates = _registered(data, folders, open_part, rebuild) or {data.task: 1}
  return Mixture((open_part(name), rate) for name, rate in rates.items())


def vocabulary_of(data: DataConfig, folders: Folders) -> Vocabulary:
  """The one that VOCABULARY names; where it is empty the task's own."""
  if not data.vocabulary and data.task:
    mixture = data.mixture or mixture_rates.find(
      folders.cache_dir, data.task, folders.data_dir
    )
    task = next(iter(mixture or [data.task]))
    spec = _spec(dataclasses.replace(data, task=task), folders, None)
    if own := build_cache.own_vocabulary(spec):
      return own
  return vocabularies.of(data, folders)


def check_vocabulary(
  cache: TokenCache, vocabulary: Vocabulary, name: str, remedy: str
) -> None:
  """Refuses a cache with tokens of another vocabulary than the one named."""
  if not cache_info.same_vocabulary(cache.info, vocabulary):
    difference = first_difference(vocabulary, cache.vocabulary)
    if "written_by" in cache.info:
      remedy += f", or read its text: gkd cache export {cache.path}"
    raise UserError(
      f"cache {cache.path} was made with another vocabulary than {name}:"
      f" {difference}; {remedy}"
    )


def refuse_several(data: DataConfig, folders: Folders) -> None:
  """Refuses a mixture: scores and completions are of one task each."""
  several = data.mixture or ({} if isinstance(data.cache, str) else data.cache)
  if not several and not data.cache and data.task:
    several = mixture_rates.find(folders.cache_dir, data.task, folders.data_dir)
  if several:
    raise UserError(
      f"{data.task if not data.cache else 'TRAIN_CACHE'} is a mixture, which is"
      f" for training; name one of its parts: {', '.join(several)}"
    )


def check_split_names(
  train: DataConfig, evaluated: Iterable[DataConfig]
) -> None:
  """Refuses splits that share rows, by name, before any cache is made."""
  for data in evaluated:
    if not (train.cache or data.cache):
      for task in train.mixture or [train.task]:
        _refuse_shared_rows(task, train.split, data.task, data.split)


def check_files(used: Iterable[DataConfig], folders: Folders) -> None:
  """Refuses own files without the columns of DATA_FIELDS, before TensorFlow."""
  used = [*used, *filter(None, (data.of_teacher for data in used))]
  for data in used:
    if data.own.files and not data.cache:
      file_rows.check(folders.data_dir or ".", data.own, data.split)


def check_disjoint(train: Mixture, evaluation: TokenCache) -> None:
  """Refuses to evaluate on rows of the training split of the same task.

  Prompts that merely occur in both are counted in a warning: real data sets
  have such duplicates.
  """
  right = evaluation.info
  for cache in train.caches:
    left = cache.info
    _refuse_shared_rows(
      left["task"], left["split"], right["task"], right["split"]
    )
    repeats = contamination.shared(cache, evaluation)
    if repeats.prompts:
      log.warning(
        "%d prompts of %s (%s) also occur in the training data (%s %s), such as"
        " %s",
        *(repeats.prompts, right["task"], right["split"]),
        *(left["task"], left["split"], repeats.quoted),
      )


def _spec(
  data: DataConfig, folders: Folders, vocabulary: Vocabulary | None
) -> CacheSpec:
  return CacheSpec(
    task=data.task,
    split=data.split,
    lengths={name: data.lengths[name] for name in FEATURES},
    vocabulary=vocabulary,
    cache_dir=folders.cache_dir,
    # A name is relative to a folder, or two projects would share a cache.
    data_dir=folders.data_dir or ("." if data.own.files else ""),
    task_module=TASK_MODULE if data.own.files else data.module,
    data_files=data.own if data.own.files else None,
    overlong=data.overlong,
    frame=vocabulary and _frame(data, vocabulary),
  )


def _frame(
  data: DataConfig, vocabulary: Vocabulary
) -> chat_formats.Frame | None:
  frame = chat_formats.find(vocabulary, data.chat_format)
  if vocabulary.chat_template and not data.chat_format:
    name = frame.name if frame else "none, the model does not end turns"
    _log_once("CHAT_FORMAT: %s, by the chat template of the tokenizer", name)
  return frame


def _registered(
  data: DataConfig,
  folders: Folders,
  open_part: Callable[[str], TokenCache],
  rebuild: bool,
) -> Mapping[str, float] | None:
  """{task: rate} of a mixture that seqio knows by the name; None of a task.

  The caches of its tasks are made on the way: rates may depend on their sizes.
  """
  if not rebuild:
    known = mixture_rates.find(
      folders.cache_dir, data.task, folders.data_dir, data.split
    )
    if known is not None or lookup.find(
      _spec(data, folders, vocabulary_of(data, folders))
    ):
      return known
  if not data.module:
    return None
  try:
    from gkd.tasks import mixtures
  except ImportError:  # said by whoever makes the cache of the task
    return None
  vocabulary = vocabulary_of(data, folders)
  mixture = mixtures.find(data.task, data.module, folders.data_dir, vocabulary)
  if mixture is None:
    return None
  caches = {task.name: open_part(task.name) for task in mixture.tasks}
  rows = {name: len(cache) for name, cache in caches.items()}
  rates = mixtures.rates(mixture, data.split, rows)
  path = mixture_rates.write(
    folders.cache_dir, data.task, rates, caches.values(), data.split
  )
  log.info("mixture %s: rates written to %s", data.task, path)
  return rates


def _refuse_shared_rows(
  train_task: str, train_split: str, task: str, split: str
) -> None:
  if train_task == task and split_names.may_intersect(train_split, split):
    raise UserError(
      f"EVAL_SPLIT {split!r} intersects TRAIN_SPLIT {train_split!r} of task"
      f" {task}; choose splits that share no rows"
    )
