"""Decoder-only models: Llama, SmolLM2, Mistral, Qwen2.5, Qwen3 and Gemma 3.

One stream holds the prompt and the targets, which are shifted inside: the state
of target t has seen the prompt and the targets before t, so that target 0 is
predicted at the prompt's last token. What is real says the mask of the prompts,
never an id. Not here: mixtures of experts, latent and linear attention, layers
without positions (SmolLM3).

  model = decoder_only(DecoderConfig(vocab_size=49152, emb_dim=576, …))
  params = model.init(jax.random.key(0))
  logits = model.logits(params, inputs, targets, input_mask=mask)

Papers: Touvron et al. 2023 (arXiv:2302.13971), Grattafiori et al. 2024
(arXiv:2407.21783), Yang et al. 2025 (arXiv:2505.09388), Gemma team 2025
(arXiv:2503.19786); code: transformers' models of these names.
"""

import dataclasses
import functools
from typing import Literal

from gkd.errors import check_number
from gkd.models import config_fields
from gkd.models import decoder_network
from gkd.models import decoder_params
from gkd.models import decoder_stack
from gkd.models import flax_model
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import LanguageModel

_SIZES = (
  *("vocab_size", "vocabulary_size", "emb_dim", "num_layers", "num_heads"),
  *("num_kv_heads", "head_dim", "mlp_dim"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
  """How rotations are slowed down for longer texts than first trained on.

  Attributes:
    kind: "linear" divides all frequencies by `factor`; "llama3" only those
      whose wavelength is above original_length / low_frequency_factor, none
      below original_length / high_frequency_factor, and blends between.
    factor: what frequencies are divided by.
    low_frequency_factor: of llama3, as the next two.
    high_frequency_factor: above low_frequency_factor.
    original_length: tokens that the model was first trained on.
  """

  kind: Literal["linear", "llama3"]
  factor: float
  low_frequency_factor: float | None = None
  high_frequency_factor: float | None = None
  original_length: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gemma:
  """What Gemma 2 and 3 add.

  Attributes:
    post_norms: norms also after attention and MLP.
    embedding_scale: token vectors are multiplied by it, √emb_dim of Gemma,
      rounded to the compute dtype before.
    norm_offset: added to all scales of norms: 1.0 where w is stored (Hugging
      Face), 0.0 where 1 + w is (GGUF). Neither can be had from the other to the
      bit, so that what was read is kept.
    query_scale: queries are multiplied by it; head_dim ** -0.5 of all others.
    sliding_window: keys that a query of a local layer sees, itself included.
    global_every: layer i is global where i + 1 is a multiple of it; all others
      are local.
    local_rope_theta: theta of local layers, whose rotations are not scaled.
    attention_cap: soft cap of the scores of attention; None for none.
  """

  post_norms: bool
  embedding_scale: float
  norm_offset: float
  query_scale: float
  sliding_window: int
  global_every: int
  local_rope_theta: float
  attention_cap: float | None = None

  def is_local(self, layer: int) -> bool:
    return (layer + 1) % self.global_every > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
  """Sizes and options of a decoder-only model; names as in `t5.T5Config`.

  Attributes:
    vocab_size: rows of the embedding table, padded ones included.
    vocabulary_size: number of real ids; vocab_size when None.
    emb_dim: width of the model.
    num_layers: layers.
    num_heads: heads of queries.
    num_kv_heads: heads of keys and values, each for num_heads / num_kv_heads
      heads of queries.
    head_dim: size of a head, even; heads·size need not equal the width.
    mlp_dim: width inside the MLP.
    mlp_activations: of the gate, of the other branch.
    rope_theta: base of the wavelengths of rotary positions.
    rope_scaling: None for none.
    norm_epsilon: added to the mean square.
    logits_via_embedding: True ties the head to the embedding.
    qkv_bias: whether queries, keys and values have a bias (Qwen2.5).
    qk_norm: whether queries and keys are normalised by head (Qwen3, Gemma 3).
    sliding_window: keys that a query sees, itself included, in all layers
      (Mistral 7B v0.1); None for all keys. Gemma has its own.
    gemma: what Gemma adds; None for all others.
    dropout_rate: of token vectors, branches and inside the MLP, used only when
      a dropout key is given; none is on attention weights.
    dtype: "float32" or "bfloat16" of the computation; parameters, norms,
      rotations, softmax and logits are float32 in both.
    pad_id: id of the padding token; no mask depends on it.
    eos_ids: ids that end a text.
    start_id: what a text without a prompt begins with; None for models that
      have no token for it: the first of eos_ids.
  """

  vocab_size: int
  vocabulary_size: int | None = None
  emb_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  mlp_activations: tuple[str, ...] = ("silu", "linear")
  rope_theta: float = 10000.0
  rope_scaling: RopeScaling | None = None
  norm_epsilon: float = 1e-6
  logits_via_embedding: bool = False
  qkv_bias: bool = False
  qk_norm: bool = False
  sliding_window: int | None = None
  gemma: Gemma | None = None
  dropout_rate: float = 0.0
  dtype: str = "float32"
  pad_id: int = 0
  eos_ids: tuple[int, ...] = (1,)
  start_id: int | None = None

  def __post_init__(self):
    config_fields.normalize(self)
    config_fields.check(self, _SIZES, "norm_epsilon")
    _check(self)

  @property
  def first_id(self) -> int:
    """What a text without a prompt begins with."""
    return self.eos_ids[0] if self.start_id is None else self.start_id


@functools.cache
def decoder_only(
  config: DecoderConfig, execution: Execution = PLAIN
) -> LanguageModel:
  """The model of a config; the identical record for equal arguments.

  Packed batches are not supported.
  """
  return flax_model.language_model(
    decoder_network.DecoderOnly(config, decoder_stack.Stack, execution),
    decoder_params.table(config),
    start_id=config.first_id,
    pad_id=None,
  )


def _check(config: DecoderConfig) -> None:
  """Refuses heads and positions that make no model."""
  if config.num_heads % config.num_kv_heads:
    raise config_fields.error(
      config, "num_kv_heads", f"a divisor of num_heads={config.num_heads}"
    )
  window = config.sliding_window
  if window is not None and (
    config.gemma or type(window) is not int or window < 1
  ):
    raise config_fields.error(
      config, "sliding_window", "a positive integer, or None as of any Gemma"
    )
  if config.head_dim % 2:
    raise config_fields.error(config, "head_dim", "an even number")
  if len(config.mlp_activations) != 2:
    raise config_fields.error(
      config, "mlp_activations", "two, such as ('silu', 'linear')"
    )
  thetas, scaling = {"rope_theta": config.rope_theta}, config.rope_scaling
  if gemma := config.gemma:
    thetas["local_rope_theta"] = gemma.local_rope_theta
    positive = {"query_scale": gemma.query_scale}
    if gemma.attention_cap is not None:
      positive["attention_cap"] = gemma.attention_cap
    for field, value in positive.items():
      name = f"gemma.{field}"
      check_number(name, value, lambda x: x > 0, "a positive number")
    if min(gemma.sliding_window, gemma.global_every) < 1:
      raise config_fields.error(
        config, "gemma", "a sliding_window and a global_every of at least 1"
      )
  for name, theta in thetas.items():
    check_number(name, theta, lambda x: x > 1, "a number above 1, say 10000")
  if scaling is None:
    return
  factor = "rope_scaling.factor"
  check_number(factor, scaling.factor, lambda x: x > 0, "a positive number")
  low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
  is_llama3 = (
    scaling.kind == "llama3"
    and None not in (low, high, scaling.original_length)
    and 0 < low < high
    and scaling.original_length > 0
  )
  if scaling.kind != "linear" and not is_llama3:
    raise config_fields.error(
      config,
      "rope_scaling",
      "kind 'linear', or 'llama3' with all its fields, positive, and"
      " high_frequency_factor above low_frequency_factor",
    )
