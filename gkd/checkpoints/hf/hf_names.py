"""What transformers calls the parameters of a T5.

`table(config)` holds both directions: {our name: their name and whether theirs
is the transpose}. Linear layers of PyTorch keep (out, in), T5X (in, out), and
the table of the relative bias is (buckets, heads) there, (heads, buckets) here.
"""

from collections.abc import Iterator
from typing import NamedTuple

from gkd.models.t5 import T5Config

EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"
# The embedding once more, in files that keep what the model shares.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Of old versions; no attention reads it, and transformers leaves it out too.
UNREAD = (
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
)

OUR_EMBEDDING = "token_embedder/embedding"
OUR_HEAD = "decoder/logits_dense/kernel"

# Of a layer {i}, by the stack: (our attention, our norm before it, their part).
_ATTENTIONS = {
  "encoder": [("attention", "pre_attention", "SelfAttention")],
  "decoder": [
    ("self_attention", "pre_self_attention", "SelfAttention"),
    ("encoder_decoder_attention", "pre_cross_attention", "EncDecAttention"),
  ],
}
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
_MLP = "DenseReluDense"
_BIAS = "0.SelfAttention.relative_attention_bias.weight"


class Name(NamedTuple):
  """Where a parameter of ours is in a file of theirs."""

  theirs: str
  transposed: bool


def table(config: T5Config) -> dict[str, Name]:
  """{our name: theirs} of all parameters of a config, in our order."""
  return dict(sorted(_names(config)))


def _names(config: T5Config) -> Iterator[tuple[str, Name]]:
  yield OUR_EMBEDDING, Name(EMBEDDING, False)
  if not config.logits_via_embedding:
    yield OUR_HEAD, Name(HEAD, True)
  depths = {
    "encoder": config.num_encoder_layers,
    "decoder": config.num_decoder_layers,
  }
  for stack, depth in depths.items():
    norm = Name(f"{stack}.final_layer_norm.weight", False)
    yield f"{stack}/{stack}_norm/scale", norm
    if not config.bias_per_layer:
      bias = Name(f"{stack}.block.0.layer.{_BIAS}", True)
      yield f"{stack}/relpos_bias/rel_embedding", bias
    for i in range(depth):
      yield from _layer(config, stack, i)


def _layer(config: T5Config, stack: str, i: int) -> Iterator[tuple[str, Name]]:
  ours, theirs = f"{stack}/layers_{i}", f"{stack}.block.{i}.layer"
  if config.bias_per_layer:
    bias = Name(f"{theirs}.{_BIAS}", True)
    yield f"{ours}/relpos_bias/rel_embedding", bias
  for j, (attention, norm, part) in enumerate(_ATTENTIONS[stack]):
    for one, other in _PROJECTIONS.items():
      kernel = Name(f"{theirs}.{j}.{part}.{other}.weight", True)
      yield f"{ours}/{attention}/{one}/kernel", kernel
    scale = Name(f"{theirs}.{j}.layer_norm.weight", False)
    yield f"{ours}/{norm}_layer_norm/scale", scale
  last = f"{theirs}.{len(_ATTENTIONS[stack])}"
  yield (
    f"{ours}/pre_mlp_layer_norm/scale",
    Name(f"{last}.layer_norm.weight", False),
  )
  count = len(config.mlp_activations)
  into = ["wi"] if count == 1 else [f"wi_{k}" for k in range(count)]
  for name in [*into, "wo"]:
    yield (
      f"{ours}/mlp/{name}/kernel",
      Name(f"{last}.{_MLP}.{name}.weight", True),
    )
