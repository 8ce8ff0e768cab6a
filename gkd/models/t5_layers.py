"""A smaller T5 out of the layers of a larger one.

  small, params = every_kth(config, params, (2, 2))   # layers 0, 2, 4, …

Tables, norms, embeddings and the head are those of the larger model.
"""

import dataclasses
import re

from gkd import trees
from gkd.models.t5 import T5Config
from gkd.types import Params
from gkd.types import UserError

Strides = tuple[int, int]  # of the encoder, of the decoder
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.*)")


def kept(config: T5Config, strides: Strides) -> tuple[range, range]:
  """Layers 0, k, 2k, … of encoder and decoder.

  Raises:
    UserError: a k below 1 or above the number of layers.
  """
  layers = (config.num_encoder_layers, config.num_decoder_layers)
  stacks = ("encoder", "decoder")
  for stack, count, k in zip(stacks, layers, strides, strict=True):
    if not 1 <= k <= count:
      raise UserError(
        f"EVERY_KTH_LAYER is {k} for the {stack}, which has {count} layers;"
        f" give a number from 1 to {count}"
      )
  encoder, decoder = (
    range(0, count, k) for count, k in zip(layers, strides, strict=True)
  )
  return encoder, decoder


def every_kth_config(config: T5Config, strides: Strides) -> T5Config:
  """The config of the smaller model; see `kept`."""
  encoder, decoder = kept(config, strides)
  return dataclasses.replace(
    config, num_encoder_layers=len(encoder), num_decoder_layers=len(decoder)
  )


def every_kth(
  config: T5Config, params: Params, strides: Strides
) -> tuple[T5Config, Params]:
  """Config and parameters of the model with layers 0, k, 2k, … alone.

  Args:
    config: of the larger model.
    params: its parameters; leaves may be anything. A bias of one layer goes
      with its layer. Nothing is copied.
    strides: k of the encoder and of the decoder.

  Raises:
    UserError: see `kept`.
  """
  encoder, decoder = kept(config, strides)
  places = {
    "encoder": {old: new for new, old in enumerate(encoder)},
    "decoder": {old: new for new, old in enumerate(decoder)},
  }
  taken = {}
  for name, leaf in trees.flatten(params).items():
    if layer := _LAYER.fullmatch(name):
      stack, number, rest = layer.groups()
      place = places[stack].get(int(number))
      if place is None:
        continue
      name = f"{stack}/layers_{place}/{rest}"
    taken[name] = leaf
  return every_kth_config(config, strides), trees.unflatten(taken)


def words(config: T5Config, strides: Strides) -> str:
  """Which layers are taken."""
  encoder, decoder = kept(config, strides)
  return (
    f"encoder {_listed(encoder)} of {config.num_encoder_layers},"
    f" decoder {_listed(decoder)} of {config.num_decoder_layers}"
  )


def _listed(layers: range) -> str:
  return "layers " + ", ".join(map(str, layers))
