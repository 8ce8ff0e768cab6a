"""Stacked layers against indexing written out, as umT5's converter has it."""

import numpy as np
import pytest

from gkd.checkpoints.t5x import stacked_layers
from gkd.types import UserError

D, L, H, K, F = 6, 3, 2, 4, 5
SHAPES = {
  "encoder/encoder/attention/query/kernel": (D, L, H, K),
  "decoder/decoder/self_attention/key/kernel": (D, L, H, K),
  "decoder/decoder/encoder_decoder_attention/value/kernel": (D, L, H, K),
  "encoder/encoder/attention/out/kernel": (H, L, K, D),
  "encoder/encoder/mlp/wi/kernel": (D, L, F),
  "decoder/decoder/mlp/wi_1/kernel": (D, L, F),
  "encoder/encoder/mlp/wo/kernel": (F, L, D),
  "encoder/encoder/relpos_bias/rel_embedding": (H, L, 32),
  "decoder/decoder/pre_cross_attention_layer_norm/scale": (D, L),
}


def by_hand(name: str, array: np.ndarray, i: int) -> np.ndarray:
  layer = array.take(i, axis=1)
  if name.endswith("out/kernel"):
    return layer.reshape(H * K, D)
  return layer.reshape(D, H * K) if layer.ndim == 3 else layer


@pytest.mark.parametrize("name", SHAPES)
def test_layers_are_those_of_indexing(name):
  shape = SHAPES[name]
  array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
  names = stacked_layers.layer_names(name, shape)
  stack, _, rest = name.split("/", 2)
  assert names == [f"{stack}/layers_{i}/{rest}" for i in range(L)]
  for i in range(L):
    layer = stacked_layers.layer_of(name, array[:, i])
    np.testing.assert_array_equal(layer, by_hand(name, array, i))
    assert layer.shape == stacked_layers.layer_shape(name, shape)
    assert layer.flags.c_contiguous


@pytest.mark.parametrize("name", SHAPES)
def test_stacking_undoes_it(name):
  shape = SHAPES[name]
  array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  layers = [by_hand(name, array, i) for i in range(L)]
  assert stacked_layers.stacked_shape(name, layers[0].shape, L, H) == shape
  got = stacked_layers.stacked(name, iter(layers), L, H)
  np.testing.assert_array_equal(got, array)
  for i, layer in enumerate(stacked_layers.layer_names(name, shape)):
    assert stacked_layers.stacked_name(layer) == (name, i)


def test_what_is_not_of_a_layer_stays():
  names = ("token_embedder/embedding", "encoder/encoder_norm/scale")
  assert not stacked_layers.is_scanned(
    [*names, "encoder/layers_0/mlp/wo/kernel"]
  )
  assert stacked_layers.is_scanned([*names, "decoder/decoder/mlp/wo/kernel"])
  for name in names:
    assert stacked_layers.layer_names(name, (3, 4)) == []
    assert stacked_layers.stacked_name(name) is None


def test_wrong_number_of_axes_is_refused():
  with pytest.raises(UserError, match=r"shape \(6, 3, 8\); expected 4 axes"):
    stacked_layers.layer_names(
      "encoder/encoder/attention/query/kernel", (6, 3, 8)
    )


def test_unknown_parameter_is_refused():
  name = "encoder/encoder/mlp/router/kernel_2"
  with pytest.raises(UserError, match="router/kernel_2 is no parameter of"):
    stacked_layers.layer_names(name, (6, 3, 8))
