"""A `LanguageModel` of a flax module, the same for all families that have one.

lm = flax_model.language_model(module, table(config), start_id=0, pad_id=0)
"""

from collections.abc import Mapping

from flax import linen as nn
import jax.numpy as jnp

from gkd import trees
from gkd.models.parameter_table import Parameter
from gkd.types import Array
from gkd.types import LanguageModel
from gkd.types import Pair


def language_model(
  module: nn.Module,
  table: Mapping[str, Parameter],
  *,
  start_id: int,
  pad_id: int | None,
) -> LanguageModel:
  """The record of a module's functions, each of which takes the parameters.

  Args:
    module: has a `config`, `hidden(inputs, targets, input_mask, segments,
      deterministic)`, `head(hidden)`, `prefill(inputs, input_mask, max_length)`
      and `decode(cache, tokens)`, see `LanguageModel`; the first two use all
      parameters.
    table: its parameters.
    start_id: the decoder's first input.
    pad_id: where no mask is given, all other ids are real; None for all ids.
  """
  axes = {name: row.axes for name, row in table.items()}

  def call(method, params, *arrays, **options):
    return module.apply({"params": params}, *arrays, method=method, **options)

  def init(key):
    tokens = jnp.zeros((1, 1), jnp.int32)
    return module.init(key, tokens, method=_everything)["params"]

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
    del positions  # Relative ones, which packing does not change.
    mask = _mask(inputs, input_mask, pad_id)
    is_plain = dropout_key is None
    rngs = None if is_plain else {"dropout": dropout_key}
    return call(
      "hidden", params, inputs, targets, mask, segments, is_plain, rngs=rngs
    )

  def prefill(params, inputs, max_length, *, input_mask=None):
    mask = _mask(inputs, input_mask, pad_id)
    return call("prefill", params, inputs, mask, max_length)

  return LanguageModel(
    config=module.config,
    vocabulary_size=module.config.vocabulary_size,
    start_id=start_id,
    init=init,
    hidden=hidden,
    head=lambda params, hidden: call("head", params, hidden),
    prefill=prefill,
    decode=lambda params, cache, tokens: call("decode", params, cache, tokens),
    axes=lambda params: trees.unflatten(axes),
  )


def _everything(module: nn.Module, tokens: Array) -> Array:
  """Uses all parameters."""
  mask = jnp.ones(tokens.shape, bool)
  return module.head(module.hidden(tokens, tokens, mask, None, True))


def _mask(inputs: Array, input_mask: Array | None, pad_id: int | None) -> Array:
  """The given mask [B, I], else every id but the padding."""
  if input_mask is not None:
    return jnp.asarray(input_mask, bool)
  return jnp.ones(inputs.shape, bool) if pad_id is None else inputs != pad_id
