"""Finds the cache of a task among those of a folder, without TensorFlow.

Caches lie in `<cache_dir>/<task>/<split>-<hash>`.

path = find(CacheSpec(task="gsm8k", split="train", cache_dir="caches", …))
"""

from collections.abc import Mapping
import dataclasses
import logging
import os
from pathlib import Path
import re
from typing import Any
from typing import Literal
from typing import get_args

from gkd.data import cache as caches
from gkd.data import cache_info
from gkd.data.builder import cache_key
from gkd.data.cache_info import FEATURES
from gkd.errors import UserError
from gkd.text import file_rows
from gkd.text.chat_formats import Frame
from gkd.text.data_files import DataFiles
from gkd.text.vocabulary import Vocabulary

log = logging.getLogger("gkd")

Overlong = Literal["truncate", "truncate_left", "refuse"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheSpec:
  """The cache of one split of a task that is wanted.

  Attributes:
    task: name of the seqio task.
    split: one of its splits; of a TFDS source also slices and sums of them.
    lengths: {"inputs": I, "targets": T} in tokens, EOS included.
    vocabulary: of inputs and targets; None finds those made with that of the
      task itself.
    cache_dir: folder of all caches.
    data_dir: raw data, as the task's `register` wants it; None: none is here.
    task_module: module that adds the task to seqio's registry, as it is
      imported or by `register(data_dir, vocabulary)`.
    frame: texts of a chat around each prompt, which stay when it is cut.
    data_files: what `task_module` makes the task of, if that is
      `gkd.text.data_files.TASK_MODULE`.
    overlong: cut rows that are longer than `lengths` and count them, their EOS
      kept as `seqio.preprocessors.append_eos_after_trim` does; or refuse them.
      "truncate_left" cuts prompts at their beginning, so that a question after
      examples stays; targets lose their end.
  """

  task: str
  split: str
  lengths: Mapping[str, int]
  vocabulary: Vocabulary | None
  cache_dir: str | os.PathLike
  data_dir: str | os.PathLike | None = None
  task_module: str = ""
  overlong: Overlong = "truncate"
  data_files: DataFiles | None = None
  frame: Frame | None = None

  def __post_init__(self):
    if self.overlong not in get_args(Overlong):
      raise UserError(
        f"overlong is {self.overlong!r}; expected one of {get_args(Overlong)}"
      )
    if set(self.lengths) != set(FEATURES) or min(self.lengths.values()) < 1:
      raise UserError(
        f"lengths are {dict(self.lengths)}; give 'inputs' and 'targets', 1 or"
        " more"
      )

  @property
  def name(self) -> str:
    return f"{self.task} {self.split}"

  @property
  def fields(self) -> dict[str, Any]:
    """What info.json repeats of it."""
    fields = {
      "task": self.task,
      "split": self.split,
      "lengths": dict(self.lengths),
      "overlong": self.overlong,
    }
    if self.data_files is not None:
      fields["data_files"] = self.data_files.settings()
    if self.frame is not None:
      fields["frame"] = self.frame._asdict()
    return fields

  def folder(self, key_hash: str) -> Path:
    """Where the cache with that hash of its key lies."""
    return Path(self.cache_dir) / self.task / f"{self._prefix}-{key_hash[:12]}"

  @property
  def _prefix(self) -> str:
    """The split as a folder may be called."""
    return re.sub(r"[^\w.\[\]:%]", "_", self.split)

  def candidates(self) -> list[Path]:
    """Folders that may hold the cache, the newest first."""
    # The split is compared and not globbed: TFDS names hold brackets.
    folders = (Path(self.cache_dir) / self.task).glob("*-*")
    fitting = (f for f in folders if f.name.rpartition("-")[0] == self._prefix)
    return sorted(fitting, key=_age, reverse=True)


def find(spec: CacheSpec) -> str | None:
  """Path of the newest existing cache that fits, or None.

  One whose code or raw files have changed, or that another module than
  `task_module` made, does not fit. Only the task itself,
  which would import TensorFlow, knows arguments that come from elsewhere, such
  as an environment variable: `find_or_build(spec, check=True)` asks it.
  """
  for folder in spec.candidates():
    try:
      info = caches.TokenCache(folder).info
    except UserError as error:  # half-written
      log.warning("%s", error)
      continue
    if (
      spec.fields.items() <= info.items()
      and ("frame" in info) == (spec.frame is not None)
      and (
        info.get("own_vocabulary", False)
        if spec.vocabulary is None
        else cache_info.same_vocabulary(info, spec.vocabulary)
      )
      and cache_key.is_of_module(folder, info, spec.task_module)
      and _has_own_files(info, spec)
      and cache_key.is_fresh(folder, info, spec.data_dir)
    ):
      return str(folder)
  return None


def _has_own_files(info: Mapping[str, Any], spec: CacheSpec) -> bool:
  """Whether DATA_FILES names the files that a cache was made of."""
  if spec.data_files is None:
    return True
  try:
    names = file_rows.splits(spec.data_dir, spec.data_files.files)
  except UserError:  # they are elsewhere
    return True
  own = names.get(spec.split, [])
  return not own or {*own} == info.get("raw_files", {}).keys()


def _age(folder: Path) -> tuple[int, Path]:
  file = folder / cache_info.INFO_FILE
  return (file.stat().st_mtime_ns if file.is_file() else 0), folder
