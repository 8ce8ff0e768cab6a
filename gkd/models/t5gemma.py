"""T5Gemma: an encoder and a decoder of Gemma 2's layers.

The decoder also attends to the encoder's output, without positions; the encoder
sees the whole prompt, in its local layers what is near on both sides. Each of
the two has sizes and a table of token vectors of its own. Not here: packed
batches, T5Gemma 2 (one attention for both sides, pictures).

  side = Side(emb_dim=2304, num_layers=26, num_heads=8, num_kv_heads=4, …)
  config = T5GemmaConfig(vocab_size=256000, encoder=side, decoder=side)
  model = t5gemma(config)

Paper: Zhang et al. 2025 (arXiv:2504.06225), Gemma team 2024 (arXiv:2408.00118);
code: transformers' T5Gemma.
"""

import dataclasses
import functools

from gkd.errors import check_number
from gkd.models import config_fields
from gkd.models import flax_model
from gkd.models import t5gemma_network
from gkd.models import t5gemma_params
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import LanguageModel

STACKS = ("encoder", "decoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
  """Sizes of the encoder or of the decoder, as those of `DecoderConfig`.

  Attributes:
    query_scale: queries are multiplied by it; head_dim ** -0.5 when None.
    sliding_window: as of `Gemma`; in the encoder so many on both sides beside
      the query itself, as transformers 5 has it (4 has one less).
    global_every: as of `Gemma`, and attention_cap.
  """

  emb_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  query_scale: float | None = None
  sliding_window: int = 4096
  global_every: int = 2
  attention_cap: float | None = 50.0
  rope_theta: float = 10000.0
  norm_epsilon: float = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5GemmaConfig:
  """Sizes and options of a T5Gemma; names as in `t5.T5Config`.

  Attributes:
    vocab_size: rows of both tables of token vectors, padded ones included.
    encoder: sizes of the encoder.
    decoder: sizes of the decoder.
    logits_via_embedding: True ties the head to the decoder's embedding.
    logit_cap: soft cap of the logits; None for none.
  """

  vocab_size: int
  vocabulary_size: int | None = None
  encoder: Side
  decoder: Side
  mlp_activations: tuple[str, ...] = ("gelu", "linear")
  logits_via_embedding: bool = True
  logit_cap: float | None = 30.0
  dropout_rate: float = 0.0
  dtype: str = "float32"
  pad_id: int = 0
  eos_ids: tuple[int, ...] = (1,)
  start_id: int = 2

  def __post_init__(self):
    config_fields.normalize(self)
    config_fields.check(self, ("vocab_size", "vocabulary_size"))
    for name in STACKS:
      self.stack(name)  # which is checked
    if (cap := self.logit_cap) is not None:
      check_number("logit_cap", cap, lambda x: x > 0, "a positive number")

  def stack(self, name: str) -> DecoderConfig:
    """What the layers of the encoder or of the decoder are made of."""
    side, is_encoder = getattr(self, name), name == "encoder"
    sizes = dataclasses.asdict(side)
    scale = sizes.pop("query_scale")
    gemma = Gemma(
      post_norms=True,
      embedding_scale=side.emb_dim**0.5,
      norm_offset=1.0,
      query_scale=side.head_dim**-0.5 if scale is None else scale,
      sliding_window=sizes.pop("sliding_window") + is_encoder,
      global_every=sizes.pop("global_every"),
      local_rope_theta=side.rope_theta,
      attention_cap=sizes.pop("attention_cap"),
    )
    shared = (
      *("vocab_size", "vocabulary_size", "mlp_activations", "dropout_rate"),
      *("dtype", "pad_id", "eos_ids", "start_id"),
    )
    return DecoderConfig(
      **{name: getattr(self, name) for name in shared},
      **sizes,
      logits_via_embedding=self.logits_via_embedding or is_encoder,
      gemma=gemma,
    )


@functools.cache
def t5gemma(
  config: T5GemmaConfig, execution: Execution = PLAIN
) -> LanguageModel:
  """The model of a config; the identical record for equal arguments."""
  return flax_model.language_model(
    t5gemma_network.EncoderDecoder(config, execution),
    t5gemma_params.table(config),
    start_id=config.start_id,
    pad_id=config.pad_id,
  )
