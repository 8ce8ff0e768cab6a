"""Names of transformers, from a folder that transformers saved."""

import pytest

from gkd.convert import hf_names
from gkd.models.t5 import T5Config
from tests.convert import tiny_models

# `sorted(model.state_dict())` of transformers 5.23, embeddings that are shared
# left out: T5ForConditionalGeneration, one layer each, gated.
GATED = """
decoder.block.0.layer.0.SelfAttention.k.weight
decoder.block.0.layer.0.SelfAttention.o.weight
decoder.block.0.layer.0.SelfAttention.q.weight
decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight
decoder.block.0.layer.0.SelfAttention.v.weight
decoder.block.0.layer.0.layer_norm.weight
decoder.block.0.layer.1.EncDecAttention.k.weight
decoder.block.0.layer.1.EncDecAttention.o.weight
decoder.block.0.layer.1.EncDecAttention.q.weight
decoder.block.0.layer.1.EncDecAttention.v.weight
decoder.block.0.layer.1.layer_norm.weight
decoder.block.0.layer.2.DenseReluDense.wi_0.weight
decoder.block.0.layer.2.DenseReluDense.wi_1.weight
decoder.block.0.layer.2.DenseReluDense.wo.weight
decoder.block.0.layer.2.layer_norm.weight
decoder.final_layer_norm.weight
encoder.block.0.layer.0.SelfAttention.k.weight
encoder.block.0.layer.0.SelfAttention.o.weight
encoder.block.0.layer.0.SelfAttention.q.weight
encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight
encoder.block.0.layer.0.SelfAttention.v.weight
encoder.block.0.layer.0.layer_norm.weight
encoder.block.0.layer.1.DenseReluDense.wi_0.weight
encoder.block.0.layer.1.DenseReluDense.wi_1.weight
encoder.block.0.layer.1.DenseReluDense.wo.weight
encoder.block.0.layer.1.layer_norm.weight
encoder.final_layer_norm.weight
lm_head.weight
shared.weight
""".split()


def config(**changes):
  one = {"num_encoder_layers": 1, "num_decoder_layers": 1}
  return T5Config.from_size(tiny_models.SIZE | one, **changes)


def theirs(config):
  return sorted(name.theirs for name in hf_names.table(config).values())


def test_a_layer_of_each_kind_has_transformers_names():
  assert theirs(config()) == GATED


def test_tied_relu_models_have_neither_head_nor_gate():
  tied = config(mlp_activations=("relu",), logits_via_embedding=True)
  wanted = [n.replace("wi_0", "wi") for n in GATED if "wi_1" not in n]
  wanted.remove("lm_head.weight")
  assert theirs(tied) == wanted


@pytest.mark.parametrize(("per_layer", "tables"), [(False, 1), (True, 3)])
def test_only_umt5_has_a_bias_in_every_layer(per_layer, tables):
  deep = config(num_decoder_layers=3, bias_per_layer=per_layer)
  found = [n for n in theirs(deep) if n.startswith("decoder") and "bias" in n]
  assert len(found) == tables


def test_nothing_shares_a_name_and_all_that_have_two_sides_are_turned():
  table = hf_names.table(config(bias_per_layer=True))
  assert len(set(table.values())) == len(table)
  straight = {ours for ours, name in table.items() if not name.transposed}
  assert straight == {
    ours
    for ours in table
    if ours.endswith("/scale") or ours == "token_embedder/embedding"
  }
