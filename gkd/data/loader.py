"""Batches as a pure function of (seed, step): nothing about data is saved.

Row n of a run (n = step · batch size + place in the batch) comes from a
component of the mixture and from place p of that component's own stream, see
`mixture`. With N rows in use, it is the row at place p mod N of a permutation
that is drawn anew for each epoch p div N, see `shuffle`. A resumed run sees the
data it would have seen, and any number of processes sees the same batches.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from gkd.collate import collate
from gkd.data import shuffle
from gkd.data.cache import TokenCache
from gkd.data.cache import Tokens
from gkd.data.mixture import Mixture
from gkd.data.subset import Subset
from gkd.text.vocabulary import Vocabulary
from gkd.types import Batch
from gkd.types import Source
from gkd.types import UserError

_ALL = Subset()
_TARGETS = {
  Source.DATASET: "the data set's targets",
  Source.STUDENT: "the targets of a student",
  Source.TEACHER: "the targets of a teacher",
}


class Example(NamedTuple):
  """The texts of a row, and what its task makes of a completion."""

  prompt: str
  reference: Any  # postprocessed target; None without one
  postprocess: Callable[[str], Any]


class Loader:
  """Global batches of one cache, or of a mixture of several.

  Attributes:
    mixture: where the rows come from. A row's id counts through its caches.
    batch_size: B, over all processes.
    samples_per_prompt: n: a batch has B/n prompts, each in n rows, one after
      the other, whose samples differ (`keys.per_row`).
    lengths: {"inputs": I, "targets": T}, the widths of a batch, and I' of
      "teacher_inputs" where the caches have the teacher's prompts.
    teachers: names of several teachers, in the order that `Batch.teacher`
      counts in; empty for one or none. A row's is the one that it names, or
      else that of its task.
    seed: of the order.
    num_rows: rows in use, of all components.
  """

  def __init__(
    self,
    data: TokenCache | Mixture,
    *,
    batch_size: int,
    lengths: Mapping[str, int],
    seed: int,
    subset: Subset = _ALL,
    needs_targets: bool = False,
    samples_per_prompt: int = 1,
    teachers: Sequence[str] = (),
  ):
    """Checks the data against batch size, lengths and seed.

    `lengths` are at most those that each cache was made with and at least those
    of its longest row; `subset` is the part of each cache that is used, without
    its rows that have no target where the run `needs_targets`.
    """
    if batch_size < 1:
      raise UserError(f"BATCH_SIZE is {batch_size}; give 1 or more")
    if samples_per_prompt < 1 or batch_size % samples_per_prompt:
      raise UserError(
        f"SAMPLES_PER_PROMPT is {samples_per_prompt}, which does not divide"
        f" BATCH_SIZE {batch_size}, the number of samples of a step; give one"
        " that does"
      )
    if seed < 0:
      raise UserError(f"RANDOM_SEED is {seed}; give 0 or more")
    self.mixture = data if isinstance(data, Mixture) else Mixture([(data, 1)])
    caches = self.mixture.caches
    if len(caches) > 1 and subset.limit is not None:
      raise UserError(
        f"TRAIN_LIMIT is {subset.limit} but {len(caches)} caches are mixed;"
        " give TRAIN_FRACTION, which is taken of each"
      )
    for cache in caches:
      _check_cache(cache, lengths)
      if (other := cache.teacher_prompts) is not None:
        width = lengths["teacher_inputs"]
        _check_cache(other, {**lengths, "inputs": width}, "teacher_inputs")
    self.batch_size = batch_size
    self.samples_per_prompt = samples_per_prompt
    self.lengths = dict(lengths)
    self.seed = seed
    self.subset = subset
    self._needs_targets = needs_targets
    self._rows = [
      subset.of(cache, seed, needs_targets=needs_targets) for cache in caches
    ]
    self._firsts = np.cumsum([0, *map(len, caches)])
    self._sources = np.array([_source(cache) for cache in caches], np.int32)
    self.teachers = tuple(teachers)
    _check_teachers(caches, self.teachers)
    self.num_rows = sum(map(len, self._rows))

  @property
  def vocabulary(self) -> Vocabulary:
    return self.mixture.vocabulary

  @property
  def missing_targets(self) -> str:
    """What says that rows in use have no target; "" if all have one."""
    for cache in self.mixture.caches:
      if not cache.with_target:
        return f"the data has prompts only (cache {cache.path})"
      if cache.without_target and not self._needs_targets:
        return f"{cache.without_target} (cache {cache.path})"
    return ""

  @property
  def unread_teachers(self) -> str:
    """What says that rows name teachers and there are no TEACHERS; or ""."""
    for cache in self.mixture.caches:
      if not self.teachers and any(cache.info.get("teachers", ())):
        return (
          f"the rows of cache {cache.path} name teachers, which are NOT READ:"
          " one teacher scores all rows; set TEACHERS to use them"
        )
    return ""

  def describe(self) -> str:
    """What is read, one line for each component."""
    lines = []
    caches, shares = self.mixture.caches, self.mixture.shares
    for share, cache, rows in zip(shares, caches, self._rows, strict=True):
      line = f"{cache.info['task']} {cache.info['split']}, "
      if len(self._rows) > 1:
        line = f"{100 * share:.4g} % {line}"
      line += self.subset.describe(rows, cache, self.seed)
      if (writer := _source(cache)) != Source.DATASET:
        line += f", targets written by the {writer.name.lower()}"
      if (other := cache.teacher_prompts) is not None:
        line += f", which the teacher reads as {other.info['task']}"
      if self._needs_targets and (missing := cache.without_target):
        line += f"; left out: {missing}"
      lines.append(line)
    return "\n".join(lines)

  @property
  def targets(self) -> str:
    """Whose targets these are, in words."""
    sources = sorted({_source(cache) for cache in self.mixture.caches})
    return " and ".join(_TARGETS[source] for source in sources)

  def batch(self, step: int, places: range | None = None) -> Batch:
    """Global batch of a step as NumPy arrays; a function of the step alone.

    `places` selects rows of the batch, for a process that holds a part of it;
    the parts one after the other are the whole.
    """
    places = range(self.batch_size) if places is None else places
    ids = self._ids(step, places)
    rows, owners = self._tokens(ids), self._owners(ids)
    batch = collate(rows, ids, self.lengths)
    batch = batch.replace(source=self._sources[owners])
    if not self.teachers:
      return batch
    names = [
      row.teacher or self.mixture.caches[owner].info["task"]
      for row, owner in zip(rows, owners, strict=True)
    ]
    places = [self.teachers.index(name) for name in names]
    return batch.replace(teacher=np.array(places, np.int32))

  def examples(self, step: int) -> list[Example]:
    """The texts of the whole batch of a step, in the order of its rows."""
    ids = self._ids(step, range(self.batch_size))
    different = list(dict.fromkeys(ids))  # samples of a prompt share its row
    found = {}
    for row, owner in zip(different, self._owners(different), strict=True):
      cache = self.mixture.caches[owner]
      (read,) = cache.read([row - self._firsts[owner]])
      found[row] = Example(read.prompt, read.reference, cache.postprocess)
    return [found[row] for row in ids]

  def row(self, n: int) -> int:
    """Id of the n-th row of a run."""
    component, n = self.mixture.split(n)
    rows = self._rows[component]
    epoch, place = divmod(n, len(rows))
    # Without its number, caches of one size would go in step. The first has
    # none: it goes as it would alone.
    number = (component,) if component else ()
    stream = (self.seed, shuffle.EPOCH, epoch, *number)
    place = shuffle.permute(place, len(rows), stream)
    return int(self._firsts[component]) + rows[place]

  def _ids(self, step: int, places: Sequence[int]) -> list[int]:
    """Row ids of places of a batch."""
    first, n = step * self.batch_size, self.samples_per_prompt
    return [self.row((first + place) // n) for place in places]

  def _owners(self, ids: Sequence[int]) -> np.ndarray:
    """Which cache holds the row of each id."""
    return np.searchsorted(self._firsts, ids, side="right") - 1

  def _tokens(self, ids: Sequence[int]) -> list[Tokens]:
    """The rows of these ids, in their order."""
    caches = self.mixture.caches
    if len(caches) == 1:
      return caches[0].tokens(ids)
    return [
      row
      for n, owner in zip(ids, self._owners(ids), strict=True)
      for row in caches[owner].tokens([n - self._firsts[owner]])
    ]


def _source(cache: TokenCache) -> Source:
  """Who wrote the targets of a cache: the data set, or a model's sampling."""
  name = cache.info.get("written_by", {}).get("source", Source.DATASET.name)
  if name.upper() not in Source.__members__:
    raise UserError(
      f"cache {cache.path} has targets written by {name!r}, expected one of"
      f" {[s.name.lower() for s in Source]}; make it again with `gkd sample`"
    )
  return Source[name.upper()]


def _check_teachers(
  caches: Sequence[TokenCache], teachers: Sequence[str]
) -> None:
  """Refuses teachers that are not those of the rows."""
  named = {
    name or cache.info["task"]
    for cache in caches
    for name in cache.info.get("teachers", [""])
  }
  if teachers and named != {*teachers}:
    raise UserError(
      f"TEACHERS are of {', '.join(teachers)}, but the data of"
      f" {', '.join(sorted(named))}; give one for each task of the mixture, or"
      " each name in a column 'teacher', and no other"
    )


def _check_cache(
  cache: TokenCache, lengths: Mapping[str, int], inputs: str = "inputs"
) -> None:
  """Refuses lengths that a cache was not made for; `inputs` names its own."""
  if not len(cache):
    raise UserError(
      f"cache {cache.path} has no rows; check the task and its split"
    )
  for name, limit in cache.info["lengths"].items():
    if name not in lengths:
      raise UserError(
        f"lengths {dict(lengths)} lack {name!r}; set TASK_FEATURE_LENGTHS to"
        " {'inputs': …, 'targets': …}"
      )
    length, longest = lengths[name], cache.info["longest"][name]
    name = inputs if name == "inputs" else name
    if length > limit:
      raise UserError(
        f"{name} length {length} is beyond the cache {cache.path}, whose rows"
        f" were cut at {limit}; make a cache with the longer length"
      )
    if length < longest:
      raise UserError(
        f"{name} length {length} is too short for the cache {cache.path}, which"
        f" has a row of {longest}; make a cache with the shorter length or ask"
        f" for {longest} to {limit}"
      )
