"""Layers 0, k, 2k, …, against surgery by hand on the parameters."""

import dataclasses

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.models import t5
from gkd.models import t5_layers
from gkd.types import UserError

CONFIG = t5.T5Config(
  vocab_size=12,
  emb_dim=8,
  num_heads=2,
  num_encoder_layers=5,
  num_decoder_layers=4,
  head_dim=4,
  mlp_dim=6,
  mlp_activations=("gelu", "linear"),
  dropout_rate=0.0,
)


def shapes(config):
  return jax.eval_shape(t5.encoder_decoder(config).init, jax.random.key(0))


def make_params(config):
  """A number of its own in every array."""
  flat = trees.flatten(shapes(config))
  return trees.unflatten(
    {
      name: np.full(leaf.shape, index, np.float32)
      for index, (name, leaf) in enumerate(flat.items())
    }
  )


def by_hand(params, encoder, decoder):
  """The numbered layers of both stacks, and all else as it is."""
  made = {name: dict(part) for name, part in params.items()}
  for stack, taken in (("encoder", encoder), ("decoder", decoder)):
    whole = params[stack]
    made[stack] = {k: v for k, v in whole.items() if "layers_" not in k}
    for new, old in enumerate(taken):
      made[stack][f"layers_{new}"] = whole[f"layers_{old}"]
  return made


@pytest.mark.parametrize("bias_per_layer", [False, True])
@pytest.mark.parametrize(
  ("strides", "encoder", "decoder"),
  [
    ((2, 2), (0, 2, 4), (0, 2)),
    ((1, 3), (0, 1, 2, 3, 4), (0, 3)),
    ((5, 1), (0,), (0, 1, 2, 3)),
  ],
)
def test_every_kth_layer_is_that_of_hand_made_surgery(
  bias_per_layer, strides, encoder, decoder
):
  config = dataclasses.replace(CONFIG, bias_per_layer=bias_per_layer)
  params = make_params(config)
  smaller, taken = t5_layers.every_kth(config, trees.flatten(params), strides)
  taken = trees.unflatten(taken)
  jax.tree.map(
    np.testing.assert_array_equal, taken, by_hand(params, encoder, decoder)
  )
  assert smaller == dataclasses.replace(
    config, num_encoder_layers=len(encoder), num_decoder_layers=len(decoder)
  )
  found = jax.tree.map(lambda leaf: leaf.shape, taken)
  assert found == jax.tree.map(lambda leaf: leaf.shape, shapes(smaller))


def test_the_layers_are_said_in_words():
  assert t5_layers.describe(CONFIG, (2, 3)) == (
    "encoder layers 0, 2, 4 of 5, decoder layers 0, 3 of 4"
  )


@pytest.mark.parametrize(
  ("strides", "message"),
  [
    ((6, 1), "EVERY_KTH_LAYER is 6 for the encoder, which has 5 layers; give"),
    ((2, 5), "EVERY_KTH_LAYER is 5 for the decoder, which has 4 layers; give"),
    ((0, 1), "EVERY_KTH_LAYER is 0 for the encoder"),
  ],
)
def test_layers_that_are_not_there_are_refused(strides, message):
  with pytest.raises(UserError, match=message):
    t5_layers.every_kth(CONFIG, {}, strides)
