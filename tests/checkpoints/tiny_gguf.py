"""GGUF files of `tiny_decoders`, written by the gguf package."""

import gguf

from tests.checkpoints import tiny_decoders

# Parts of transformers' names: llama.cpp's.
NAMES = {
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  "lm_head": "output",
  "model.layers": "blk",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "input_layernorm": "attn_norm",
  "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = NAMES | {
  "post_attention_layernorm": "post_attention_norm",
  "pre_feedforward_layernorm": "ffn_norm",
  "post_feedforward_layernorm": "post_ffw_norm",
}
F32 = gguf.GGMLQuantizationType.F32
Q8_0 = gguf.GGMLQuantizationType.Q8_0


def permuted(array, num_heads):
  """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
  return (
    array.reshape(num_heads, 2, array.shape[0] // num_heads // 2, -1)
    .swapaxes(1, 2)
    .reshape(array.shape)
  )


def make_file(path, kind="llama", kernels=F32, tensors=None, **metadata):
  """What llama.cpp makes of `tiny_decoders`; metadata may be changed."""
  saved = tiny_decoders.config_json(kind)
  arch = kind.removesuffix("_text")
  values = {
    "block_count": 3,
    "context_length": 128,
    "embedding_length": 32,
    "feed_forward_length": 64,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "attention.key_length": 8,
    "attention.value_length": 8,
    "attention.layer_norm_rms_epsilon": saved["rms_norm_eps"],
    "rope.freq_base": saved["rope_theta"],
  }
  values = {f"{arch}.{name}": value for name, value in values.items()}
  values |= {
    "general.license": "apache-2.0",
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.padding_token_id": 3,
    **metadata,
  }
  writer = gguf.GGUFWriter(path, arch)
  for name, value in values.items():
    adder = {int: "uint32", float: "float32", str: "string", list: "array"}
    getattr(writer, f"add_{adder[type(value)]}")(name, value)
  for name, array in (tensors or tiny_decoders.arrays(kind)).items():
    for theirs, ours in (GEMMA_NAMES if arch == "gemma3" else NAMES).items():
      name = name.replace(f"{theirs}.", f"{ours}.")
    if arch == "llama" and name.endswith(("attn_q.weight", "attn_k.weight")):
      array = permuted(array, 4 if "attn_q" in name else 2)
    if arch == "gemma3" and name.endswith("norm.weight"):
      array = array + 1
    quantised = kernels if array.ndim == 2 else F32
    data = gguf.quantize(array, quantised)
    writer.add_tensor(name, data, raw_dtype=quantised)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path
