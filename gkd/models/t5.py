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

import jax.numpy as jnp

from gkd import trees
from gkd.errors import check_number
from gkd.models import layers
from gkd.models import sizes
from gkd.models import t5_network
from gkd.models import t5_params
from gkd.types import Array
from gkd.types import LanguageModel
from gkd.types import Pair
from gkd.types import Params
from gkd.types import UserError


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
    fields = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(values) - set(fields))
    if unknown:
      raise UserError(
        f"unknown T5Config field(s) {', '.join(unknown)}; expected some of "
        f"{', '.join(fields)}; correct the name"
      )
    missing = [
      field.name
      for field in dataclasses.fields(cls)
      if field.default is dataclasses.MISSING and field.name not in values
    ]
    if missing:
      raise UserError(
        f"T5Config {dict(fields_of_size)} has no {', '.join(missing)}; give all"
        " sizes, or a published one by its name, such as T5_1_1_SMALL"
      )
    return cls(**values)

  def with_overrides(
    self, overrides: Mapping[str, Any], origin: object
  ) -> "T5Config":
    """The config of a checkpoint with the user's fields.

    Args:
      overrides: {field: value}. Those of the program, dropout_rate and dtype,
        replace what was saved, others must agree with it.
      origin: what says the saved fields, for messages.

    Raises:
      UserError: a field that contradicts what was saved.
    """
    wanted = T5Config.from_size(dataclasses.asdict(self), **overrides)
    for name in overrides.keys() - {"dropout_rate", "dtype"}:
      saved, value = getattr(self, name), getattr(wanted, name)
      if saved != value:
        raise UserError(
          f"{name}={value!r} was given, but {origin} says {saved!r}; leave it"
          " out or give the right checkpoint"
        )
    return wanted

  def __post_init__(self):
    # Lists and jnp dtypes are welcome, but the record must stay hashable.
    object.__setattr__(self, "mlp_activations", _tuple(self.mlp_activations))
    object.__setattr__(self, "dtype", _dtype_name(self.dtype))
    object.__setattr__(self, "eos_ids", _tuple(self.eos_ids))
    if self.vocabulary_size is None:
      object.__setattr__(self, "vocabulary_size", self.vocab_size)
    _check(self)


@functools.cache
def encoder_decoder(config: T5Config) -> LanguageModel:
  """The model of a config; the identical record for equal configs."""
  module = t5_network.EncoderDecoder(config)

  def init(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, tokens, tokens)["params"]

  def hidden(
    params,
    inputs,
    targets,
    *,
    input_mask=None,
    segments: Pair | None = None,
    positions: Pair | None = None,
    dropout_key=None,
  ):
    del positions  # T5 sees only distances, which packing does not change.
    return module.apply(
      {"params": params},
      inputs,
      targets,
      _mask(inputs, input_mask, config.pad_id),
      segments,
      dropout_key is None,
      method="hidden",
      rngs=None if dropout_key is None else {"dropout": dropout_key},
    )

  def head(params, hidden):
    return module.apply({"params": params}, hidden, method="head")

  def prefill(params, inputs, max_length, *, input_mask=None):
    cache = module.apply(
      {"params": params},
      inputs,
      _mask(inputs, input_mask, config.pad_id),
      max_length,
      method="empty_cache",
    )
    start = jnp.full(inputs.shape[:1], config.start_id, jnp.int32)
    return decode(params, cache, start)

  def decode(params, cache, tokens):
    return module.apply({"params": params}, cache, tokens, method="decode")

  return LanguageModel(
    config=config,
    vocabulary_size=config.vocabulary_size,
    start_id=config.start_id,
    init=init,
    hidden=hidden,
    head=head,
    prefill=prefill,
    decode=decode,
    axes=logical_axes,
  )


def _mask(inputs: Array, input_mask: Array | None, pad_id: int) -> Array:
  """The given mask [B, I], else every id but the padding."""
  if input_mask is None:
    return inputs != pad_id
  return jnp.asarray(input_mask, bool)


def logical_axes(params: Params) -> dict[str, Any]:
  """T5X's logical axis names, one tuple per array, in the shape of params."""
  names = trees.flatten(params)
  return trees.unflatten({name: t5_params.axes_of(name) for name in names})


_MOST = 2**31  # of any size: what an int32 holds
_POSITIVE = (
  *("vocab_size", "vocabulary_size", "emb_dim", "num_heads", "head_dim"),
  *("num_encoder_layers", "num_decoder_layers", "mlp_dim"),
  *("relative_buckets", "relative_max_distance"),
)
_DTYPES = ("float32", "bfloat16")


def _tuple(value: Any) -> tuple:
  """("relu",) of "relu" or any sequence of names, (1,) of the id 1."""
  return tuple(value) if isinstance(value, list | tuple) else (value,)


def _dtype_name(dtype: Any) -> str:
  try:
    return jnp.dtype(dtype).name
  except (SyntaxError, TypeError, ValueError):  # numpy's, by how it is wrong
    return str(dtype)


def _check(config: T5Config) -> None:
  """Raises UserError at the first field that makes no model."""
  for name in _POSITIVE:
    value = getattr(config, name)
    if type(value) is not int or not 0 < value < _MOST:
      raise _error(config, name, f"a positive integer below {_MOST}")
  rows, buckets = config.vocab_size, config.relative_buckets
  activations = config.mlp_activations
  known = [*layers.ACTIVATIONS]
  if not activations or not all(name in known for name in activations):
    raise _error(
      config, "mlp_activations", f"one or more of {', '.join(known)}"
    )
  for name in ("pad_id", "eos_ids", "start_id"):
    value = getattr(config, name)
    ids = value if isinstance(value, tuple) else (value,)
    if not ids or not all(type(x) is int and 0 <= x < rows for x in ids):
      raise _error(config, name, f"ids below vocab_size={rows}")
  if config.dtype not in _DTYPES:
    raise _error(config, "dtype", f"one of {', '.join(_DTYPES)}")
  if type(config.logits_via_embedding) is not bool:
    raise _error(config, "logits_via_embedding", "True or False")
  check_number(
    "T5Config.dropout_rate",
    config.dropout_rate,
    lambda x: 0 <= x < 1,
    "a number from 0 up to, but not, 1",
  )
  check_number(
    "T5Config.layer_norm_epsilon",
    config.layer_norm_epsilon,
    lambda x: 0 < x < 1,
    "a number between 0 and 1, say 1e-6",
  )
  if config.vocabulary_size > rows:
    raise _error(
      config, "vocabulary_size", f"at most vocab_size={rows}; raise vocab_size"
    )
  if buckets < 4 or buckets % 2:
    raise _error(
      config, "relative_buckets", "an even number of at least 4, half for back"
    )
  if config.relative_max_distance <= buckets // 2:
    raise _error(
      config,
      "relative_max_distance",
      f"more than {buckets // 2}, the distances that {buckets} buckets tell"
      " apart one by one",
    )


def _error(config: T5Config, name: str, expected: str) -> UserError:
  return UserError(
    f"T5Config.{name} is {getattr(config, name)!r:.60}; expected {expected}"
  )
