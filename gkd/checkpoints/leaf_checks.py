"""Whether the arrays of a T5 checkpoint are those of its config.

check_leaves(checkpoint)
"""

from collections.abc import Mapping
import os

from gkd import trees
from gkd.checkpoints import stored_names
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

_READABLE = ("float32", "bfloat16")


def check_leaves(checkpoint: Checkpoint) -> None:
  """Every parameter of the config is there, with its shape, and no other.

  Optimizer slots are there for every parameter, if there are any.

  Raises:
    UserError: names what is missing, left over, misshapen and of another type,
      each with its shape.
  """
  config, path = checkpoint.config, checkpoint.path
  check_parameters(path, config, checkpoint.leaves, slots=checkpoint.slots)


def check_parameters(
  path: str | os.PathLike,
  config: T5Config,
  leaves: Mapping[str, Leaf],
  format: Format = "gkd",
  slots: Mapping[str, Leaf] | None = None,
) -> None:
  """`check_leaves` of leaves that are named as in a format.

  Args:
    path: of the checkpoint, for the message.
    config: of the model.
    leaves: {name in the format: leaf}.
    format: whose names and shapes the leaves have.
    slots: see `Checkpoint`.
  """
  layers = sum(t5_params.depths(config).values())
  if layers > len(leaves):  # before anything is made for each of them
    raise UserError(
      f"{path} should have {layers} layers, but holds {len(leaves)} parameters"
      " in all; give a whole checkpoint of one model"
    )
  wanted = dict(stored_names.table(format, config).values())
  found = {name: leaf.shape for name, leaf in leaves.items()}
  wrong = {
    **trees.shape_differences(wanted, found),
    "of another type": [
      f"{name} {leaf.dtype}, expected float32 or bfloat16"
      for name, leaf in sorted(leaves.items())
      if leaf.dtype not in _READABLE
    ],
    **_wrong_slots(slots or {}, wanted),
  }
  if any(wrong.values()):
    raise UserError(
      f"{path} is not the T5 that it seems to be: {trees.in_one_line(wrong)};"
      " give a whole checkpoint of one model"
    )


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
