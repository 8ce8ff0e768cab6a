"""Shapes of stacked layers, as umT5's converter has them.

That layers come back from a stack bit for bit: see test_conversion; that they
are T5X's: see test_t5x_reader.
"""

import pytest

from gkd.checkpoints.t5x import stacked_layers
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

D, L, H, K, F = 6, 3, 2, 4, 5
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


@pytest.mark.parametrize(
  ("name", "shape", "layer"),
  [
    ("encoder/encoder/attention/query/kernel", (D, L, H, K), (D, H * K)),
    ("decoder/decoder/self_attention/key/kernel", (D, L, H, K), (D, H * K)),
    (
      "decoder/decoder/encoder_decoder_attention/value/kernel",
      (D, L, H, K),
      (D, H * K),
    ),
    ("encoder/encoder/attention/out/kernel", (H, L, K, D), (H * K, D)),
    ("encoder/encoder/mlp/wi/kernel", (D, L, F), (D, F)),
    ("decoder/decoder/mlp/wi_1/kernel", (D, L, F), (D, F)),
    ("encoder/encoder/mlp/wo/kernel", (F, L, D), (F, D)),
    ("encoder/encoder/relpos_bias/rel_embedding", (H, L, 32), (H, 32)),
    ("decoder/decoder/pre_cross_attention_layer_norm/scale", (D, L), (D,)),
  ],
)
def test_the_layer_is_the_second_axis_and_heads_are_apart(name, shape, layer):
  assert stacked_layers.is_stacked(name)
  assert stacked_layers.stacked_shape(CONFIG, name) == shape
  assert stacked_layers.layer_shape(name, shape) == layer
  stack, _, rest = name.split("/", 2)
  unscanned = f"{stack}/layers_2/{rest}"
  assert t5_params.stacked_name(unscanned) == (name, 2)
  assert not stacked_layers.is_stacked(unscanned)


@pytest.mark.parametrize(
  "name", ["token_embedder/embedding", "encoder/encoder_norm/scale"]
)
def test_what_is_not_of_a_layer_is_not_stacked(name):
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
