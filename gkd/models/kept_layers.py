"""A smaller model out of some layers of a larger one, whatever its family.

  config, leaves = pick(config, leaves, EveryKth(2))
  config, leaves = pick(config, leaves, KeepLayers("range(0,10),range(20,30)"))

Embeddings, the last norms and the head are those of the larger model.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any
from typing import ClassVar

from gkd.models import parameter_table
from gkd.models import registry
from gkd.types import UserError

Kept = dict[str, Sequence[int]]  # {stack: numbers of its layers, ascending}


@dataclasses.dataclass(frozen=True)
class EveryKth:
  """Layers 0, k, 2k, …; `strides` is k, or (k of encoder, k of decoder)."""

  strides: int | Sequence[int]
  macro: ClassVar[str] = "EVERY_KTH_LAYER"

  def __post_init__(self):
    pair = self._pair
    if len(pair) != 2 or not all(isinstance(k, int) and k >= 1 for k in pair):
      raise UserError(
        f"{self.macro} is {self.strides!r}; give a number of at least 2, or"
        " two: (k of the encoder, k of the decoder)"
      )
    if set(pair) == {1}:
      raise UserError(
        f"{self.macro} is {self.strides!r}, which takes all layers; leave it"
        " out"
      )

  @property
  def _pair(self) -> tuple:
    k = self.strides
    return tuple(k) if isinstance(k, list | tuple) else (k, k)

  def of(self, depths: Mapping[str, int]) -> Kept:
    """The layers of stacks with so many of them."""
    if len(depths) == 1 and not isinstance(self.strides, int):
      raise UserError(
        f"{self.macro} is {self.strides!r} but the model has no encoder; give"
        " one number"
      )
    kept = {}
    for (stack, count), k in zip(depths.items(), self._pair, strict=False):
      if k > count:
        raise UserError(
          f"{self.macro} is {k} for the {stack}, which has {count} layers; give"
          f" a number from 1 to {count}"
        )
      kept[stack] = range(0, count, k)
    return kept

  def in_words(self, whole: str) -> str:
    k = self.strides
    if not isinstance(k, int):
      k = f"{k[0]} (encoder) and {k[1]} (decoder)"
    return f"layers 0, k, 2k, … of {whole}, k = {k}"


_RANGE = r"(?:range\((\d{1,5}), *(\d{1,5})(?:, *([1-9]\d{0,4}))?\)|(\d{1,5}))"


@dataclasses.dataclass(frozen=True)
class KeepLayers:
  """A list of layers, counted from 0.

  Attributes:
    layers: "range(0,10),range(20,30)" or (0, 1, 4), of all stacks, or a pair of
      these: (of the encoder, of the decoder).
  """

  layers: str | Sequence[Any]
  macro: ClassVar[str] = "KEEP_LAYERS"

  def __post_init__(self):
    self._lists()

  def of(self, depths: Mapping[str, int]) -> Kept:
    """The layers of stacks with so many of them."""
    lists = self._lists()
    if len(lists) > len(depths):
      raise UserError(
        f"{self.macro} is {self.layers!r} but the model has no encoder; give"
        " one list"
      )
    kept = dict(zip(depths, lists * len(depths), strict=False))
    for stack, layers in kept.items():
      if layers[-1] >= depths[stack]:
        raise UserError(
          f"{self.macro} is {self.layers!r}, but the {stack} has"
          f" {depths[stack]} layers; give numbers from 0 to {depths[stack] - 1}"
        )
    return kept

  def in_words(self, whole: str) -> str:
    return f"layers {self.layers} of {whole}"

  def _lists(self) -> list[list[int]]:
    """One list for all stacks, or one for each."""
    given = self.layers
    is_one = not isinstance(given, list | tuple) or all(
      type(x) is int for x in given
    )
    lists = [_numbers(x) for x in ([given] if is_one else given)]
    if len(lists) > 2 or any(
      not x or x[0] < 0 or x != sorted(set(x)) for x in lists
    ):
      raise UserError(
        f"{self.macro} is {given!r:.80}; give ascending numbers such as"
        " 'range(0,10),range(20,30)' or (0, 1, 4), or two such lists: (of the"
        " encoder, of the decoder)"
      )
    return lists


LayerChoice = EveryKth | KeepLayers


def pick(
  config: Any, leaves: Mapping[str, Any], choice: LayerChoice
) -> tuple[Any, dict[str, Any]]:
  """Config and {name: leaf} of the model with the chosen layers alone.

  Args:
    config: of the larger model, of a family with stacks of layers.
    leaves: its parameters by slash-separated name; leaves may be anything. A
      bias of one layer goes with its layer.
    choice: of layers.

  Raises:
    UserError: a layer that the model does not have.
  """
  layout = registry.layout_of(config)
  kept = choice.of(layout.depths(config))
  picked = {}
  for name, leaf in leaves.items():
    if layer := parameter_table.layer_of(name):
      stack, number, rest = layer
      if number not in kept[stack]:
        continue
      name = f"{stack}/layers_{kept[stack].index(number)}/{rest}"
    picked[name] = leaf
  return layout.with_layers(config, kept), dict(sorted(picked.items()))


def describe(config: Any, choice: LayerChoice) -> str:
  """Which layers are taken."""
  depths = registry.layout_of(config).depths(config)
  return ", ".join(
    f"{stack} layers {', '.join(map(str, layers))} of {depths[stack]}"
    for stack, layers in choice.of(depths).items()
  )


def _numbers(value: Any) -> list[int]:
  """The layers of text or of a sequence; [] of anything else."""
  if isinstance(value, list | tuple):
    return list(value) if all(type(x) is int for x in value) else []
  text = f"{value}".strip(" ,")
  if not re.fullmatch(rf"{_RANGE}(?: *, *{_RANGE})*", text):
    return []
  layers: list[int] = []
  for start, stop, step, one in re.findall(_RANGE, text):
    if one:
      layers.append(int(one))
    else:
      layers += range(int(start), int(stop), int(step or 1))
  return layers
