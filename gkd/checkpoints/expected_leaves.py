"""Which arrays a model has in each format, and whether a checkpoint has them.

table("t5x", config)["encoder/layers_3/mlp/wo/kernel"]
check(checkpoint.path, config, checkpoint.leaves, slots=checkpoint.slots)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd import trees
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import stacked_layers
from gkd.models import registry
from gkd.models import t5_params
from gkd.types import UserError

Shape = tuple[int, ...]
_READABLE = ("float32", "bfloat16")


def table(format: Format, config: Any) -> dict[str, tuple[str, Shape]]:
  """{our name: (name, shape)} in a format.

  T5X, which has no other family, stacks the layers of a T5 with bias_per_layer.
  """
  parameters = registry.layout_of(config).parameters(config)
  if format == "gkd":
    return {name: (name, row.shape) for name, row in parameters.items()}
  if format == "hf":
    return {name: (r.hf_name, r.hf_shape) for name, r in parameters.items()}
  if format == "gguf":
    return {name: (r.gguf_name, r.hf_shape) for name, r in parameters.items()}
  stored = {}
  for name, row in parameters.items():
    target, part, shape = name, "", row.shape
    stacked = t5_params.stacked_name(name) if config.bias_per_layer else None
    if stacked is not None:
      target, part = stacked[0], f"[:, {stacked[1]}]"
      shape = stacked_layers.stacked_shape(config, target)
    stored[name] = (f"target.{target.replace('/', '.')}{part}", shape)
  return stored


def check(
  path: Path,
  config: Any,
  leaves: Mapping[str, Leaf],
  format: Format = "gkd",
  slots: Mapping[str, Leaf] | None = None,
) -> None:
  """Every parameter of the config is there, with its shape, and no other.

  Args:
    path: of the checkpoint, for the message.
    config: of the model.
    leaves: {name in the format: leaf}.
    format: whose names and shapes the leaves have.
    slots: see `Checkpoint`; of every parameter, if there are any.

  Raises:
    UserError: lists what is missing, left over, misshapen or of another type.
  """
  layout = registry.layout_of(config)
  layers = sum(layout.depths(config).values())
  if layers > len(leaves):  # before anything is made for each of them
    raise UserError(
      f"{path} should have {layers} layers, but holds {len(leaves)} parameters"
      " in all; give a whole checkpoint of one model"
    )
  slots = slots or {}
  wanted = dict(table(format, config).values())
  wrong = {
    **trees.shape_differences(
      wanted, {name: leaf.shape for name, leaf in leaves.items()}
    ),
    "of another type": [
      f"{name} {leaf.dtype}, expected float32 or bfloat16"
      for name, leaf in sorted(leaves.items())
      if leaf.dtype not in _READABLE
    ],
    **(_wrong_slots(slots, wanted) if slots else {}),
  }
  if any(wrong.values()):
    raise UserError(
      f"{path} is not the {layout.title} that it seems to be:"
      f" {trees.in_one_line(wrong)}; give a whole checkpoint of one model"
    )


def _wrong_slots(
  slots: Mapping[str, Leaf], params: Mapping[str, Shape]
) -> dict[str, list[str]]:
  """What Adafactor would not have made for these parameters, listed by kind."""
  names = {f"{kind}/{name}" for kind in t5_params.SLOT_KINDS for name in params}
  misshapen = []
  for name, shape in params.items():
    m, *v = (slots.get(f"{kind}/{name}") for kind in t5_params.SLOT_KINDS)
    if m is not None and m.shape not in (t5_params.UNUSED_SLOT, shape):
      misshapen.append(f"m/{name} is {m.shape} instead of {shape}")
    shapes = [leaf.shape for leaf in v if leaf is not None]
    if all(v) and not t5_params.is_second_moment(*shapes, shape):
      listed = ", ".join(map(str, shapes))
      misshapen.append(f"v, v_row and v_col of {name} {shape} are {listed}")
  return {
    "slots missing": sorted(names - slots.keys()),
    "slots left over": [
      f"{name} {slots[name].shape}" for name in sorted(slots.keys() - names)
    ],
    "slots misshapen": misshapen,
    "slots of another type": [
      f"{name} {leaf.dtype}, expected float32"
      for name, leaf in sorted(slots.items())
      if leaf.dtype != "float32"
    ],
  }
