"""The table of a T5Gemma's parameters, see `parameter_table`.

Those of a layer are a Gemma's, under other names in transformers, and in the
decoder those of the attention to the encoder's output.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from gkd.models import decoder_params
from gkd.models import parameter_table
from gkd.models import sizes
from gkd.models.parameter_table import Parameter

HF_HEAD = "lm_head.out_proj.weight"
HF_EMBEDDING = "model.decoder.embed_tokens.weight"
# Norms of a layer: transformers' name of them.
_NORMS = {
  "pre_self_attention_norm": "pre_self_attn_layernorm",
  "post_self_attention_norm": "post_self_attn_layernorm",
  "pre_cross_attention_norm": "pre_cross_attn_layernorm",
  "post_cross_attention_norm": "post_cross_attn_layernorm",
  "pre_mlp_norm": "pre_feedforward_layernorm",
  "post_mlp_norm": "post_feedforward_layernorm",
}


def table(config: Any) -> dict[str, Parameter]:
  """{name: parameter} of a `t5gemma.T5GemmaConfig`, sorted."""
  rows = {}
  for stack in depths(config):
    side, theirs = getattr(config, stack), f"model.{stack}"
    shape = (config.vocab_size, side.emb_dim)
    rows[f"{stack}_embedder/embedding"] = Parameter(
      shape, ("vocab", "embed"), f"{theirs}.embed_tokens.weight", False
    )
    rows[f"{stack}/{stack}_norm/scale"] = _norm(side.emb_dim, f"{theirs}.norm")
    for name, row in _layer(config, stack):
      for i in range(side.num_layers):
        rows[f"{stack}/layers_{i}/{name}"] = row._replace(
          hf_name=f"{theirs}.layers.{i}.{row.hf_name}"
        )
  if not config.logits_via_embedding:
    rows[decoder_params.HEAD] = Parameter(
      shape[::-1], ("embed", "vocab"), HF_HEAD, True
    )
  return dict(sorted(rows.items()))


def depths(config: Any) -> dict[str, int]:
  """{stack: number of layers}."""
  return {
    "encoder": config.encoder.num_layers,
    "decoder": config.decoder.num_layers,
  }


def with_layers(config: Any, kept: Mapping[str, Sequence[int]]) -> Any:
  """The config of the model with some layers of each stack.

  Raises:
    UserError: a local layer would become a global one, or conversely.
  """
  sides = {}
  for stack, layers in kept.items():
    decoder_params.check_places(config.stack(stack).gemma, layers)
    sides[stack] = dataclasses.replace(
      getattr(config, stack), num_layers=len(layers)
    )
  return dataclasses.replace(config, **sides)


def describe(config: Any) -> str:
  """Sizes and number of parameters of a `T5GemmaConfig`."""
  count = parameter_table.num_parameters(table(config))
  sides = (
    f"{side.num_layers} layers of width {side.emb_dim}, {side.num_heads} heads"
    f" of {side.head_dim} and {side.num_kv_heads} of keys, MLP {side.mlp_dim}"
    for side in (config.encoder, config.decoder)
  )
  return (
    f"T5Gemma of {' + '.join(sides)} ({sizes.short_number(count)} parameters)"
  )


def _layer(config: Any, stack: str) -> Iterator[tuple[str, Parameter]]:
  """Those of a layer, with transformers' names inside it."""
  width = getattr(config, stack).emb_dim
  for name, row in decoder_params.layer(config.stack(stack)):
    row = row._replace(gguf_name="")
    part, _, rest = name.partition("/")
    if part in _NORMS:
      continue
    yield name, row
    if part == "self_attention" and stack == "decoder":
      theirs = row.hf_name.replace("self_attn", "cross_attn")
      shape = row.shape
      if rest in ("key/kernel", "value/kernel"):
        shape = (config.encoder.emb_dim, row.shape[1])
      cross = row._replace(hf_name=theirs, shape=shape)
      yield f"encoder_decoder_attention/{rest}", cross
  for name, theirs in _NORMS.items():
    if stack == "decoder" or "cross" not in name:
      yield f"{name}/scale", _norm(width, theirs)


def _norm(width: int, hf_name: str) -> Parameter:
  return Parameter((width,), ("embed",), f"{hf_name}.weight", False)
