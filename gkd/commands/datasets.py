"""Finds or makes the token caches that a command reads.

An existing cache is found without TensorFlow; only making a new one imports
seqio, inside `materialise`.

  folders = Folders(data_dir="…", cache_dir="…")
  cache = open_cache(data, folders)
"""

import dataclasses
import logging
from pathlib import Path
import re

from gkd.commands.settings import Data
from gkd.data import cache as caches
from gkd.data import finding
from gkd.data import materialise
from gkd.data.cache import TokenCache
from gkd.text import vocabulary as vocabularies
from gkd.types import UserError

log = logging.getLogger("gkd")


@dataclasses.dataclass(frozen=True)
class Folders:
  """Where raw files and token caches are on this machine.

  Attributes:
    data_dir: files that tasks read; "" where none is set.
    cache_dir: token caches.
  """

  data_dir: str
  cache_dir: str


def open_cache(data: Data, folders: Folders) -> TokenCache:
  """The cache of a split, made now if it does not exist.

  Raises:
    UserError: vocabulary, task, split or raw files are missing.
  """
  if data.cache:
    cache = TokenCache(Path(data.cache).expanduser())
    _check_same_vocabulary(cache, data, folders)
    return cache
  vocabulary = load_vocabulary(data, folders)
  found = finding.find(
    folders.cache_dir,
    data.task,
    data.split,
    data.lengths,
    vocabulary,
    data.overlong,
    folders.data_dir,
  )
  return TokenCache(found or make(data, folders))


def make(
  data: Data,
  folders: Folders,
  *,
  num_workers: int | None = None,
  check: bool = False,
) -> str:
  """Tokenises a split into a cache and returns its path.

  Args:
    data: names task and split.
    folders: where raw files are and caches go.
    num_workers: processes that tokenise; default: one a core, at least two.
    check: read every byte of an existing cache, and ask the task for its
      arguments; one that is damaged or stale is made anew.
  """
  if not data.module:
    raise UserError(
      f"task {data.task!r}: no cache of split {data.split!r} in"
      f" {folders.cache_dir} and TASK_MODULE is empty; give the module that"
      " registers the task, or TRAIN_CACHE and EVAL_CACHE"
    )
  return materialise.materialise(
    data.task,
    data.split,
    cache_dir=folders.cache_dir,
    lengths=dict(data.lengths),
    task_module=data.module,
    data_dir=folders.data_dir,
    vocabulary=load_vocabulary(data, folders),
    overlong=data.overlong,
    num_workers=num_workers,
    check=check,
  )


def load_vocabulary(data: Data, folders: Folders) -> vocabularies.Vocabulary:
  """The vocabulary that VOCABULARY and EXTRA_IDS name."""
  name = data.vocabulary
  if not name:
    raise UserError(
      "VOCABULARY is empty; give 'bytes', 'characters:…' or the path of a"
      " SentencePiece model"
    )
  if name == "bytes" or name.startswith("characters:"):
    return vocabularies.load(name, data.extra_ids)
  places = [Path(name).expanduser()]
  if folders.data_dir:
    places.append(Path(folders.data_dir) / name)
  for place in places:
    if place.is_file():
      return vocabularies.load(place, data.extra_ids)
  raise UserError(
    f"VOCABULARY {name!r} is not a file here nor in the data folder"
    f" {folders.data_dir or '(none is set)'}; give its path, or --data_dir or"
    " GKD_DATA_DIR"
  )


def check_before_opening(
  train: Data, evaluation: Data | None, folders: Folders
) -> int | None:
  """What can be told from the names alone, before any cache is made.

  Returns:
    Size of the vocabulary, or None where only a cache knows it.
  """
  if evaluation is not None and not (train.cache or evaluation.cache):
    _refuse_shared_rows(
      train.task, train.split, evaluation.task, evaluation.split
    )
  return load_vocabulary(train, folders).size if train.vocabulary else None


def check_disjoint(train: TokenCache, evaluation: TokenCache) -> None:
  """Refuses to evaluate on rows of the training split of the same task.

  Prompts that merely occur in both are counted in a warning: real data sets
  have such duplicates.
  """
  left, right = train.info, evaluation.info
  _refuse_shared_rows(
    left["task"], left["split"], right["task"], right["split"]
  )
  if shared := caches.overlap(train, evaluation):
    log.warning(
      "%d prompts of %s (%s) also occur in the training data (%s)",
      shared,
      right["task"],
      right["split"],
      left["split"],
    )


def _refuse_shared_rows(
  train_task: str, train_split: str, task: str, split: str
) -> None:
  if train_task == task and may_intersect(train_split, split):
    raise UserError(
      f"EVAL_SPLIT {split!r} intersects TRAIN_SPLIT {train_split!r} of task"
      f" {task}; choose splits that share no rows"
    )


def may_intersect(left: str, right: str) -> bool:
  """Whether two TFDS split names of one task can share rows.

  Slices are compared where both are in percent or both in rows; a mix of the
  two may intersect, since the number of rows is not known here.
  """
  return any(
    _parts_intersect(a, b) for a in _parts(left) for b in _parts(right)
  )


def _parts_intersect(a: tuple, b: tuple) -> bool:
  (name_a, unit_a, *range_a), (name_b, unit_b, *range_b) = a, b
  if "all" not in (name_a, name_b) and name_a != name_b:
    return False
  if "all" in (name_a, name_b) or None in (unit_a, unit_b):
    return True
  if unit_a != unit_b:
    return True
  return max(range_a[0], range_b[0]) < min(range_a[1], range_b[1])


def _parts(split: str) -> list[tuple]:
  """(name, unit, start, end) of each part; unit None is the whole split."""
  parts = []
  for text in split.split("+"):
    match = re.fullmatch(
      r"\s*([\w.\-]+)\s*(?:\[(\d*)(%?):(\d*)(%?)\])?\s*", text
    )
    if match is None:  # a form that only TFDS understands
      parts.append((text.strip().partition("[")[0], None))
      continue
    name, start, start_unit, end, end_unit = match.groups()
    if not start and not end:
      parts.append((name, None))
      continue
    unit = "%" if "%" in (start_unit, end_unit) else "rows"
    first = int(start) if start else 0
    last = int(end) if end else (100 if unit == "%" else float("inf"))
    parts.append((name, unit, first, last))
  return parts


def _check_same_vocabulary(
  cache: TokenCache, data: Data, folders: Folders
) -> None:
  """A cache that was named must hold tokens of the configured vocabulary."""
  if not data.vocabulary:
    return
  vocabulary = load_vocabulary(data, folders)
  if caches.same_vocabulary(cache.info, vocabulary):
    return
  difference = vocabularies.first_difference(vocabulary, cache.vocabulary)
  raise UserError(
    f"cache {cache.path} was made with another vocabulary than VOCABULARY"
    f" {data.vocabulary!r}: {difference}; set VOCABULARY and EXTRA_IDS to the"
    " cache's, or make the cache again"
  )
