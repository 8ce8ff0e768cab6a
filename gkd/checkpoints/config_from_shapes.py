"""The config of a T5 model from the names and shapes of its parameters.

T5X keeps no config beside its arrays. All sizes can be read off the shapes;
what cannot (which activation, how many rows are real ids) is assumed as the
public models have it, and said. `not_kept` says beforehand what would be lost.
"""

from collections.abc import Mapping
import re
from typing import Any

from gkd.errors import listed
from gkd.models import parameter_table
from gkd.models import sizes
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

Shapes = Mapping[str, tuple[int, ...]]

# Input kernels of an MLP -> activations of the public models with as many.
_ACTIVATIONS = {1: ("relu",), 2: ("gelu", "linear")}
# What the public models have and shapes do not tell: the defaults of T5Config.
_OF_T5 = ("relative_max_distance", "layer_norm_epsilon")
_DEFAULTS = ("dropout_rate", "pad_id", "eos_ids", "start_id")

_BIAS = r"(en|de)coder/(layers_\d+/)?relpos_bias/rel_embedding"
_QUERY = r"(en|de)coder/layers_\d+/(self_)?attention/query/kernel"
_WI = r"(en|de)coder/layers_\d+/mlp/wi(_\d+)?/kernel"


def config_of(
  shapes: Shapes, given: Mapping[str, Any]
) -> tuple[T5Config, tuple[str, ...]]:
  """The config of unscanned T5X names and shapes, and what was assumed.

  Whether every parameter is there with the right shape is not checked here, see
  `expected_leaves`.

  Args:
    shapes: {"encoder/layers_0/mlp/wi_0/kernel": (512, 1024), …}.
    given: see `source.open_checkpoint`.

  Returns:
    The config, and a sentence about each thing that was assumed.

  Raises:
    UserError: not a T5 encoder–decoder, sizes that do not fit each other, or a
      given field that contradicts the shapes.
  """
  fields = _fields_of(shapes)
  for name, value in given.items():
    if name in fields and value != fields[name]:
      raise UserError(
        f"{name}={value!r} was given, but the shapes of the checkpoint say"
        f" {fields[name]!r}; leave it out or give the right checkpoint"
      )
  rows = fields["vocab_size"]
  real_ids = sizes.known_vocabulary_size(rows)
  kernels = {m[2] for name in shapes if (m := re.fullmatch(_WI, name))}
  assumed = {
    "mlp_activations": "relu, as T5 1.0 (one kernel wi)"
    if len(kernels) == 1
    else "gelu and linear, as T5 1.1, Flan-T5 and mT5 (two kernels wi_0,"
    " wi_1); UL2 has silu and linear",
    "vocabulary_size": f"{real_ids} real ids in {rows} rows, as public"
    if sizes.is_public_table(rows)
    else f"each of the {rows} rows is a real id",
    **{name: f"{getattr(T5Config, name)}, as T5 has it" for name in _OF_T5},
  }
  fields["mlp_activations"] = _ACTIVATIONS.get(len(kernels), ("relu",))
  fields["vocabulary_size"] = real_ids
  config = T5Config.from_size(fields, **given)
  if len(config.mlp_activations) != len(kernels):
    raise UserError(
      f"the MLP has {len(kernels)} input kernel(s), but mlp_activations is"
      f" {config.mlp_activations!r}; give one name a kernel"
    )
  return config, tuple(
    f"{name}: {text}" for name, text in assumed.items() if name not in given
  )


def not_kept(config: T5Config) -> dict[str, Any]:
  """{field: value} that `config_of` of the parameters alone would get wrong."""
  assumed = {
    "mlp_activations": _ACTIVATIONS.get(len(config.mlp_activations)),
    "vocabulary_size": sizes.known_vocabulary_size(config.vocab_size),
    **{name: getattr(T5Config, name) for name in (*_OF_T5, *_DEFAULTS)},
  }
  return {
    name: getattr(config, name)
    for name, value in assumed.items()
    if getattr(config, name) != value
  }


def _fields_of(shapes: Shapes) -> dict[str, Any]:
  """The fields of T5Config that shapes determine."""
  _, (rows, width) = _first(shapes, "embedding", t5_params.EMBEDDING)
  bias, (heads, buckets) = _first(shapes, "relative bias", _BIAS)
  _, (_, joined) = _first(shapes, "attention", _QUERY)
  _, (_, mlp_dim) = _first(shapes, "MLP", _WI)
  if joined % heads:
    raise UserError(
      f"the query kernels have {joined} columns, which {heads} heads (the rows"
      " of the relative bias) do not divide; expected heads × head size"
    )
  return {
    "vocab_size": rows,
    "emb_dim": width,
    "num_heads": heads,
    "num_encoder_layers": _num_layers(shapes, "encoder"),
    "num_decoder_layers": _num_layers(shapes, "decoder"),
    "head_dim": joined // heads,
    "mlp_dim": mlp_dim,
    "logits_via_embedding": t5_params.HEAD not in shapes,
    "relative_buckets": buckets,
    "bias_per_layer": "/layers_" in bias,
  }


def _first(
  shapes: Shapes, what: str, pattern: str
) -> tuple[str, tuple[int, ...]]:
  """Name and two dimensions of the first parameter whose name matches."""
  names = filter(re.compile(pattern).fullmatch, sorted(shapes))
  if (name := next(names, None)) is None:
    raise _missing(shapes, what)
  shape = shapes[name]
  if len(shape) != 2 or not all(shape):
    raise UserError(
      f"{name} has the shape {tuple(shape)}; expected two dimensions, as T5X"
      " has it"
    )
  return name, shape


def _num_layers(shapes: Shapes, stack: str) -> int:
  """One more than the highest number: gaps are for the caller to list."""
  layers = map(parameter_table.layer_of, shapes)
  numbers = [layer[1] for layer in layers if layer and layer[0] == stack]
  if not numbers:
    raise _missing(shapes, f"layer of the {stack}")
  return max(numbers) + 1


def _missing(shapes: Shapes, what: str) -> UserError:
  names = listed(sorted(shapes)) or "none at all"
  return UserError(
    f"not a T5 encoder–decoder: no {what} under T5X's name among its"
    f" {len(shapes)} parameters ({names})"
  )
