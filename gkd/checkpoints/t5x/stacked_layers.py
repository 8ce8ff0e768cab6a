"""Layers stacked in one array (`scan_layers=True`): names and shapes.

T5X's scalable_t5, and so the public umT5, keeps the layers of a stack in one
array per parameter, with the layer at axis 1 and the heads as an axis of their
own. Each layer has its own relative bias there.

  encoder/encoder/attention/query/kernel   (D, L, H, K)
  encoder/layers_3/attention/query/kernel  (D, H·K)
"""

from collections.abc import Sequence

from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError


def is_stacked(name: str) -> bool:
  """Whether a parameter of that name holds all layers of a stack."""
  return any(name.startswith(f"{stack}/{stack}/") for stack in t5_params.STACKS)


def layer_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Shape of one layer, heads joined, of a stacked parameter's shape.

  Raises:
    UserError: the name is unknown, or the number of its axes is wrong.
  """
  axes = t5_params.stacked_axes(name)
  if len(shape) != len(axes):
    raise UserError(
      f"{name} has the shape {tuple(shape)}; expected {len(axes)} axes, the"
      " second of them the layers, as T5X's scalable_t5 has it"
    )
  sizes = dict(zip(axes, shape, strict=True))
  sizes["joined_kv"] = sizes.get("heads", 1) * sizes.get("kv", 1)
  return tuple(sizes[axis] for axis in t5_params.axes_of(name))


def stacked_shape(config: T5Config, name: str) -> tuple[int, ...]:
  """Shape of the stacked parameter "encoder/encoder/…" of a model."""
  sizes = t5_params.axis_sizes(config)
  sizes["layers"] = t5_params.depths(config)[name.partition("/")[0]]
  return tuple(sizes[axis] for axis in t5_params.stacked_axes(name))
