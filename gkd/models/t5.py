"""T5 1.0 and 1.1 encoder–decoder models as T5X computes them.

Names and shapes of parameters are T5X's, so its checkpoints load unchanged. Not
here: reading checkpoints (`checkpoints/`), masking of padded vocabulary rows
(`masks.py`), sampling (`sampling/`).

  model = encoder_decoder(T5Config(vocab_size=32128, emb_dim=512, …))
  params = model.init(jax.random.key(0))
  logits = model.logits(params, inputs, targets)

Paper: Raffel et al. 2020 (arXiv:1910.10683); code: `t5x/examples/t5`.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

from gkd.models import config_fields
from gkd.models import flax_model
from gkd.models import sizes
from gkd.models import t5_network
from gkd.models import t5_params
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.types import LanguageModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class T5Config:
  """Sizes and options of a T5 model; the names are T5X's.

  Attributes:
    vocab_size: rows of the embedding table (padded, e.g. 32128).
    emb_dim: width of the model.
    num_heads: attention heads.
    num_encoder_layers: layers of the encoder.
    num_decoder_layers: layers of the decoder.
    head_dim: size of a head; heads·size need not equal the width.
    mlp_dim: width inside the MLP.
    mlp_activations: ("relu",) for 1.0, ("gelu", "linear") for 1.1.
    dropout_rate: used only when a dropout key is given.
    logits_via_embedding: True ties the head to the embedding (1.0).
    dtype: "float32" or "bfloat16" of the computation; parameters, norms,
      softmax and logits are float32 in both.
    vocabulary_size: number of real ids; vocab_size when None.
    relative_buckets: number of relative position buckets.
    relative_max_distance: distances from here up share a bucket.
    layer_norm_epsilon: added to the mean square.
    bias_per_layer: True gives each layer its own relative bias (umT5).
    pad_id: id of the padding token. Keys of the decoder's self-attention whose
      target is this id are masked, and inputs where no mask is given.
    eos_ids: ids that end a sequence; the first one is appended to targets.
    start_id: the decoder's first input.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  num_encoder_layers: int
  num_decoder_layers: int
  head_dim: int
  mlp_dim: int
  mlp_activations: tuple[str, ...] = ("relu",)
  dropout_rate: float = 0.1
  logits_via_embedding: bool = False
  dtype: str = "float32"
  vocabulary_size: int | None = None
  relative_buckets: int = 32
  relative_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6
  bias_per_layer: bool = False
  pad_id: int = 0
  eos_ids: tuple[int, ...] = (1,)
  start_id: int = 0

  @classmethod
  def from_size(cls, size: str | Mapping[str, Any], **overrides) -> "T5Config":
    """Config from a name of `sizes.NAMES` or a mapping of field names."""
    fields_of_size = sizes.named(size) if isinstance(size, str) else size
    values = {**fields_of_size, **overrides}
    return config_fields.from_fields(cls, values)

  def __post_init__(self):
    config_fields.normalize(self)
    config_fields.check(self, _POSITIVE, "layer_norm_epsilon")
    _check_buckets(self)


@functools.cache
def encoder_decoder(
  config: T5Config, execution: Execution = PLAIN
) -> LanguageModel:
  """The model of a config; the identical record for equal arguments."""
  return flax_model.language_model(
    t5_network.EncoderDecoder(config, execution),
    t5_params.table(config),
    start_id=config.start_id,
    pad_id=config.pad_id,
  )


_POSITIVE = (
  *("vocab_size", "vocabulary_size", "emb_dim", "num_heads", "head_dim"),
  *("num_encoder_layers", "num_decoder_layers", "mlp_dim"),
  *("relative_buckets", "relative_max_distance"),
)


def _check_buckets(config: T5Config) -> None:
  """Refuses buckets that do not tell any distances apart."""
  buckets = config.relative_buckets
  if buckets < 4 or buckets % 2:
    raise config_fields.error(
      config, "relative_buckets", "an even number of at least 4, half for back"
    )
  if config.relative_max_distance <= buckets // 2:
    raise config_fields.error(
      config,
      "relative_max_distance",
      f"more than {buckets // 2}, the distances that {buckets} buckets tell"
      " apart one by one",
    )
