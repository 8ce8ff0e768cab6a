"""The table of T5's parameters against the model, and names as published."""

import jax
import pytest

from gkd import trees
from gkd.models import t5
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from tests.checkpoints import tiny_models


@pytest.mark.parametrize(
  "fields",
  [
    {},
    {"mlp_activations": ("relu",), "logits_via_embedding": True},
    {"bias_per_layer": True, "relative_buckets": 8, "num_heads": 1},
    {"mlp_activations": ("gelu", "linear", "relu"), "head_dim": 7},
  ],
)
def test_names_and_shapes_are_those_of_the_model(fields):
  config = T5Config.from_size(tiny_models.SIZE, **fields)
  table = t5_params.table(config)
  model = t5.encoder_decoder(config)
  params_tree = jax.eval_shape(model.init, jax.random.key(0))
  assert model.abstract_params == params_tree
  params = trees.flatten(params_tree)
  assert {name: row.shape for name, row in table.items()} == {
    name: leaf.shape for name, leaf in params.items()
  }
  sizes = t5_params.axis_sizes(config)

  def check(leaf, axes):
    assert leaf.shape == tuple(sizes[axis] for axis in axes)

  jax.tree.map(check, params_tree, model.axes(params_tree))
  assert list(table) == sorted(table)
  assert len({row.hf_name for row in table.values()}) == len(table)


@pytest.mark.parametrize(
  ("name", "hf_name", "transposed"),
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
def test_some_names_of_the_published_models(name, hf_name, transposed):
  row = t5_params.table(T5Config.from_size(tiny_models.SIZE))[name]
  assert (row.hf_name, row.hf_transposed) == (hf_name, transposed)
