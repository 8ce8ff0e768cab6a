"""Stacked layers against indexing written out, as umT5's converter has it."""

import numpy as np
import pytest

from gkd.checkpoints.t5x import stacked_layers
from gkd.models import t5_params
from gkd.models.t5 import T5Config
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


CONFIG = T5Config(
  vocab_size=9,
  emb_dim=D,
  num_heads=H,
  num_encoder_layers=L,
  num_decoder_layers=L,
  head_dim=K,
  mlp_dim=F,
  bias_per_layer=True,
)


@pytest.mark.parametrize("name", SHAPES)
def test_stacking_is_undone_by_indexing(name):
  shape = SHAPES[name]
  assert stacked_layers.is_stacked(name)
  assert stacked_layers.stacked_shape(CONFIG, name) == shape
  array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  layers = [by_hand(name, array, i) for i in range(L)]
  assert {x.shape for x in layers} == {stacked_layers.layer_shape(name, shape)}
  got = stacked_layers.stack(iter(layers), shape)
  np.testing.assert_array_equal(got, array)
  names = stacked_layers.layer_names(name, L)
  stack, _, rest = name.split("/", 2)
  assert names == [f"{stack}/layers_{i}/{rest}" for i in range(L)]
  for i, layer in enumerate(names):
    assert t5_params.stacked_name(layer) == (name, i)


def test_what_is_not_of_a_layer_stays():
  for name in (
    "token_embedder/embedding",
    "encoder/encoder_norm/scale",
    "encoder/layers_0/mlp/wo/kernel",
  ):
    assert not stacked_layers.is_stacked(name)


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("attention/query/kernel", r"shape \(6, 3, 8\); expected 4 axes"),
    ("mlp/router/kernel_2", "router/kernel_2 is no parameter of a T5"),
  ],
)
def test_what_is_no_stack_of_a_t5_is_refused(name, message):
  with pytest.raises(UserError, match=message):
    stacked_layers.layer_shape(f"encoder/encoder/{name}", (6, 3, 8))
