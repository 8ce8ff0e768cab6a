"""Configs read off shapes: of every public size, and what cannot be read."""

import pytest

from gkd.checkpoints import config_from_shapes
from gkd.models import sizes
from gkd.models import t5
from gkd.models import t5_params
from gkd.types import UserError

TINY = {
  "vocab_size": 128,
  "emb_dim": 32,
  "num_heads": 3,
  "num_encoder_layers": 2,
  "num_decoder_layers": 4,
  "head_dim": 16,
  "mlp_dim": 48,
}
GATED = {"mlp_activations": ("gelu", "linear")}
RELU = {"mlp_activations": ("relu",), "logits_via_embedding": True}


def shapes_of(config) -> dict[str, tuple[int, ...]]:
  return {name: row.shape for name, row in t5_params.table(config).items()}


TINY_SHAPES = shapes_of(t5.T5Config(**TINY, **GATED))


@pytest.mark.parametrize(
  "fields",
  [
    {**TINY, **GATED},
    {**TINY, **RELU},
    {**TINY, **GATED, "bias_per_layer": True, "relative_buckets": 8},
    {**TINY, **RELU, "num_heads": 1, "head_dim": 7, "vocab_size": 99},
  ],
)
def test_config_is_read_off_the_shapes(fields):
  config = t5.T5Config(**fields)
  assert config_from_shapes.config_of(shapes_of(config), {})[0] == config


@pytest.mark.parametrize(
  "name", ["T5_1_0_11B", "T5_1_1_XXL", "MT5_SMALL", "UMT5_SMALL", "BYT5_SMALL"]
)
def test_of_a_public_model_nothing_is_lost(name):
  config = t5.T5Config.from_size(sizes.named(name))
  inferred, assumed = config_from_shapes.config_of(shapes_of(config), {})
  assert inferred == config
  assert config_from_shapes.not_kept(config) == {}
  real = f"vocabulary_size: {config.vocabulary_size} real ids in"
  assert any(text.startswith(real) for text in assumed)


def test_assumptions_are_said_and_what_is_given_is_not_assumed():
  _, assumed = config_from_shapes.config_of(TINY_SHAPES, {})
  assert assumed[0].startswith("mlp_activations: gelu and linear")
  assert assumed[1:] == (
    "vocabulary_size: each of the 128 rows is a real id",
    "relative_max_distance: 128, as T5 has it",
    "layer_norm_epsilon: 1e-06, as T5 has it",
  )
  relu = t5.T5Config(**TINY, **RELU)
  _, assumed = config_from_shapes.config_of(shapes_of(relu), {})
  assert assumed[0].startswith("mlp_activations: relu")
  given = {
    "mlp_activations": ("silu", "linear"),
    "vocabulary_size": 100,
    "relative_max_distance": 64,
    "layer_norm_epsilon": 1e-5,
    "dtype": "bfloat16",
    "emb_dim": 32,
  }
  config, assumed = config_from_shapes.config_of(TINY_SHAPES, given)
  assert assumed == ()
  assert config == t5.T5Config(**{**TINY, **given})


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"emb_dim": 64}, "emb_dim=64 was given, but .* say 32"),
    ({"num_heads": 6}, "num_heads=6 was given, but .* say 3"),
    ({"logits_via_embedding": True}, "=True was given, but .* say False"),
    ({"mlp_activations": ("relu",)}, r"the MLP has 2 input kernel"),
    ({"vocabulary_size": 129}, "size is 129; expected at most vocab_size=128"),
    ({"num_layers": 2}, "unknown T5Config field.* num_layers"),
  ],
)
def test_given_field_that_contradicts_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    config_from_shapes.config_of(TINY_SHAPES, given)


def _without(part):
  return {name: s for name, s in TINY_SHAPES.items() if part not in name}


def _with(name, shape):
  return {**TINY_SHAPES, name: shape}


@pytest.mark.parametrize(
  ("shapes", "message"),
  [
    (_without("encoder/"), "no layer of the encoder"),
    (_without("decoder/"), "no layer of the decoder"),
    (_without("relpos_bias"), "no relative bias"),
    (_without("token_embedder"), "no embedding"),
    (_without("mlp/wi"), "no MLP"),
    ({"params/conv": (3, 3)}, "no embedding .* 1 parameters"),
    ({}, "no embedding .*none at all"),
    (_without("decoder/layers_"), "no layer of the decoder"),
    (_with("token_embedder/embedding", (128,)), r"has the shape \(128,\)"),
    (
      _with("decoder/relpos_bias/rel_embedding", (5, 32)),
      "48 columns, which 5 heads",
    ),
    (
      _with("encoder/layers_0/mlp/wi_2/kernel", (32, 48)),
      "the MLP has 3 input kernel",
    ),
  ],
)
def test_other_models_are_refused(shapes, message):
  with pytest.raises(UserError, match=message):
    config_from_shapes.config_of(shapes, {})


def test_a_missing_layer_is_left_for_the_caller_to_list():
  config, _ = config_from_shapes.config_of(_without("decoder/layers_2/"), {})
  assert config.num_decoder_layers == 4


@pytest.mark.parametrize(
  "fields",
  [
    GATED,
    {"mlp_activations": ("silu", "linear"), "dropout_rate": 0.0},
    {**RELU, "relative_max_distance": 64, "layer_norm_epsilon": 1e-5},
    {**GATED, "vocab_size": 32128},
    {**GATED, "vocabulary_size": 100, "bias_per_layer": True},
  ],
)
def test_what_is_not_kept_brings_the_config_back(fields):
  config = t5.T5Config(**{**TINY, **fields})
  lost = config_from_shapes.not_kept(config)
  inferred, assumed = config_from_shapes.config_of(shapes_of(config), lost)
  assert inferred == config
  assert not lost.keys() & {text.partition(":")[0] for text in assumed}
  for name in lost:
    fewer = {field: lost[field] for field in lost if field != name}
    other, _ = config_from_shapes.config_of(shapes_of(config), fewer)
    assert getattr(other, name) != getattr(config, name)
