"""Folders of decoder-only models: read, refused, written again."""

import json

import numpy as np
import pytest

from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_decoder_config
from gkd.checkpoints.hf import safetensors_file
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.decoder_only import RopeScaling
from gkd.types import UserError
from tests.checkpoints import tiny_decoders
from tests.checkpoints import tiny_models

COMMON = {
  "vocab_size": 40,
  "emb_dim": 32,
  "num_layers": 3,
  "num_heads": 4,
  "num_kv_heads": 2,
  "head_dim": 8,
  "mlp_dim": 64,
  "pad_id": 3,
  "eos_ids": (2,),
  "start_id": 1,
}
CONFIGS = {
  "llama": {
    "norm_epsilon": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": RopeScaling(
      kind="llama3",
      factor=8.0,
      low_frequency_factor=1.0,
      high_frequency_factor=4.0,
      original_length=8192,
    ),
  },
  "mistral": {
    "norm_epsilon": 1e-5,
    "rope_scaling": RopeScaling(kind="linear", factor=2.0),
    "sliding_window": 4,
  },
  "qwen2": {
    "rope_theta": 1e6,
    "logits_via_embedding": True,
    "qkv_bias": True,
  },
  "qwen3": {"rope_theta": 1e6, "logits_via_embedding": True, "qk_norm": True},
  "gemma3_text": {
    "rope_theta": 1e6,
    "rope_scaling": RopeScaling(kind="linear", factor=8.0),
    "logits_via_embedding": True,
    "qk_norm": True,
    "mlp_activations": ("gelu", "linear"),
    "gemma": Gemma(
      post_norms=True,
      embedding_scale=32**0.5,
      norm_offset=1.0,
      query_scale=8**-0.5,
      sliding_window=4,
      global_every=2,
      local_rope_theta=10000.0,
    ),
  },
}
KINDS = tuple(CONFIGS)


@pytest.fixture
def opened(tmp_path):
  """`opened(kind, tensors=None, **changes)`: the checkpoint of a new folder."""

  def run(kind, tensors=None, **changes):
    folder = tiny_decoders.make_folder(
      tmp_path / "saved", kind, tensors, **changes
    )
    return source.open_checkpoint(folder)

  return run


@pytest.mark.parametrize("kind", KINDS)
def test_each_family_has_its_config(opened, kind):
  checkpoint = opened(kind)
  assert checkpoint.config == DecoderConfig(**COMMON, **CONFIGS[kind])
  assert checkpoint.family == "decoder_only"
  assert len(checkpoint.assumed) == 1  # that each row is a real id


def test_without_a_padding_it_is_the_end_of_a_text(opened):
  assert opened("llama", pad_token_id=-1).config.pad_id == 2


def test_a_mistral_without_a_window_sees_all_keys(opened):
  assert opened("mistral", sliding_window=None).config.sliding_window is None


def test_kernels_are_transposed_and_tables_are_not(opened):
  arrays = tiny_decoders.arrays("qwen2")
  leaves = opened("qwen2").leaves
  layer = "decoder/layers_1/self_attention"
  for ours, theirs in (
    ("key/kernel", arrays["model.layers.1.self_attn.k_proj.weight"].T),
    ("key/bias", arrays["model.layers.1.self_attn.k_proj.bias"]),
    ("out/kernel", arrays["model.layers.1.self_attn.o_proj.weight"].T),
  ):
    np.testing.assert_array_equal(leaves[f"{layer}/{ours}"].read(), theirs)
  table = leaves["token_embedder/embedding"].read()
  np.testing.assert_array_equal(table, arrays["model.embed_tokens.weight"])


@pytest.mark.parametrize("kind", KINDS)
def test_there_and_back_through_our_format_is_the_same(tmp_path, kind):
  """bfloat16 in shards for some, one float32 file for the others."""
  dtype, most = np.float32, 10**9
  if kind in ("qwen2", "gemma3_text"):
    dtype, most = tiny_models.BFLOAT16, 6000
  saved = tiny_decoders.make_folder(
    tmp_path / "saved",
    kind,
    tiny_decoders.arrays(kind, dtype=dtype),
    most,
    max_position_embeddings=77,
  )
  tiny_models.convert(saved, tmp_path / "ours", to="gkd")
  tiny_models.convert(tmp_path / "ours", tmp_path / "back", to="hf")
  tiny_models.assert_same_arrays(
    safetensors_file.open_folder(tmp_path / "back"),
    safetensors_file.open_folder(saved),
  )
  if most > 6000:
    one, other = (f / safetensors_file.FILE for f in (tmp_path / "back", saved))
    assert one.read_bytes() == other.read_bytes()
  again = source.open_checkpoint(tmp_path / "back")
  assert again.config == source.open_checkpoint(saved).config
  written = tiny_models.read_json(tmp_path / "back" / "config.json")
  assert written["torch_dtype"] == np.dtype(dtype).name
  # Unused, said by their default, or by version 5 in another word.
  unused = {"max_window_layers", "rope_scaling", "sliding_window"}
  theirs = tiny_models.read_json(saved / "config.json")
  assert {k: written[k] for k in theirs if k not in unused} == {
    k: v for k, v in theirs.items() if k not in unused
  }
  page = (tmp_path / "back/README.md").read_text()
  assert "AutoModelForCausalLM" in page
  assert "\npipeline_tag: text-generation\n" in page


@pytest.mark.parametrize(
  ("kind", "changes", "message"),
  [
    ("llama", {"model_type": "mixtral"}, "type 'mixtral'; expected one of t5"),
    ("llama", {"architectures": ["LlamaModel"]}, "of LlamaModel; expected a w"),
    ("llama", {"attention_bias": True}, "has attention_bias True, which gkd"),
    ("llama", {"mlp_bias": True}, "has mlp_bias True, which gkd does not"),
    ("llama", {"partial_rotary_factor": 0.5}, "has partial_rotary_factor 0.5"),
    ("llama", {"quantization_config": {"bits": 4}}, "has quantization_config"),
    ("llama", {"hidden_act": "gelu"}, "has the activation 'gelu'; expected o"),
    ("llama", {"rope_scaling": {"rope_type": "yarn"}}, "'yarn'}; expected one"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "with all its numbers"),
    ("llama", {"rope_scaling": 4}, "has rope_scaling 4; expected an object"),
    ("llama", {"rope_theta": "x"}, "has rope_theta 'x'; expected a number"),
    ("llama", {"vocab_size": None}, "has vocab_size None; expected a whole"),
    ("llama", {"eos_token_id": None}, "nothing says where a text ends"),
    ("llama", {"num_key_value_heads": 3}, "num_kv_heads is 3; expected a div"),
    ("llama", {"num_hidden_layers": 400}, "should have 400 layers, but holds"),
    ("llama", {"num_hidden_layers": 2}, r"left over: model\.layers\.2\."),
    ("llama", {"head_dim": 4}, r"q_proj\.weight is \(32, 32\) instead of"),
    ("mistral", {"sliding_window": 0}, "is 0; expected a positive integer"),
    ("qwen3", {"layer_types": ["sliding_attention"] * 3}, r"\['sliding_atten"),
    ("qwen2", {"use_sliding_window": True}, "has use_sliding_window True"),
    ("gemma3_text", {"final_logit_softcapping": 30.0}, "softcapping 30.0, w"),
    ("gemma3_text", {"query_pre_attn_scalar": 0}, "a number above 0"),
    ("gemma3_text", {"use_bidirectional_attention": True}, "attention True"),
    ("gemma3_text", {"layer_types": ["full_attention"] * 2}, "of the types"),
    ("gemma3_text", {"num_hidden_layers": 10**12}, "n-th of 1000000000000 to"),
    (
      "gemma3_text",
      {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
      "'yarn'}; expected one of the types default, linear, llama3",
    ),
  ],
)
def test_what_gkd_would_compute_otherwise_is_refused(
  opened, kind, changes, message
):
  with pytest.raises(UserError, match=message) as caught:
    opened(kind, **changes)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_version_5_says_the_same_rotations_in_one_dictionary(opened, kind):
  saved = tiny_decoders.config_json(kind)
  rope = {**saved["rope_scaling"], "rope_theta": saved["rope_theta"]}
  if kind == "gemma3_text":
    local = {"rope_type": "default", "rope_theta": 10000.0}
    rope = {"full_attention": rope, "sliding_attention": local}
  old = ("rope_scaling", "rope_theta", "rope_local_base_freq")
  changes = {**dict.fromkeys(old), "rope_parameters": rope}
  file = hf_decoder_config.hf_config.FILE
  settings = hf_decoder_config.settings(file, {**saved, **changes})
  theta, scaling = hf_decoder_config.hf_rope.read(
    file, settings, "full_attention"
  )
  expected = CONFIGS[kind]
  assert (theta, scaling) == (expected["rope_theta"], expected["rope_scaling"])


def test_a_head_that_is_the_embedding_is_compared(opened):
  arrays = tiny_decoders.arrays("qwen3")
  table = arrays["model.embed_tokens.weight"]
  checkpoint = opened("qwen3", {**arrays, "lm_head.weight": table})
  assert any("lm_head.weight equals" in text for text in checkpoint.assumed)
  assert "decoder/logits_dense/kernel" not in checkpoint.leaves


def test_another_head_than_the_embedding_is_refused(opened):
  arrays = tiny_decoders.arrays("qwen3")
  other = arrays["model.embed_tokens.weight"] + 1
  with pytest.raises(UserError, match=r"lm_head\.weight differs from model"):
    opened("qwen3", {**arrays, "lm_head.weight": other})


def test_ends_of_generation_config_are_ends(tmp_path):
  folder = tiny_decoders.make_folder(tmp_path / "saved", "llama")
  (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
  checkpoint = source.open_checkpoint(folder)
  assert checkpoint.config.eos_ids == (2, 7)
  back = tiny_models.save(tmp_path / "back", checkpoint, "hf")
  for name in ("config.json", "generation_config.json"):
    assert tiny_models.read_json(back / name)["eos_token_id"] == [2, 7]


@pytest.mark.parametrize("prefix", ["language_model.", "model.language_model."])
def test_of_a_gemma_with_pictures_the_text_model_is_read(tmp_path, prefix):
  """As versions 4 and 5 name its tensors; config.json is sparse on the hub."""
  plain = tiny_decoders.make_folder(tmp_path / "plain", "gemma3_text")
  text = tiny_decoders.config_json("gemma3_text")
  arrays = {}
  for name, array in tiny_decoders.arrays("gemma3_text").items():
    name = name if prefix[0] == "l" else name.removeprefix("model.")
    arrays[prefix + name] = array
  vision = "vision_tower.embeddings.weight"
  arrays["model." * (prefix[0] == "m") + vision] = np.zeros(3, np.float32)
  folder = tiny_decoders.make_folder(
    tmp_path / "pictures", "gemma3_text", arrays
  )
  about = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "eos_token_id": 2,
    "model_type": "gemma3",
    "text_config": text,
  }
  (folder / "config.json").write_text(json.dumps(about))
  opened, expected = map(source.open_checkpoint, (folder, plain))
  assert opened.config == expected.config
  tiny_models.assert_same_arrays(opened.leaves, expected.leaves)
  assert any("1 arrays that are not read" in text for text in opened.assumed)


@pytest.mark.parametrize(
  ("kind", "changes", "written"),
  [
    ("llama", {}, "llama"),
    ("llama", {"num_heads": 5, "num_kv_heads": 5}, "mistral"),  # 32 / 5
    ("llama", {"sliding_window": 4}, "mistral"),
    ("qwen2", {}, "qwen2"),
    ("qwen3", {}, "qwen3"),
    ("gemma3_text", {}, "gemma3_text"),
  ],
)
def test_a_model_of_ours_is_written_as_what_computes_it(kind, changes, written):
  config = DecoderConfig(**{**COMMON, **CONFIGS[kind], **changes})
  assert hf_decoder_config.as_json(config, "float32")["model_type"] == written


@pytest.mark.parametrize(
  ("kind", "changes", "message"),
  [
    ("qwen3", {"qkv_bias": True}, "has no qwen3 with qk_norm=True, qkv_bias=T"),
    ("qwen2", {"sliding_window": 4}, "has no qwen2 .*, sliding_window=4 and 4"),
    ("gemma3_text", {"qk_norm": False}, "has no gemma3_text with qk_norm=Fal"),
    ("llama", {"mlp_activations": ("relu", "relu")}, "decoder with the activa"),
  ],
)
def test_what_transformers_has_not_is_not_written(kind, changes, message):
  config = DecoderConfig(**{**COMMON, **CONFIGS[kind], **changes})
  with pytest.raises(UserError, match=message):
    hf_decoder_config.as_json(config, "float32")


def test_a_pickle_is_refused_with_the_class_that_opens_it(tmp_path):
  folder = tiny_decoders.make_folder(tmp_path / "saved", "llama")
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
  with pytest.raises(UserError, match="import AutoModelForCausalLM as M"):
    source.open_checkpoint(folder)


def test_t5x_has_no_decoders(opened, tmp_path):
  with pytest.raises(UserError, match="and T5X has T5 alone; convert it --to"):
    tiny_models.convert(opened("llama").path, tmp_path / "t5x", to="t5x")
