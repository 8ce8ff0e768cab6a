"""A model of any of the three formats, opened and compared with its config.

config, params = read("flan-t5-small")
"""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from gkd import trees
from gkd.checkpoints import format_detection
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

_MAX_LISTED = 4  # names of each kind in an error


def open_any(path: str | os.PathLike, **given: Any) -> Checkpoint:
  """Detects the format and opens it; reads no array.

  Args:
    path: folder of a run, a saved model, a T5X checkpoint or a Hugging Face
      model.
    **given: fields of T5Config that the format does not say; None counts as
      not given.

  Raises:
    UserError: none of the three formats, damaged, a given field that it
      contradicts, or leaves that its config does not have.
  """
  folder = format_detection.existing_folder(path)
  open_checkpoint = module_of(format_detection.detect(folder)).open_checkpoint
  checkpoint = open_checkpoint(folder, given)
  check_leaves(checkpoint)
  return checkpoint


def read(
  path: str | os.PathLike, **given: Any
) -> tuple[T5Config, dict[str, Any]]:
  """Config and parameters of a checkpoint of any format.

  Args:
    path: see `open_any`.
    **given: see `open_any`.

  Returns:
    The config, and T5X's unscanned names as a nested dict of NumPy arrays,
    float32 or bfloat16 as stored.
  """
  checkpoint = open_any(path, **given)
  arrays = {name: leaf.read() for name, leaf in checkpoint.leaves.items()}
  return checkpoint.config, trees.unflatten(arrays)


def at_step(path: str | os.PathLike, step: int | None) -> Path:
  """The checkpoint of a step, of a run's folder (ours or T5X's) with several.

  Of a run of ours that went on from a checkpoint, the step is that of the run,
  as its folders are numbered. Any other folder is returned as it is, and so is
  each where step is None.

  Raises:
    UserError: no folder, or no checkpoint of that step in it.
  """
  folder = format_detection.existing_folder(path)
  if step is None:
    return folder
  steps = format_detection.steps_within(folder)
  if steps and step not in steps:
    newest = ", ".join(map(str, sorted(steps)[-_MAX_LISTED:]))
    raise UserError(
      f"{folder} has no checkpoint of step {step}; it has {newest}; give one of"
      " these"
    )
  return steps.get(step, folder)


def module_of(format: Format):
  """The module of a format: `open_checkpoint` and `write`."""
  if format == "gkd":
    from gkd.checkpoints.native import native_checkpoint

    return native_checkpoint
  if format == "t5x":
    from gkd.checkpoints.t5x import t5x_reader

    return t5x_reader
  from gkd.checkpoints.hf import hf_folder

  return hf_folder


def check_leaves(checkpoint: Checkpoint) -> None:
  """Every parameter of the config is there, with its shape, and no other.

  Optimizer slots are there for every parameter, if there are any.

  Raises:
    UserError: names what is missing, left over and misshapen, each with its
      shape.
  """
  config, found = checkpoint.config, checkpoint.leaves
  layers = config.num_encoder_layers + config.num_decoder_layers
  if layers > len(found):
    raise UserError(
      f"{checkpoint.path} should have {layers} layers, but holds {len(found)}"
      " parameters in all; give a whole checkpoint of one model"
    )
  table = t5_params.table(config)
  wanted = {name: row.shape for name, row in table.items()}
  missing = [f"{n} {wanted[n]}" for n in sorted(wanted.keys() - found.keys())]
  left_over = [
    f"{n} {found[n].shape}" for n in sorted(found.keys() - wanted.keys())
  ]
  misshapen = [
    f"{n} is {found[n].shape} instead of {wanted[n]}"
    for n in sorted(wanted.keys() & found.keys())
    if found[n].shape != wanted[n]
  ]
  kinds = {
    "missing": missing,
    "left over": left_over,
    "misshapen": misshapen,
    "of another type": _of_other_types(found),
    **_wrong_slots(checkpoint.slots, wanted),
  }
  wrong = [_listed(kind, names) for kind, names in kinds.items() if names]
  if wrong:
    raise UserError(
      f"{checkpoint.path} is not the T5 that it seems to be:"
      f" {'; '.join(wrong)}; give a whole checkpoint of one model"
    )


def _of_other_types(leaves: Mapping[str, Leaf]) -> list[str]:
  known = ("float32", "bfloat16")
  return [
    f"{name} {leaf.dtype}, expected float32 or bfloat16"
    for name, leaf in sorted(leaves.items())
    if leaf.dtype not in known
  ]


def _wrong_slots(
  slots: Mapping[str, Leaf], params: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
  """What Adafactor would not have made for these parameters, listed by kind."""
  if not slots:
    return {}
  names = {f"{kind}/{name}" for kind in t5_params.SLOT_KINDS for name in params}
  missing = sorted(names - slots.keys())
  misshapen = []
  for name, shape in params.items():
    m, *v = (slots.get(f"{kind}/{name}") for kind in t5_params.SLOT_KINDS)
    if m is not None and m.shape not in (t5_params.UNUSED_SLOT, shape):
      misshapen.append(f"m/{name} is {m.shape} instead of {shape}")
    shapes = [leaf.shape for leaf in v if leaf is not None]
    if all(v) and not t5_params.is_second_moment(*shapes, shape):
      found = ", ".join(str(leaf.shape) for leaf in v)
      misshapen.append(f"v, v_row and v_col of {name} {shape} are {found}")
  return {
    "slots missing": missing,
    "slots left over": [
      f"{name} {slots[name].shape}" for name in sorted(slots.keys() - names)
    ],
    "slots misshapen": misshapen,
    "slots of another type": [
      f"{name} {leaf.dtype}, expected float32"
      for name, leaf in slots.items()
      if leaf.dtype != "float32"
    ],
  }


def _listed(kind: str, names: list[str]) -> str:
  more = len(names) - _MAX_LISTED
  listed = ", ".join(names[:_MAX_LISTED])
  return f"{len(names)} {kind}: {listed}" + (f" and {more} more" * (more > 0))
