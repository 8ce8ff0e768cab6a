"""The rename table against the one that made the golden files."""

import re

import pytest

from gkd.models import t5_params
from gkd.models.t5 import T5Config
from tests.checkpoints import tiny_models


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("per_layer", [False, True])
@pytest.mark.parametrize("activations", [("relu",), ("silu", "linear")])
def test_every_parameter_has_one_name(tied, per_layer, activations):
  config = T5Config.from_size(
    tiny_models.SIZE,
    logits_via_embedding=tied,
    bias_per_layer=per_layer,
    mlp_activations=activations,
  )
  table = t5_params.table(config)
  assert len({row.hf_name for row in table.values()}) == len(table)
  biases = [n for n in table if "relpos_bias" in n]
  assert len(biases) == (5 if per_layer else 2)


@pytest.mark.parametrize(
  ("ours", "theirs", "transposed"),
  [
    (
      "decoder/layers_1/encoder_decoder_attention/out/kernel",
      "decoder.block.1.layer.1.EncDecAttention.o.weight",
      True,
    ),
    (
      "decoder/layers_2/pre_cross_attention_layer_norm/scale",
      "decoder.block.2.layer.1.layer_norm.weight",
      False,
    ),
    (
      "decoder/layers_0/mlp/wi_1/kernel",
      "decoder.block.0.layer.2.DenseReluDense.wi_1.weight",
      True,
    ),
    (
      "encoder/relpos_bias/rel_embedding",
      "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
      True,
    ),
    ("encoder/encoder_norm/scale", "encoder.final_layer_norm.weight", False),
    ("decoder/logits_dense/kernel", "lm_head.weight", True),
  ],
)
def test_some_names_of_the_published_models(ours, theirs, transposed):
  table = t5_params.table(T5Config.from_size(tiny_models.SIZE))
  row = table[ours]
  assert (row.hf_name, row.hf_transposed) == (theirs, transposed)
  assert re.search("kernel|rel_embedding", ours) is not None or not transposed
