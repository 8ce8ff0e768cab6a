"""The table of a decoder-only model's parameters, see `parameter_table`.

  for name, parameter in table(config).items():
    print(name, parameter.shape, parameter.hf_name, parameter.gguf_name)

Hugging Face's names are those of Llama, Qwen and Gemma, which differ in the
norms alone. GGUF's are llama.cpp's; of the architecture `llama` it keeps the
rows of queries and keys in another order, which is the reader's business.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from gkd.models.parameter_table import Parameter
from gkd.types import UserError

EMBEDDING = "token_embedder/embedding"
HEAD = "decoder/logits_dense/kernel"
HF_HEAD = "lm_head.weight"

# Norms of a layer: Hugging Face's name, and that in a GGUF.
_NORMS = {
  "pre_self_attention_norm": ("input_layernorm", "attn_norm"),
  "pre_mlp_norm": ("post_attention_layernorm", "ffn_norm"),
}
_NORMS_AROUND = {  # Gemma's
  "pre_self_attention_norm": ("input_layernorm", "attn_norm"),
  "post_self_attention_norm": (
    "post_attention_layernorm",
    "post_attention_norm",
  ),
  "pre_mlp_norm": ("pre_feedforward_layernorm", "ffn_norm"),
  "post_mlp_norm": ("post_feedforward_layernorm", "post_ffw_norm"),
}
_MLP = {
  "wi_0": ("gate_proj", "ffn_gate"),
  "wi_1": ("up_proj", "ffn_up"),
  "wo": ("down_proj", "ffn_down"),
}


def table(config: Any) -> dict[str, Parameter]:
  """{name: parameter} of a `decoder_only.DecoderConfig`, sorted."""
  rows = dict(_outside(config))
  inside = dict(layer(config))
  for i in range(config.num_layers):
    for name, row in inside.items():
      rows[f"decoder/layers_{i}/{name}"] = row._replace(
        hf_name=f"model.layers.{i}.{row.hf_name}",
        gguf_name=f"blk.{i}.{row.gguf_name}",
      )
  return dict(sorted(rows.items()))


def depths(config: Any) -> dict[str, int]:
  """{stack: number of layers}."""
  return {"decoder": config.num_layers}


def with_layers(config: Any, kept: Mapping[str, Sequence[int]]) -> Any:
  """The config of the model with some layers.

  Raises:
    UserError: a local layer of Gemma would become a global one, or conversely.
  """
  check_places(config.gemma, kept["decoder"])
  return dataclasses.replace(config, num_layers=len(kept["decoder"]))


def check_places(gemma: Any, layers: Sequence[int]) -> None:
  """Raises a UserError unless local layers stay local and global ones global.

  Args:
    gemma: a `decoder_only.Gemma`, or None.
    layers: that are kept.
  """
  for new, old in enumerate(layers):
    if gemma and gemma.is_local(new) != gemma.is_local(old):
      raise UserError(
        f"layer {old} would become layer {new} of the student, but every"
        f" {gemma.global_every}th is global and all others are local; keep or"
        f" leave out {gemma.global_every} layers at a time, such as"
        f" range(0,{gemma.global_every})"
      )


def layer(config: Any) -> Iterator[tuple[str, Parameter]]:
  """Those of a layer, with the names that other formats have inside it."""
  width, head_dim = config.emb_dim, config.head_dim
  joined = config.num_heads * head_dim
  grouped = config.num_kv_heads * head_dim
  sizes = {"query": joined, "key": grouped, "value": grouped}
  for name, size in sizes.items():
    others = f"self_attn.{name[0]}_proj", f"attn_{name[0]}"
    yield (
      f"self_attention/{name}/kernel",
      _kernel((width, size), ("embed", "joined_kv"), *others),
    )
    if config.qkv_bias:
      bias = _vector(size, "joined_kv", *others, "bias")
      yield f"self_attention/{name}/bias", bias
    if config.qk_norm and name != "value":
      others = f"self_attn.{name[0]}_norm", f"attn_{name[0]}_norm"
      norm = _vector(head_dim, "kv", *others)
      yield f"self_attention/{name}_norm/scale", norm
  yield (
    "self_attention/out/kernel",
    _kernel(
      *((joined, width), ("joined_kv", "embed")),
      *("self_attn.o_proj", "attn_output"),
    ),
  )
  for name, (hf_name, gguf_name) in _MLP.items():
    shape, axes = (width, config.mlp_dim), ("embed", "mlp")
    order = -1 if name == "wo" else 1
    yield (
      f"mlp/{name}/kernel",
      _kernel(shape[::order], axes[::order], f"mlp.{hf_name}", gguf_name),
    )
  has_norms_around = config.gemma is not None and config.gemma.post_norms
  norms = _NORMS_AROUND if has_norms_around else _NORMS
  for name, others in norms.items():
    yield f"{name}/scale", _vector(width, "embed", *others)


def _outside(config: Any) -> Iterator[tuple[str, Parameter]]:
  """The parameters outside the layers."""
  shape, axes = (config.vocab_size, config.emb_dim), ("vocab", "embed")
  yield (
    EMBEDDING,
    Parameter(
      shape, axes, "model.embed_tokens.weight", False, "token_embd.weight"
    ),
  )
  yield (
    "decoder/decoder_norm/scale",
    _vector(config.emb_dim, "embed", "model.norm", "output_norm"),
  )
  if not config.logits_via_embedding:
    yield HEAD, _kernel(shape[::-1], axes[::-1], "lm_head", "output")


def _kernel(shape, axes, hf_name: str, gguf_name: str) -> Parameter:
  """PyTorch's linear layers keep (out, in)."""
  return Parameter(
    shape, axes, f"{hf_name}.weight", True, f"{gguf_name}.weight"
  )


def _vector(size, axis, hf_name: str, gguf_name: str, kind="weight"):
  return Parameter(
    (size,), (axis,), f"{hf_name}.{kind}", False, f"{gguf_name}.{kind}"
  )
