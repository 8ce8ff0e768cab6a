"""Configs read off shapes: of every public size, and what cannot be read."""

import jax
import pytest

from gkd import trees
from gkd.checkpoints import config_from_shapes
from gkd.models import sizes
from gkd.models import t5
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


def shapes_of(**fields) -> dict[str, tuple[int, ...]]:
  config = t5.T5Config(**fields)
  params = jax.eval_shape(t5.encoder_decoder(config).init, jax.random.key(0))
  return {name: leaf.shape for name, leaf in trees.flatten(params).items()}


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
  config, _ = config_from_shapes.config_of(shapes_of(**fields), {})
  assert config == t5.T5Config(**fields)


def test_sizes_of_the_11_billion_model():
  fields = {
    "vocab_size": 32128,
    "emb_dim": 4096,
    "num_heads": 64,
    "num_encoder_layers": 24,
    "num_decoder_layers": 24,
    "head_dim": 64,
    "mlp_dim": 10240,
    **GATED,
  }
  config, _ = config_from_shapes.config_of(shapes_of(**fields), {})
  assert config == t5.T5Config(**fields, vocabulary_size=32100)


@pytest.mark.parametrize(
  ("rows", "real"),
  [(32128, 32100), (250112, 250100), (256384, 256300), (384, 384), (99, 99)],
)
def test_real_ids_of_the_public_tables(rows, real):
  assert sizes.known_vocabulary_size(rows) == real
  shapes = shapes_of(**{**TINY, **GATED, "vocab_size": rows})
  config, assumed = config_from_shapes.config_of(shapes, {})
  assert config.vocabulary_size == real
  assert any(str(rows) in sentence for sentence in assumed)


def test_what_is_given_is_not_assumed():
  given = {
    "mlp_activations": ("silu", "linear"),
    "vocabulary_size": 100,
    "relative_max_distance": 64,
    "layer_norm_epsilon": 1e-5,
    "dtype": "bfloat16",
    "emb_dim": 32,
    "head_dim": None,
  }
  config, assumed = config_from_shapes.config_of(
    shapes_of(**TINY, **GATED), given
  )
  assert assumed == ()
  assert config.mlp_activations == ("silu", "linear")
  assert (config.vocabulary_size, config.dtype) == (100, "bfloat16")


def test_assumptions_are_said():
  _, assumed = config_from_shapes.config_of(shapes_of(**TINY, **GATED), {})
  assert assumed[2:] == (
    "relative_max_distance: 128, as T5 has it",
    "layer_norm_epsilon: 1e-06, as T5 has it",
  )
  assert assumed[0].startswith("mlp_activations: gelu and linear")
  assert assumed[1] == "vocabulary_size: each of the 128 rows is a real id"
  _, assumed = config_from_shapes.config_of(shapes_of(**TINY, **RELU), {})
  assert assumed[0].startswith("mlp_activations: relu")


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"emb_dim": 64}, "emb_dim=64 was given, but .* say 32"),
    ({"num_heads": 6}, "num_heads=6 was given, but .* say 3"),
    ({"logits_via_embedding": True}, "=True was given, but .* say False"),
    ({"mlp_activations": ("relu",)}, r"the MLP has 2 input kernel"),
    ({"vocabulary_size": 129}, "129, but the table has vocab_size=128"),
    ({"num_layers": 2}, "unknown T5Config field.* num_layers"),
  ],
)
def test_given_field_that_contradicts_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    config_from_shapes.config_of(shapes_of(**TINY, **GATED), given)


def _without(shapes, part):
  return {name: shape for name, shape in shapes.items() if part not in name}


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda s: _without(s, "encoder/"), "no parameter below encoder/"),
    (
      lambda s: _without(s, "decoder/"),
      "model is encoder-only: no param",
    ),
    (lambda s: _without(s, "relpos_bias"), "no relative bias"),
    (lambda s: _without(s, "token_embedder"), "no embedding"),
    (lambda s: _without(s, "mlp/wi"), "no MLP"),
    (lambda s: {"params/conv": (3, 3)}, "no embedding .* 1 parameters"),
    (lambda s: {}, "no embedding .*none at all"),
    (
      lambda s: _without(s, "decoder/layers_"),
      "no layer below decoder/",
    ),
    (
      lambda s: {**s, "token_embedder/embedding": (128,)},
      r"token_embedder/embedding has the shape \(128,\)",
    ),
    (
      lambda s: {**s, "decoder/relpos_bias/rel_embedding": (5, 32)},
      "48 columns, which 5 heads",
    ),
    (
      lambda s: {**s, "encoder/layers_0/mlp/wi_2/kernel": (32, 48)},
      "the MLP has 3 input kernel",
    ),
  ],
)
def test_other_models_are_refused(change, message):
  shapes = change(shapes_of(**TINY, **GATED))
  with pytest.raises(UserError, match=message):
    config_from_shapes.config_of(shapes, {})


def test_a_missing_layer_is_left_for_the_caller_to_list():
  shapes = _without(shapes_of(**TINY, **GATED), "decoder/layers_2/")
  config, _ = config_from_shapes.config_of(shapes, {})
  assert config.num_decoder_layers == 4


@pytest.mark.parametrize(
  "fields",
  [
    GATED,
    RELU,
    {"mlp_activations": ("silu", "linear"), "dropout_rate": 0.0},
    {**RELU, "relative_max_distance": 64, "layer_norm_epsilon": 1e-5},
    {**GATED, "vocab_size": 32128},
    {**GATED, "vocab_size": 32128, "vocabulary_size": 32100},
    {**GATED, "vocabulary_size": 100, "bias_per_layer": True},
  ],
)
def test_what_is_not_kept_brings_the_config_back(fields):
  config = t5.T5Config(**{**TINY, **fields})
  lost = config_from_shapes.not_kept(config)
  found, assumed = config_from_shapes.config_of(
    shapes_of(**{**TINY, **fields}), lost
  )
  assert found == config
  for sentence in assumed:
    assert sentence.partition(":")[0] not in lost
  for name in lost:
    fewer = {field: lost[field] for field in lost if field != name}
    other, _ = config_from_shapes.config_of(
      shapes_of(**{**TINY, **fields}), fewer
    )
    assert getattr(other, name) != getattr(config, name)


def test_of_a_public_model_nothing_is_lost():
  public = {**TINY, **GATED, "vocab_size": 32128, "vocabulary_size": 32100}
  assert config_from_shapes.not_kept(t5.T5Config(**public)) == {}
  lost = config_from_shapes.not_kept(
    t5.T5Config(**{**public, "vocabulary_size": 32000})
  )
  assert lost == {"vocabulary_size": 32000}
