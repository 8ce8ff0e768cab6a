"""Every k-th layer and lists, against surgery by hand on the parameters."""

import dataclasses

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.models import kept_layers
from gkd.models import t5
from gkd.models.decoder_only import Gemma
from gkd.models.kept_layers import EveryKth
from gkd.models.kept_layers import KeepLayers
from gkd.types import UserError
from tests import tiny

CONFIG = dataclasses.replace(
  tiny.STUDENT.config,
  num_encoder_layers=5,
  num_decoder_layers=4,
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
  ("choice", "encoder", "decoder"),
  [
    (EveryKth(2), (0, 2, 4), (0, 2)),
    (EveryKth((1, 3)), (0, 1, 2, 3, 4), (0, 3)),
    (EveryKth((5, 1)), (0,), (0, 1, 2, 3)),
    (KeepLayers((1, 3)), (1, 3), (1, 3)),
    (KeepLayers(3), (3,), (3,)),
    (KeepLayers("range(0, 2),3"), (0, 1, 3), (0, 1, 3)),
    (KeepLayers(("range(0,5,2)", (3,))), (0, 2, 4), (3,)),
  ],
)
def test_picked_layers_are_those_of_hand_made_surgery(
  bias_per_layer, choice, encoder, decoder
):
  config = dataclasses.replace(CONFIG, bias_per_layer=bias_per_layer)
  params = make_params(config)
  smaller, taken = kept_layers.pick(config, trees.flatten(params), choice)
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
  assert kept_layers.describe(CONFIG, EveryKth((2, 3))) == (
    "encoder layers 0, 2, 4 of 5, decoder layers 0, 3 of 4"
  )


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (
      lambda: EveryKth((6, 1)),
      "is 6 for the encoder, which has 5 layers",
    ),
    (
      lambda: EveryKth((2, 5)),
      "is 5 for the decoder, which has 4 layers",
    ),
    (lambda: EveryKth((0, 1)), r"is \(0, 1\); give a number of at least 2"),
    (lambda: EveryKth(2.5), "is 2.5; give a number of at least 2"),
    (lambda: KeepLayers(2.5), "is 2.5; give ascending numbers"),
    (
      lambda: KeepLayers("range(0,5)"),
      "decoder has 4 layers; give numbers",
    ),
    (lambda: KeepLayers("range(3,3)"), "give ascending numbers such as"),
    (lambda: KeepLayers("0:3"), "is '0:3'; give ascending numbers"),
    (lambda: KeepLayers((1, 0)), "give ascending numbers"),
    (lambda: KeepLayers((-1, 0)), "give ascending numbers"),
    (lambda: KeepLayers(("0", "1", "2")), "or two such lists"),
  ],
)
def test_layers_that_are_not_there_are_refused(make, message):
  with pytest.raises(UserError, match=message):
    kept_layers.pick(CONFIG, {}, make())


GEMMA = dataclasses.replace(
  tiny.DECODER,
  num_layers=6,
  gemma=Gemma(
    post_norms=False,
    embedding_scale=1.0,
    norm_offset=0.0,
    query_scale=1.0,
    sliding_window=4,
    global_every=2,
    local_rope_theta=10.0,
  ),
)


def test_a_decoder_has_one_list_and_gemma_keeps_its_pattern():
  leaves = {f"decoder/layers_{i}/mlp/wo/kernel": i for i in range(6)}
  smaller, taken = kept_layers.pick(GEMMA, leaves, KeepLayers("0,1,range(4,6)"))
  assert smaller == dataclasses.replace(GEMMA, num_layers=4)
  assert list(taken.values()) == [0, 1, 4, 5]
  plain = dataclasses.replace(GEMMA, gemma=None)
  smaller, taken = kept_layers.pick(plain, leaves, EveryKth(2))
  assert list(taken.values()) == [0, 2, 4]
  for choice, message in (
    (
      KeepLayers((0, 2)),
      "layer 2 would become layer 1 of the stude",
    ),
    (KeepLayers(("0", "1")), "the model has no encoder; give one list"),
    (EveryKth((2, 2)), "the model has no encoder; give one number"),
  ):
    with pytest.raises(UserError, match=message):
      kept_layers.pick(GEMMA, leaves, choice)
