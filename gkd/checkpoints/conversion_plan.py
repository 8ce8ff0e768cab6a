"""What a conversion will write, decided before anything is read or written.

planned = plan("t5_1_1_lm100k_base/checkpoint_1100000", to="gkd")
"""

from collections.abc import Mapping
import dataclasses
import os
from typing import Any
from typing import get_args

import ml_dtypes
import numpy as np

from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints import config_from_shapes
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.source import open_checkpoint
from gkd.checkpoints.t5x import t5x_writer
from gkd.models import registry
from gkd.models.t5 import T5Config
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

DTYPES = {
  "float32": np.dtype("float32"),
  "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
# Fields of T5Config that are of no use to a reader, or are the tokenizer's.
_NOT_KEPT = {
  "gkd": (),
  "t5x": ("dropout_rate", "dtype", "vocabulary_size"),
  "hf": ("dtype",),
}
_KEEPER = {"t5x": "a T5X checkpoint", "hf": "a Hugging Face folder"}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is going to be written.

  Attributes:
    checkpoint: the source, with types, step and slots as they will be.
    to: format to write.
    vocabulary: the tokenizer to write; None for none.
    remarks: sentences about what changes or stays behind.
  """

  checkpoint: Checkpoint
  to: Format
  vocabulary: Vocabulary | None
  remarks: tuple[str, ...]


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
  """What `convert` would write, with its arguments; reads no array.

  Raises:
    UserError: the source cannot be read, or a request that cannot be met.
  """
  if to not in get_args(Format):
    raise UserError(f"to {to!r}; expected {', '.join(get_args(Format))}")
  if dtype is not None and dtype not in DTYPES:
    raise UserError(f"dtype {dtype!r}; expected {' or '.join(DTYPES)}")
  if step is not None and step < 0:
    raise UserError(f"step {step}; expected 0 or more, as steps are counted")
  if to == "t5x" and tokenizer is not None:
    raise UserError(
      f"tokenizer {tokenizer} has no effect: a T5X checkpoint holds none; leave"
      " it out"
    )
  given = {n: value for n, value in (given or {}).items() if value is not None}
  if lost := [name for name in _NOT_KEPT[to] if name in given]:
    raise UserError(
      f"{lost[0]}={given[lost[0]]!r} has no effect: {_KEEPER[to]} keeps no"
      f" {lost[0]}; leave it out"
    )
  opened = open_checkpoint(source, step=step, **given)
  if opened.family != registry.T5:
    raise UserError(
      f"{opened.path} is of the model family {opened.family!r}; gkd converts T5"
      " encoder–decoders"
    )
  # Its number has chosen the checkpoint of a run of ours, whose step is another
  # where the run went on from a checkpoint.
  is_chosen = opened.format == "gkd" and opened.path.name.isdecimal()
  opened, about_step = _with_step(opened, None if is_chosen else step, to)
  opened, about_slots = _with_slots(opened, slots, to)
  opened, about_types = _with_dtype(opened, dtype)
  vocabulary, about_tokenizer = _with_tokenizer(opened, tokenizer, to)
  # What the writer would refuse, of which a dry run has to tell.
  if to == "hf":
    hf_folder.check(opened, vocabulary)
  elif to == "t5x":
    t5x_writer.check(opened)
  about_config = _about_config(opened.config) if to == "t5x" else ""
  remarks = (about_step, about_slots, about_types, about_config)
  return Plan(
    opened, to, vocabulary, tuple(filter(None, (*remarks, about_tokenizer)))
  )


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
    raise UserError(
      f"no tokenizer is beside {checkpoint.path}, and a Hugging Face folder"
      " needs one; give --tokenizer=PATH, a folder or SentencePiece file, or"
      " --tokenizer=none to go without"
    )
  return vocabulary, remark


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


def _about_config(config: T5Config) -> str:
  """What the next reader of a T5X checkpoint has to know."""
  lost = config_from_shapes.not_kept(config)
  flags = [
    f"--set {name}="
    + (",".join(map(str, value)) if isinstance(value, tuple) else str(value))
    for name, value in lost.items()
  ]
  if not flags:
    return ""
  return (
    "config: T5X keeps none, and this one is not T5's own; to convert it on,"
    f" give {' '.join(flags)}"
  )


def _with_slots(
  checkpoint: Checkpoint, slots: bool, to: Format
) -> tuple[Checkpoint, str]:
  if slots and to == "hf":
    raise UserError(
      "slots have no effect: a Hugging Face folder holds no optimizer; leave"
      " them out"
    )
  if slots and not checkpoint.slots:
    reasons = [
      text.removeprefix("optimizer: ")
      for text in checkpoint.assumed
      if text.startswith("optimizer: ")
    ]
    raise UserError(
      f"{checkpoint.path}: slots were asked for, but there are none to convert"
      f" ({(*reasons, 'it has none')[0]}); leave them out"
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
  if dtype == "bfloat16":
    remark = "dtype: float32 to bfloat16, which rounds to 8 of 24 bits"
  else:
    remark = "dtype: bfloat16 to float32, which is exact"
  cast = {name: _cast(leaf, dtype) for name, leaf in leaves.items()}
  return dataclasses.replace(checkpoint, leaves=cast), remark


def _cast(leaf: Leaf, dtype: str) -> Leaf:
  if leaf.dtype == dtype:
    return leaf
  return Leaf(leaf.shape, dtype, lambda: leaf.read().astype(DTYPES[dtype]))
