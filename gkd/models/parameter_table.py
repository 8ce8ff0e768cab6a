"""A row of the table of a family's parameters: what all formats call one.

table = registry.layout_of(config).parameters(config)
for name, parameter in table.items():
  print(name, parameter.shape, parameter.axes, parameter.hf_name)
"""

from collections.abc import Mapping
import math
import re
from typing import NamedTuple

from gkd.types import Axes

Shape = tuple[int, ...]

_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")


class Parameter(NamedTuple):
  """One parameter of a config.

  Attributes:
    shape: ours; of T5 T5X's unscanned one.
    axes: logical name of each axis.
    hf_name: name in a Hugging Face file.
    hf_transposed: whether the array there, and in a GGUF, is the transpose.
    gguf_name: name in a GGUF file; "" where the format has no such family.
  """

  shape: Shape
  axes: Axes
  hf_name: str
  hf_transposed: bool
  gguf_name: str = ""

  @property
  def hf_shape(self) -> Shape:
    return self.shape[::-1] if self.hf_transposed else self.shape


def num_parameters(table: Mapping[str, Parameter]) -> int:
  """Scalars of all parameters."""
  return sum(math.prod(row.shape) for row in table.values())


def layer_of(name: str) -> tuple[str, int, str] | None:
  """("encoder", 3, "mlp/wo/kernel") of "encoder/layers_3/mlp/wo/kernel"."""
  match = _LAYER.fullmatch(name)
  return match and (match[1], int(match[2]), match[3])
