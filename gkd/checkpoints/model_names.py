"""A config in words: "T5 1.1 small (76.96M parameters)".

The sizes are those of the published models; a size that is not among them is
told by its numbers. T5 1.1, its LM-adapted variants and Flan-T5 have the same
shapes, so that nothing on disk tells them apart.
"""

import math

from gkd.checkpoints.source import expected_shapes
from gkd.models.t5 import T5Config

# (emb_dim, num_heads, encoder layers, decoder layers, head_dim, mlp_dim)
_T5_1_1 = {
  (512, 6, 8, 8, 64, 1024): "small",
  (768, 12, 12, 12, 64, 2048): "base",
  (1024, 16, 24, 24, 64, 2816): "large",
  (2048, 32, 24, 24, 64, 5120): "xl",
  (4096, 64, 24, 24, 64, 10240): "xxl",
}
_T5_1_0 = {
  (512, 8, 6, 6, 64, 2048): "small",
  (768, 12, 12, 12, 64, 3072): "base",
  (1024, 16, 24, 24, 64, 4096): "large",
  (1024, 32, 24, 24, 128, 16384): "3B",
  (1024, 128, 24, 24, 128, 65536): "11B",
}
_BYT5 = {
  (1472, 6, 12, 4, 64, 3584): "small",
  (1536, 12, 18, 6, 64, 3968): "base",
  (1536, 16, 36, 12, 64, 3840): "large",
  (2560, 32, 36, 12, 64, 6720): "xl",
  (4672, 64, 36, 12, 64, 12352): "xxl",
}
_UL2 = {(4096, 16, 32, 32, 256, 16384): "20B"}
_GATED_GELU = ("gelu", "linear")
_GATED_SILU = ("silu", "linear")


def in_words(config: T5Config) -> str:
  """Family, size and number of parameters."""
  family, sizes = _family(config)
  size = sizes.get(
    (
      config.emb_dim,
      config.num_heads,
      config.num_encoder_layers,
      config.num_decoder_layers,
      config.head_dim,
      config.mlp_dim,
    )
  )
  if size is None:
    size = (
      f"of width {config.emb_dim}, {config.num_encoder_layers} +"
      f" {config.num_decoder_layers} layers, {config.num_heads} heads of"
      f" {config.head_dim}, MLP {config.mlp_dim}"
    )
  return f"{family} {size} ({short_number(num_parameters(config))} parameters)"


def num_parameters(config: T5Config) -> int:
  """Scalars of all parameters."""
  return sum(math.prod(shape) for shape in expected_shapes(config).values())


def short_number(count: int) -> str:
  """76961152 as "76.96M", as papers write sizes."""
  for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
    if count >= scale:
      digits = 3 if letter == "B" else 2
      return f"{count / scale:.{digits}f}{letter}"
  return str(count)


def _family(config: T5Config) -> tuple[str, dict]:
  activations = config.mlp_activations
  if config.logits_via_embedding and activations == ("relu",):
    return "T5 1.0", _T5_1_0
  if config.logits_via_embedding:
    return f"T5 with tied embeddings and {'·'.join(activations)}", {}
  if activations == _GATED_SILU:
    return "UL2-style T5 (gated SiLU)", _UL2
  if activations != _GATED_GELU:
    return f"T5 with its own head and {'·'.join(activations)}", {}
  if config.bias_per_layer:
    kind = "umT5" if config.vocab_size == 256384 else "umT5-style T5"
    return f"{kind} (a bias per layer)", _T5_1_1
  if config.vocab_size == 250112:
    return "mT5", _T5_1_1
  if config.vocab_size == 384:
    return "ByT5", _BYT5
  return "T5 1.1", _T5_1_1
