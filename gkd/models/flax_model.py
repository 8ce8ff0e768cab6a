"""A `LanguageModel` of a flax module, the same for all families that have one.

lm = flax_model.language_model(module, table(config), start_id=0, pad_id=0)
"""

from collections.abc import Mapping
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from gkd import trees
from gkd.logical_axes import constrain
from gkd.models import layer_stack
from gkd.models.parameter_table import Parameter
from gkd.types import Array
from gkd.types import Axes
from gkd.types import LanguageModel
from gkd.types import Pair
from gkd.types import Params


def language_model(
  module: nn.Module,
  table: Mapping[str, Parameter],
  *,
  start_id: int,
  pad_id: int | None,
) -> LanguageModel:
  """The record of a module's functions, each of which takes the parameters.

  Args:
    module: has `config`, `execution`, `hidden(inputs, targets, input_mask,
      segments, deterministic)`, `head(hidden)`, `decode(cache, tokens)` and
      `prefill(inputs, input_mask, max_length)`; the first two use all of it.
    table: its parameters.
    start_id: the decoder's first input.
    pad_id: where no mask is given, all other ids are real; None for all ids.
  """
  axes = {name: row.axes for name, row in table.items()}
  call = functools.partial(_call, module)

  def init(key):
    params = module.init(key, method=_everything)["params"]
    return layer_stack.stacked(params) if module.execution.scan else params

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
    rngs = {} if dropout_key is None else {"dropout": dropout_key}
    return call(
      "hidden", params, inputs, targets, mask, segments, not rngs, rngs=rngs
    )

  def prefill(params, inputs, max_length, *, input_mask=None):
    mask = _mask(inputs, input_mask, pad_id)
    return _sampling(module, "prefill", params, inputs, mask, max_length)

  return LanguageModel(
    config=module.config,
    vocabulary_size=module.config.vocabulary_size,
    start_id=start_id,
    init=init,
    shapes=functools.partial(_shapes, table, module.execution.scan),
    hidden=hidden,
    head=functools.partial(call, "head"),
    prefill=prefill,
    decode=functools.partial(_sampling, module, "decode"),
    axes=lambda params: trees.unflatten(
      layer_stack.stacked_axes(axes) if module.execution.scan else axes
    ),
    gathered=functools.partial(_gathered, axes, module.config.dtype),
  )


def _everything(module: nn.Module) -> Array:
  """Uses all parameters."""
  tokens, mask = jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1), bool)
  return module.head(module.hidden(tokens, tokens, mask, None, True))


def _shapes(table: Mapping[str, Parameter], scan: bool) -> Params:
  leaves = {
    name: jax.ShapeDtypeStruct(row.shape, jnp.float32)
    for name, row in table.items()
  }
  params = trees.unflatten(leaves)
  return jax.eval_shape(layer_stack.stacked, params) if scan else params


def _call(module, method, params, *arrays, **options):
  return module.apply({"params": params}, *arrays, method=method, **options)


def _sampling(module, method, params, *arrays):
  return _call(module, method, layer_stack.unstacked(params), *arrays)


def _gathered(axes: Mapping[str, Axes], dtype: str, params: Params) -> Params:
  def one(name, leaf):
    # `layers.Dense` casts its own; that of the vocabulary is in float32.
    is_cast = name.endswith(("kernel", "bias")) and "vocab" not in axes[name]
    if is_cast and leaf.dtype == jnp.float32:
      leaf = leaf.astype(dtype)
    return constrain(leaf, *axes[name])

  leaves = trees.flatten(params)
  # Stacks of layers are of no use to a head.
  return trees.unflatten(
    {
      n: one(n, leaf)
      for n, leaf in leaves.items()
      if layer_stack.STACK not in n
    }
  )


def _mask(inputs: Array, input_mask: Array | None, pad_id: int | None) -> Array:
  """The given mask [B, I], else every id but the padding."""
  if input_mask is not None:
    return jnp.asarray(input_mask, bool)
  return jnp.ones(inputs.shape, bool) if pad_id is None else inputs != pad_id
