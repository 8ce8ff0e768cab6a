"""config.json: what it says, what is refused, what is written."""

import json

import pytest

from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_t5_config
from gkd.models.t5 import T5Config
from gkd.types import UserError
from tests.checkpoints import tiny_models

# google/flan-t5-small, as the hub has it, without its task_specific_params.
FLAN_SMALL = {
  "architectures": ["T5ForConditionalGeneration"],
  "d_ff": 1024,
  "d_kv": 64,
  "d_model": 512,
  "decoder_start_token_id": 0,
  "dropout_rate": 0.1,
  "eos_token_id": 1,
  "feed_forward_proj": "gated-gelu",
  "initializer_factor": 1.0,
  "is_encoder_decoder": True,
  "layer_norm_epsilon": 1e-06,
  "model_type": "t5",
  "n_positions": 512,
  "num_decoder_layers": 8,
  "num_heads": 6,
  "num_layers": 8,
  "output_past": True,
  "pad_token_id": 0,
  "relative_attention_max_distance": 128,
  "relative_attention_num_buckets": 32,
  "tie_word_embeddings": False,
  "transformers_version": "4.23.1",
  "use_cache": True,
  "vocab_size": 32128,
}
SMALL = T5Config.from_size("FLAN_T5_SMALL")


def load(folder):
  saved = hf_config.load(folder, hf_t5_config.CLASSES)
  return hf_t5_config.settings(folder / "config.json", saved)


@pytest.fixture
def read(tmp_path):
  """`read(saved, via_embedding, **given)` of a folder with that config.json."""

  def run(saved, via_embedding=False, **given):
    (tmp_path / "config.json").write_text(json.dumps(saved))
    return hf_t5_config.read(tmp_path, load(tmp_path), via_embedding, given)

  return run


def test_flan_t5_small(read):
  config, assumed = read(FLAN_SMALL)
  assert config == SMALL
  assert assumed == (
    "vocabulary_size: 32100, for want of a tokenizer in the folder",
  )


def test_every_number_has_its_place(read):
  numbers = {
    "vocab_size": ("vocab_size", 11),
    "d_model": ("emb_dim", 12),
    "num_heads": ("num_heads", 13),
    "num_layers": ("num_encoder_layers", 14),
    "num_decoder_layers": ("num_decoder_layers", 15),
    "d_kv": ("head_dim", 16),
    "d_ff": ("mlp_dim", 17),
    "relative_attention_num_buckets": ("relative_buckets", 18),
    "relative_attention_max_distance": ("relative_max_distance", 19),
    "dropout_rate": ("dropout_rate", 0.2),
    "layer_norm_epsilon": ("layer_norm_epsilon", 1e-5),
  }
  saved = {theirs: value for theirs, (_, value) in numbers.items()}
  config, _ = read(FLAN_SMALL | saved, vocabulary_size=10)
  activations = ("gelu", "linear")
  assert config == T5Config(
    **dict(numbers.values()), mlp_activations=activations, vocabulary_size=10
  )


def mlp(projection, function=None, gated=None, **changes):
  names = ("feed_forward_proj", "dense_act_fn", "is_gated_act")
  return changes | dict(zip(names, (projection, function, gated), strict=True))


# Of version 2: neither activation nor ties nor distances.
T5_SMALL = mlp(None) | {
  "tie_word_embeddings": None,
  "relative_attention_max_distance": None,
  "architectures": ["T5WithLMHeadModel"],
  "num_layers": 6,
  "num_decoder_layers": None,
}


@pytest.mark.parametrize(
  ("changes", "field", "expected"),
  [
    (T5_SMALL, "mlp_activations", ("relu",)),
    (T5_SMALL, "relative_max_distance", 128),
    (T5_SMALL, "num_decoder_layers", 6),
    (mlp("relu"), "mlp_activations", ("relu",)),
    (mlp("gated-gelu"), "mlp_activations", ("gelu", "linear")),
    (mlp("gated-silu"), "mlp_activations", ("silu", "linear")),
    (
      mlp("gated-gelu", "gelu_new", True),
      "mlp_activations",
      ("gelu", "linear"),
    ),
    (mlp(None, "silu", True), "mlp_activations", ("silu", "linear")),
    (mlp(None, "relu", False), "mlp_activations", ("relu",)),
    (mlp(None, "gelu_new", True), "mlp_activations", ("gelu", "linear")),
    (mlp(None, None, True), "mlp_activations", ("relu",)),
    *(
      (mlp(None, architectures=None, model_type=kind), field, expected)
      for kind, activations, per_layer in (
        ("t5", ("relu",), False),
        ("mt5", ("gelu", "linear"), False),
        ("umt5", ("gelu", "linear"), True),
      )
      for field, expected in (
        ("mlp_activations", activations),
        ("bias_per_layer", per_layer),
      )
    ),
  ],
)
def test_files_of_old_and_new_versions_and_families_are_understood(
  read, changes, field, expected
):
  assert getattr(read(FLAN_SMALL | changes)[0], field) == expected


@pytest.mark.parametrize(
  ("pad", "eos", "start"), [(1, 2, 0), (0, 2, 0), (0, [1, 5], 0), (0, 1, 2)]
)
def test_special_ids_survive_both_ways(read, pad, eos, start):
  ids = {
    "pad_token_id": pad,
    "eos_token_id": eos,
    "decoder_start_token_id": start,
  }
  config, _ = read(FLAN_SMALL | ids)
  eos_ids = tuple(eos) if isinstance(eos, list) else (eos,)
  read_ids = (config.pad_id, config.eos_ids, config.start_id)
  assert read_ids == (pad, eos_ids, start)
  assert ids.items() <= hf_t5_config.as_json(config, "float32").items()
  assert hf_t5_config.generation_json(config) == ids


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model_type": "bert"}, "of a model of type 'bert'; expected one of"),
    ({"model_type": "llama"}, r"'llama'; expected one of t5, mt5, umt5"),
    ({"model_type": "longt5"}, "of a model of type 'longt5'"),
    ({"model_type": None}, "of a model of type None"),
    ({"architectures": ["T5EncoderModel"]}, "is of T5EncoderModel; expected"),
    ({"architectures": ["T5Model"]}, "is of T5Model; expected a whole"),
    ({"is_encoder_decoder": False}, "with is_encoder_decoder false; expected"),
    ({"decoder_start_token_id": [0, 1]}, r"start_id is \[0, 1\]; expected ids"),
    ({"pad_token_id": False}, "pad_id is False; expected ids below"),
    ({"eos_token_id": []}, r"eos_ids is \(\); expected ids below"),
    ({"eos_token_id": 10**6}, r"eos_ids is \(1000000,\); expected ids below"),
    ({"quantization_config": {"bits": 4}}, "has quantization_config"),
    ({"architectures": [{}]}, r"has architectures\.0 \{\}; expected text"),
    ({"pruned_heads": {"0": [1]}}, "has pruned_heads"),
    ({"tie_encoder_decoder": True}, "which gkd does not compute"),
    ({"d_model": None}, "emb_dim is None; expected a positive integer"),
    ({"d_model": "512"}, "emb_dim is '512'; expected a positive integer"),
    ({"d_kv": True}, "head_dim is True; expected a positive integer"),
    ({"num_decoder_layers": []}, r"num_decoder_layers is \[\]; expected a p"),
    ({"d_ff": 0}, r"config\.json: .*mlp_dim"),
    ({"d_ff": 10.5}, r"config\.json: .*mlp_dim"),
    ({"dropout_rate": "0.1"}, "dropout_rate '0.1'; expected a number"),
    ({"feed_forward_proj": "gelu"}, "has the activation 'gelu'; expected one"),
    ({"feed_forward_proj": "gated-tanh"}, "has the activation 'gated-tanh'"),
    ({"feed_forward_proj": 7}, "has feed_forward_proj 7; expected text"),
    ({"model_type": ["t5"]}, r"has model_type \['t5'\]; expected text"),
    ({"architectures": 5}, "has architectures 5; expected a list"),
    ({"architectures": "T5"}, "has architectures 'T5'; expected a list"),
    ({"dense_act_fn": ["relu"]}, r"dense_act_fn \['relu'\]; expected text"),
    ({"is_gated_act": "no"}, "is_gated_act 'no'; expected true or false"),
    ({"tie_word_embeddings": "false"}, "'false'; expected true or false"),
    ({"scale_decoder_outputs": "no"}, "'no'; expected true or false"),
    ({"vocab_size": 10**20}, "vocab_size is 1000.* integer below 2147483648"),
    (
      mlp("gated-gelu", "silu", True),
      "contradicts itself: feed_forward_proj 'gated-gelu', but .* 'silu'",
    ),
    (
      mlp("gated-gelu", "gelu_new", False),
      "contradicts itself: .* is_gated_act False; correct it",
    ),
    # The exact GELU, which T5 never had: another function by 1e-3.
    (
      mlp("gated-gelu", "gelu", True),
      "contradicts itself: .* dense_act_fn 'gelu'",
    ),
    (mlp(None, "gelu", True), r"has the activation 'gated-gelu \(exact\)'"),
  ],
)
def test_what_no_t5_is(read, tmp_path, changes, message):
  with pytest.raises(UserError, match=message) as error:
    read(FLAN_SMALL | changes)
  assert str(error.value).startswith(str(tmp_path / "config.json"))
  assert "\n" not in str(error.value)


def test_a_damaged_or_missing_file_is_named(tmp_path):
  """See tests/test_files.py for all that JSON can be damaged by."""
  with pytest.raises(UserError, match=r"has no config\.json, which says what"):
    load(tmp_path)
  (tmp_path / "config.json").write_bytes(b"version https://git-lfs.github.com")
  with pytest.raises(UserError, match=r"config.json is not JSON .*; download "):
    load(tmp_path)


def test_what_is_given_replaces_options_and_agrees_with_sizes(read):
  config, assumed = read(
    FLAN_SMALL, dtype="bfloat16", dropout_rate=0.0, emb_dim=512
  )
  assert (config.dtype, config.dropout_rate) == ("bfloat16", 0.0)
  assert len(assumed) == 1
  config, assumed = read(FLAN_SMALL, vocabulary_size=32000)
  assert config.vocabulary_size == 32000
  assert assumed == ()
  with pytest.raises(UserError, match=r"emb_dim=8 was given, but .* says 512;"):
    read(FLAN_SMALL, emb_dim=8)
  message = r"mlp_activations=\('silu', 'linear'\) was given, but"
  with pytest.raises(UserError, match=message):
    read(FLAN_SMALL, mlp_activations=("silu", "linear"))


def test_what_is_written_says_the_same_to_both_versions():
  written = hf_t5_config.as_json(SMALL, "float32")
  unused = {"n_positions", "output_past", "transformers_version"}
  wanted = {n: v for n, v in FLAN_SMALL.items() if n not in unused} | {
    # Version 5 reads it, 4 the next one: no scale before the head.
    "scale_decoder_outputs": False,
    "tie_word_embeddings": False,
    "dense_act_fn": "gelu_new",
    "is_gated_act": True,
    "torch_dtype": "float32",
  }
  assert written == wanted
  assert hf_t5_config.as_json(SMALL, "bfloat16")["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize(
  ("changes", "came_as", "kind", "tied"),
  [
    ({}, None, "t5", False),
    ({}, "mt5", "mt5", False),
    ({"logits_via_embedding": True}, None, "t5", True),
    # MT5ForConditionalGeneration of version 5 never scales.
    ({"logits_via_embedding": True}, "mt5", "t5", True),
    ({"bias_per_layer": True}, None, "umt5", False),
    ({"bias_per_layer": True}, "mt5", "umt5", False),
    ({"mlp_activations": ("silu", "linear")}, "t5", "t5", False),
    ({"mlp_activations": ("relu",)}, "umt5", "t5", False),
  ],
)
def test_what_is_written_is_read_as_the_same(
  read, changes, came_as, kind, tied
):
  config = T5Config.from_size(tiny_models.SIZE, **changes)
  written = hf_t5_config.as_json(config, "float32", came_as)
  assert written["model_type"] == kind
  assert written["architectures"] == [f"{kind.upper()}ForConditionalGeneration"]
  assert written["tie_word_embeddings"] is tied
  assert read(written, tied)[0] == config
