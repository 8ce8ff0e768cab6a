"""Small decoder-only models as transformers saves them, made by NumPy.

Names and shapes are written out here, not taken from gkd's own table.
"""

import json

import numpy as np

from gkd.checkpoints.hf import safetensors_file
from tests.checkpoints import tiny_models

SIZE = {
  "vocab_size": 40,
  "hidden_size": 32,
  "intermediate_size": 64,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 8,
  "bos_token_id": 1,
  "eos_token_id": 2,
  "pad_token_id": 3,
}
# What each family adds to SIZE, as its config.json has it.
KINDS = {
  "llama": {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
      "rope_type": "llama3",
      "factor": 8.0,
      "low_freq_factor": 1.0,
      "high_freq_factor": 4.0,
      "original_max_position_embeddings": 8192,
    },
    "tie_word_embeddings": False,
  },
  "mistral": {
    "architectures": ["MistralForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "linear", "factor": 2.0},
    "sliding_window": 4,
    "tie_word_embeddings": False,
  },
  "qwen2": {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 2,
  },
  "qwen3": {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_act": "silu",
    "attention_bias": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
  },
  "gemma3_text": {
    "architectures": ["Gemma3ForCausalLM"],
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 8,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "rope_theta": 1000000.0,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
  },
}
# The scaling of Llama 3 shows in prompts longer than those it was trained on.
_SHORT = {"original_max_position_embeddings": 4}
_LLAMA3 = {"rope_scaling": KINDS["llama"]["rope_scaling"] | _SHORT}
# Of golden/decoders.npz: kind, changes, and a seed of answers that vary.
GOLDEN = {
  "llama": ("llama", _LLAMA3, 12),
  "llama tied": ("llama", _LLAMA3 | {"tie_word_embeddings": True}, 24),
  "mistral": ("mistral", {}, 19),
  "qwen2": ("qwen2", {}, 4),
  "qwen3": ("qwen3", {}, 14),
  "gemma3_text": ("gemma3_text", {}, 3),
}


def config_json(kind, **changes):
  return {**SIZE, "model_type": kind, **KINDS[kind], **changes}


def arrays(kind, seed=0, dtype=np.float32):
  """{transformers' name: random array}."""
  layer = {
    "self_attn.q_proj.weight": (32, 32),
    "self_attn.k_proj.weight": (16, 32),
    "self_attn.v_proj.weight": (16, 32),
    "self_attn.o_proj.weight": (32, 32),
    "mlp.gate_proj.weight": (64, 32),
    "mlp.up_proj.weight": (64, 32),
    "mlp.down_proj.weight": (32, 64),
    "input_layernorm.weight": (32,),
    "post_attention_layernorm.weight": (32,),
  }
  if kind == "qwen2":
    layer |= {
      "self_attn.q_proj.bias": (32,),
      "self_attn.k_proj.bias": (16,),
      "self_attn.v_proj.bias": (16,),
    }
  if kind in ("qwen3", "gemma3_text"):
    layer |= {"self_attn.q_norm.weight": (8,), "self_attn.k_norm.weight": (8,)}
  if kind == "gemma3_text":
    layer |= {
      "pre_feedforward_layernorm.weight": (32,),
      "post_feedforward_layernorm.weight": (32,),
    }
  shapes = {"model.embed_tokens.weight": (40, 32), "model.norm.weight": (32,)}
  shapes |= {
    f"model.layers.{i}.{name}": shape
    for i in range(3)
    for name, shape in layer.items()
  }
  if kind in ("llama", "mistral"):
    shapes["lm_head.weight"] = (40, 32)
  random = np.random.RandomState(seed)  # whose stream never changes
  return {
    name: (random.normal(size=shape) / 4).astype(dtype)
    for name, shape in sorted(shapes.items())
  }


def make_folder(path, kind, tensors=None, shard_bytes=10**9, **changes):
  """A Hugging Face folder of random weights, or of these tensors."""
  path.mkdir()
  (path / "config.json").write_text(json.dumps(config_json(kind, **changes)))
  tensors = arrays(kind) if tensors is None else tensors
  safetensors_file.write_folder(
    path, tiny_models.as_leaves(dict(sorted(tensors.items()))), shard_bytes
  )
  return path


def make_golden(path, case):
  """The folder of a case of GOLDEN."""
  kind, changes, seed = GOLDEN[case]
  tensors = arrays(kind, seed)
  if changes.get("tie_word_embeddings"):
    del tensors["lm_head.weight"]
  return make_folder(path, kind, tensors, **changes)
