"""From one format to another, array by array, whole or not at all.

write(plan("t5_1_1_lm100k_base/checkpoint_1100000", to="hf"), "models/base")
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from gkd import files
from gkd.checkpoints import atomic_dir
from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints import config_from_shapes
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import hf_gemma
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.source import open_checkpoint
from gkd.checkpoints.t5x import t5x_writer
from gkd.models import registry
from gkd.models.t5 import T5Config
from gkd.progress import Progress
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

# Arguments, and fields of T5Config, that a format has no place for.
_NOT_KEPT = {
  "gkd": (),
  "t5x": ("dropout_rate", "dtype", "vocabulary_size", "tokenizer"),
  "hf": ("dtype", "slots"),
}
_KEEPER = {"t5x": "a T5X checkpoint", "hf": "a Hugging Face folder"}
_ABOUT_CAST = {
  "float32": "dtype: bfloat16 to float32, which is exact",
  "bfloat16": "dtype: float32 to bfloat16, which rounds to 8 of 24 bits",
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is going to be written.

  Attributes:
    checkpoint: the source, with types, step and slots as they will be.
    to: format to write.
    vocabulary: the tokenizer to write; None for none.
    remarks: sentences about what changes or stays behind.
    source: the folder that was given; nothing is written into it.
  """

  checkpoint: Checkpoint
  to: Format
  vocabulary: Vocabulary | None = None
  remarks: tuple[str, ...] = ()
  source: str | os.PathLike | None = None


def plan(
  source: str | os.PathLike,
  *,
  to: Format,
  given: Mapping[str, Any] | None = None,
  dtype: str | None = None,
  step: int | None = None,
  slots: bool = False,
  tokenizer: str | os.PathLike | None = None,
) -> Plan:
  """What a conversion would write; reads no array.

  Args:
    source: of any format, see `source.open_checkpoint`.
    to: format to write.
    given: fields of T5Config that the source does not say.
    dtype: "float32" or "bfloat16" of the parameters; None for theirs.
    step: chooses one of several checkpoints, or says it where the source does
      not.
    slots: keep those of the optimizer.
    tokenizer: see `checkpoint_tokenizer.find`.

  Raises:
    UserError: the source cannot be read, or a request that cannot be met.
  """
  if to not in _NOT_KEPT:
    raise UserError(f"to {to!r}; expected {', '.join(_NOT_KEPT)}")
  if dtype is not None and dtype not in _ABOUT_CAST:
    raise UserError(f"dtype {dtype!r}; expected {' or '.join(_ABOUT_CAST)}")
  if step is not None and step < 0:
    raise UserError(f"step {step}; expected 0 or more, as steps are counted")
  given = given or {}
  requests = {**given, "tokenizer": tokenizer, "slots": slots or None}
  _check_kept(requests, to)
  opened = open_checkpoint(source, step=step, **given)
  if registry.layout_of(opened.config) is None:
    raise UserError(
      f"{opened.path} is of the model family {opened.family!r}, which no other"
      " format has; gkd opens it as it is"
    )
  about_norms = ""
  if to == "hf":
    opened, about_norms = hf_gemma.with_their_norms(opened)
  # Its number has chosen the checkpoint of a run of ours, whose step is another
  # where the run went on from a checkpoint.
  is_chosen = opened.format == "gkd" and opened.path.name.isdecimal()
  opened, about_step = _with_step(opened, None if is_chosen else step, to)
  opened, about_slots = _with_slots(opened, slots, to)
  opened, about_types = _with_dtype(opened, dtype)
  vocabulary, about_tokenizer = _with_tokenizer(opened, tokenizer, to)
  # What the writer would refuse, of which a dry run has to tell.
  about_config = ""
  if to == "hf":
    hf_folder.check(opened, vocabulary)
  elif to == "t5x":
    t5x_writer.check(opened)
    about_config = _about_config(opened.config)
  remarks = (about_step, about_slots, about_norms, about_types, about_config)
  remarks = tuple(filter(None, (*remarks, about_tokenizer)))
  return Plan(opened, to, vocabulary, remarks, source)


def check_card(card: Mapping[str, str] | None, to: Format) -> None:
  """Refuses fields of a model card for a format that has none."""
  if card and to != "hf":
    raise UserError(
      f"--{next(iter(card))} has no effect: only a Hugging Face folder has a"
      " model card; leave it out"
    )


def write(
  planned: Plan,
  destination: str | os.PathLike,
  *,
  card: Mapping[str, str] | None = None,
) -> None:
  """Writes what was planned; memory stays near the largest array.

  Args:
    planned: see `plan`.
    destination: a folder that does not exist or is empty; there whole or not
      at all.
    card: licences for the model card of a Hugging Face folder, see
      `model_card.text`.

  Raises:
    UserError: a card for a format that has none, an array that cannot be read,
      a destination in the source or one that cannot be written; nothing is left
      at `destination`.
  """
  check_card(card, planned.to)
  if planned.source is not None:
    atomic_dir.check(planned.source, destination)
  vocabulary = planned.vocabulary
  with atomic_dir.create(destination) as partial:
    _check_space(planned, files.local_path(destination).absolute())
    with _progress(planned.checkpoint) as checkpoint:
      if planned.to == "t5x":
        t5x_writer.write(partial, checkpoint)
      elif planned.to == "gkd":
        native_checkpoint.write(partial, checkpoint, vocabulary=vocabulary)
      else:
        hf_folder.write(partial, checkpoint, vocabulary=vocabulary, card=card)


def _check_kept(requests: Mapping[str, Any], to: Format) -> None:
  """Refuses a request that the format has no place for, as its flag."""
  for name in _NOT_KEPT[to]:
    if (value := requests.get(name)) is not None:
      flags = {"slots": "--slots", "tokenizer": f"--tokenizer={value}"}
      flag = flags.get(name, f"--set {name}={value}")
      raise UserError(
        f"{flag} has no effect: {_KEEPER[to]} does not keep it; leave it out"
      )


def _with_step(
  checkpoint: Checkpoint, step: int | None, to: Format
) -> tuple[Checkpoint, str]:
  if checkpoint.step is not None and step not in (None, checkpoint.step):
    raise UserError(
      f"step {step} was given, but {checkpoint.path} is of step"
      f" {checkpoint.step}; leave it out or give the right checkpoint"
    )
  if checkpoint.step is not None or (step is None and to != "t5x"):
    return checkpoint, ""
  remark = f"step: {step}, as given"
  if step is None:
    step, remark = 0, "step: 0, since the source does not say one"
  return dataclasses.replace(checkpoint, step=step), remark


def _with_slots(
  checkpoint: Checkpoint, slots: bool, to: Format
) -> tuple[Checkpoint, str]:
  if slots and not checkpoint.slots:
    about = [
      text for text in checkpoint.assumed if text.startswith("optimizer")
    ]
    raise UserError(
      f"{checkpoint.path}: slots were asked for, but there are none to convert"
      f" ({(*about, 'it has none')[0]}); leave them out"
    )
  if slots or not checkpoint.slots:
    return checkpoint, ""
  remark = "optimizer: its slots are left out; --slots keeps them"
  bare = dataclasses.replace(checkpoint, slots={})
  return bare, "" if to == "hf" else remark


def _with_dtype(
  checkpoint: Checkpoint, dtype: str | None
) -> tuple[Checkpoint, str]:
  leaves = checkpoint.leaves
  if dtype is None or {leaf.dtype for leaf in leaves.values()} == {dtype}:
    return checkpoint, ""
  cast = {
    name: leaf
    if leaf.dtype == dtype
    else leaf.map(lambda array: array.astype(dtype), dtype=dtype)
    for name, leaf in leaves.items()
  }
  return dataclasses.replace(checkpoint, leaves=cast), _ABOUT_CAST[dtype]


def _with_tokenizer(
  checkpoint: Checkpoint, named: str | os.PathLike | None, to: Format
) -> tuple[Vocabulary | None, str]:
  if to == "t5x":
    kept = tokenizer_folder.load(checkpoint.home)
    if kept is None:
      return None, ""
    where = f"{kept.describe()} stays in {checkpoint.home}"
    return None, f"tokenizer: T5X keeps none; {where}"
  vocabulary, remark = checkpoint_tokenizer.find(checkpoint, named)
  if to == "hf" and vocabulary is None and named is None:
    remark += ", so that AutoTokenizer finds none: --tokenizer=PATH adds it"
  return vocabulary, remark


def _about_config(config: T5Config) -> str:
  """What the next reader of a T5X checkpoint has to know."""
  flags = [
    f"--set {name}="
    + (",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    for name, value in config_from_shapes.not_kept(config).items()
  ]
  if not flags:
    return ""
  return (
    "config: T5X keeps none, and this one is not T5's own; to convert it on,"
    f" give {' '.join(flags)}"
  )


def _check_space(planned: Plan, path: Path) -> None:
  """Refuses what cannot fit, before hours of work end with a full disk."""
  checkpoint = planned.checkpoint
  leaves = [*checkpoint.leaves.values(), *checkpoint.slots.values()]
  needed = sum(leaf.size_bytes for leaf in leaves)
  if planned.to != "hf":  # the others are compressed, seldom to a half
    needed //= 2
  free = shutil.disk_usage(path.parent).free
  if needed > free:
    raise UserError(
      f"{path} would take at least {needed / 1e6:,.2f} MB, and"
      f" {free / 1e6:,.2f} MB are free there; free space or give another place"
    )


@contextlib.contextmanager
def _progress(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
  """The same checkpoint, which shows how much of it has been read."""
  total = sum(leaf.size_bytes for leaf in checkpoint.leaves.values())
  done = 0
  with Progress(
    round(total / 1e6), description="converting", unit="megabyte", delay=2.0
  ) as progress:

    def count(array: np.ndarray) -> np.ndarray:
      nonlocal done
      before, done = done, done + array.nbytes
      progress.update(round(done / 1e6) - round(before / 1e6))
      return array

    leaves = {n: leaf.map(count) for n, leaf in checkpoint.leaves.items()}
    yield dataclasses.replace(checkpoint, leaves=leaves)
