"""A smaller T5 out of the layers of a larger one: layers 0, k, 2k, ….

  config, leaves = every_kth(checkpoint.config, checkpoint.leaves, (2, 2))

Tables, norms, embeddings and the head are those of the larger model.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from gkd.models import parameter_table
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

Strides = tuple[int, int]  # of the encoder, of the decoder


def every_kth(
  config: T5Config, leaves: Mapping[str, Any], strides: Strides
) -> tuple[T5Config, dict[str, Any]]:
  """Config and {name: leaf} of the model with layers 0, k, 2k, … alone.

  Args:
    config: of the larger model.
    leaves: its parameters by slash-separated name; leaves may be anything. A
      bias of one layer goes with its layer.
    strides: k of the encoder and of the decoder.

  Raises:
    UserError: a k below 1 or above the number of layers.
  """
  kept = _kept(config, strides)
  picked = {}
  for name, leaf in leaves.items():
    if layer := parameter_table.layer_of(name):
      stack, number, rest = layer
      if number not in kept[stack]:
        continue
      name = f"{stack}/layers_{kept[stack].index(number)}/{rest}"
    picked[name] = leaf
  smaller = dataclasses.replace(
    config,
    num_encoder_layers=len(kept["encoder"]),
    num_decoder_layers=len(kept["decoder"]),
  )
  return smaller, dict(sorted(picked.items()))


def describe(config: T5Config, strides: Strides) -> str:
  """Which layers are taken."""
  depths = t5_params.depths(config)
  return ", ".join(
    f"{stack} layers {', '.join(map(str, layers))} of {depths[stack]}"
    for stack, layers in _kept(config, strides).items()
  )


def _kept(config: T5Config, strides: Strides) -> dict[str, range]:
  """{stack: layers 0, k, 2k, …}."""
  depths = t5_params.depths(config)
  for (stack, count), k in zip(depths.items(), strides, strict=True):
    if not 1 <= k <= count:
      raise UserError(
        f"EVERY_KTH_LAYER is {k} for the {stack}, which has {count} layers;"
        f" give a number from 1 to {count}"
      )
  return {
    stack: range(0, count, k)
    for (stack, count), k in zip(depths.items(), strides, strict=True)
  }
