"""Layers stacked in one array (`scan_layers=True`), and one by one.

T5X's scalable_t5, and so the public umT5, keeps the layers of a stack in one
array per parameter, with the layer at axis 1 and the heads as an axis of their
own. Each layer has its own relative bias there. Such an array is as large as
all layers together, and `stacked` makes it in memory.

  encoder/encoder/attention/query/kernel   (D, L, H, K)
  encoder/layers_3/attention/query/kernel  (D, H·K)
"""

from collections.abc import Iterable
from collections.abc import Sequence
import math
import re

import numpy as np

from gkd.types import UserError

_STACKED = re.compile(r"(encoder|decoder)/\1/(.+)")
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")

# Parameter -> axes of one layer, as T5X names them; a pair is kept as two axes
# when stacked and as their product when not.
_AXES: tuple[tuple[str, tuple[str | tuple[str, str], ...]], ...] = (
  (r"(query|key|value)/kernel", ("embed", ("heads", "kv"))),
  (r"out/kernel", (("heads", "kv"), "embed")),
  (r"mlp/wi(_\d+)?/kernel", ("embed", "mlp")),
  (r"mlp/wo/kernel", ("mlp", "embed")),
  (r"relpos_bias/rel_embedding", ("heads", "relpos_buckets")),
  (r"norm/scale", ("embed",)),
)


def is_scanned(names: Iterable[str]) -> bool:
  """Whether any parameter holds the layers of a stack."""
  return any(_STACKED.fullmatch(name) for name in names)


def layer_names(name: str, shape: Sequence[int]) -> list[str]:
  """["encoder/layers_0/…", …] of a stacked parameter; [] if it is none.

  Raises:
    UserError: the name is unknown, or the number of its axes is wrong.
  """
  match = _STACKED.fullmatch(name)
  if match is None:
    return []
  axes = _axes(name)
  expected = 1 + sum(1 if isinstance(axis, str) else 2 for axis in axes)
  if len(shape) != expected:
    raise UserError(
      f"{name} has the shape {tuple(shape)}; expected {expected} axes, the "
      "second of them the layers, as T5X's scalable_t5 has it"
    )
  stack, rest = match.groups()
  return [f"{stack}/layers_{i}/{rest}" for i in range(shape[1])]


def layer_shape(name: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Shape of one layer, heads joined, of a stacked parameter's shape."""
  sizes = [shape[0], *shape[2:]]
  joined = []
  for axis in _axes(name):
    taken = 1 if isinstance(axis, str) else 2
    joined.append(math.prod(sizes[:taken]))
    sizes = sizes[taken:]
  return tuple(joined)


def layer_of(name: str, part: np.ndarray) -> np.ndarray:
  """One layer as unscanned models have it, from `stacked[:, i]`."""
  shape = (part.shape[0], 1, *part.shape[1:])
  return np.ascontiguousarray(part).reshape(layer_shape(name, shape))


def stacked_name(name: str) -> tuple[str, int] | None:
  """("encoder/encoder/…", 3) of "encoder/layers_3/…"; None for the others."""
  match = _LAYER.fullmatch(name)
  if match is None:
    return None
  stack, layer, rest = match.groups()
  return f"{stack}/{stack}/{rest}", int(layer)


def stacked_shape(
  name: str, shape: Sequence[int], num_layers: int, num_heads: int
) -> tuple[int, ...]:
  """Shape of the stacked parameter, from that of one layer."""
  sizes: list[int] = []
  for axis, size in zip(_axes(name), shape, strict=True):
    sizes += [size] if isinstance(axis, str) else [num_heads, size // num_heads]
  return (sizes[0], num_layers, *sizes[1:])


def stacked(
  name: str,
  layers: Iterable[np.ndarray],
  num_layers: int,
  num_heads: int,
) -> np.ndarray:
  """All layers of a parameter in one array, heads apart.

  Args:
    name: of the stacked parameter.
    layers: each as unscanned models have it; taken one by one, so that an
      iterator which reads them holds one at a time.
    num_layers: how many there are.
    num_heads: of the model.
  """
  array = None
  for i, layer in enumerate(layers):
    if array is None:
      shape = stacked_shape(name, layer.shape, num_layers, num_heads)
      array = np.empty(shape, layer.dtype)
    array[:, i] = layer.reshape(shape[0], *shape[2:])
  assert array is not None
  assert i == num_layers - 1
  return array


def _axes(name: str) -> tuple[str | tuple[str, str], ...]:
  for pattern, axes in _AXES:
    if re.search(pattern + "$", name):
      return axes
  raise UserError(
    f"{name} is no parameter of T5X's scalable_t5; gkd converts T5 "
    "encoder–decoders"
  )
