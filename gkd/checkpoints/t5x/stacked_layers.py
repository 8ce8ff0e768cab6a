"""Layers stacked in one array (`scan_layers=True`), and one by one.

T5X's scalable_t5, and so the public umT5, keeps the layers of a stack in one
array per parameter, with the layer at axis 1 and the heads as an axis of their
own. Each layer has its own relative bias there. Such an array is as large as
all layers together, and `stack` makes it in memory.

  encoder/encoder/attention/query/kernel   (D, L, H, K)
  encoder/layers_3/attention/query/kernel  (D, H·K)
"""

from collections.abc import Iterable
from collections.abc import Sequence

import numpy as np

from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError


def is_stacked(name: str) -> bool:
  """Whether a parameter of that name holds all layers of a stack."""
  return any(name.startswith(f"{stack}/{stack}/") for stack in t5_params.STACKS)


def stacked_sizes(name: str, shape: Sequence[int]) -> dict[str, int]:
  """{logical axis: size} of a stacked parameter.

  Raises:
    UserError: the name is unknown, or the number of its axes is wrong.
  """
  axes = t5_params.stacked_axes(name)
  if len(shape) != len(axes):
    raise UserError(
      f"{name} has the shape {tuple(shape)}; expected {len(axes)} axes, the"
      " second of them the layers, as T5X's scalable_t5 has it"
    )
  return dict(zip(axes, shape, strict=True))


def layer_names(name: str, num_layers: int) -> list[str]:
  """["encoder/layers_0/…", …] of the stacked "encoder/encoder/…"."""
  stack, _, rest = name.split("/", 2)
  return [f"{stack}/layers_{i}/{rest}" for i in range(num_layers)]


def layer_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Shape of one layer, heads joined, of a stacked parameter's shape."""
  sizes = stacked_sizes(name, shape)
  sizes["joined_kv"] = sizes.get("heads", 1) * sizes.get("kv", 1)
  return tuple(sizes[axis] for axis in t5_params.axes_of(name))


def stacked_shape(config: T5Config, name: str) -> tuple[int, ...]:
  """Shape of the stacked parameter "encoder/encoder/…" of a model."""
  sizes = t5_params.axis_sizes(config)
  sizes["layers"] = t5_params.depths(config)[name.partition("/")[0]]
  return tuple(sizes[axis] for axis in t5_params.stacked_axes(name))


def stack(layers: Iterable[np.ndarray], shape: Sequence[int]) -> np.ndarray:
  """All layers of a parameter in one array, heads apart.

  Args:
    layers: each as unscanned models have it; taken one by one, so that an
      iterator which reads them holds one at a time.
    shape: of the stacked parameter.
  """
  array = None
  for i, layer in enumerate(layers):
    if array is None:
      array = np.empty(shape, layer.dtype)
    array[:, i] = layer.reshape(shape[0], *shape[2:])
  assert array is not None
  assert i == shape[1] - 1
  return array
