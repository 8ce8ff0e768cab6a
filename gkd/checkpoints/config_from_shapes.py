"""The config of a T5 model from the names and shapes of its parameters.

T5X keeps no config beside its arrays. All sizes can be read off the shapes;
what cannot (which activation, how many rows are real ids) is assumed as the
public models have it, and said. `not_kept` says beforehand what would be lost.

  shapes = {"token_embedder/embedding": (32128, 512), …}
  config, assumed = config_of(shapes, {"mlp_activations": ("silu", "linear")})
"""

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from gkd.models import sizes
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import Axes
from gkd.types import UserError

Shapes = Mapping[str, tuple[int, ...]]

# Input kernels of an MLP -> activations of the public models with as many.
_ACTIVATIONS = {1: ("relu",), 2: ("gelu", "linear")}
# What T5's own code fixes; the defaults of T5Config.
_OF_T5 = {
  field.name: field.default
  for field in dataclasses.fields(T5Config)
  if field.name in ("relative_max_distance", "layer_norm_epsilon")
}

# What every T5 has, and the axes of the parameter that shows it.
_REQUIRED = {
  "embedding": ("vocab", "embed"),
  "relative bias": ("heads", "relpos_buckets"),
  "attention": ("embed", "joined_kv"),
  "MLP": ("embed", "mlp"),
}
_MLP_INPUT = re.compile(r"(?:en|de)coder/layers_\d+/mlp/(wi(?:_\d+)?)/kernel")


def config_of(
  shapes: Shapes, given: Mapping[str, Any]
) -> tuple[T5Config, tuple[str, ...]]:
  """The config of unscanned T5X names and shapes, and what was assumed.

  Whether every parameter is there with the right shape is not checked here:
  compare the shapes with those of the config's model.

  Args:
    shapes: {"encoder/layers_0/mlp/wi_0/kernel": (512, 1024), …}.
    given: fields of T5Config that shapes do not tell (mlp_activations,
      vocabulary_size, dtype, dropout_rate, …), or that they do: then both have
      to agree. None counts as not given.

  Returns:
    The config, and a sentence about each thing that was assumed.

  Raises:
    UserError: not a T5 encoder–decoder, sizes that do not fit each other, or a
      given field that contradicts the shapes.
  """
  _check_family(shapes)
  given = {name: value for name, value in given.items() if value is not None}
  read = _fields_of(shapes)
  for name, value in given.items():
    if name in read and value != read[name]:
      raise UserError(
        f"{name}={value!r} was given, but the shapes of the checkpoint say "
        f"{read[name]!r}; leave it out or give the right checkpoint"
      )
  assumed: dict[str, Any] = {}
  sentences: list[str] = []
  if "mlp_activations" not in given:
    assumed["mlp_activations"], sentence = _activations(shapes)
    sentences += sentence
  if "vocabulary_size" not in given:
    assumed["vocabulary_size"], sentence = _real_ids(read["vocab_size"])
    sentences.append(sentence)
  sentences += [
    f"{name}: {value}, as T5 has it"
    for name, value in _OF_T5.items()
    if name not in given
  ]
  config = T5Config.from_size({**read, **assumed}, **given)
  _check_activations(config, shapes)
  return config, tuple(sentences)


def not_kept(config: T5Config) -> dict[str, Any]:
  """{field: value} that `config_of` of the parameters alone would get wrong."""
  assumed = {
    "mlp_activations": _ACTIVATIONS.get(len(config.mlp_activations)),
    "vocabulary_size": sizes.known_vocabulary_size(config.vocab_size),
    "dropout_rate": T5Config.dropout_rate,
    **_OF_T5,
  }
  return {
    name: getattr(config, name)
    for name, value in assumed.items()
    if getattr(config, name) != value
  }


def _check_family(shapes: Shapes) -> None:
  stacks = {name.partition("/")[0] for name in shapes}
  for stack, other in (("encoder", "decoder"), ("decoder", "encoder")):
    if other in stacks and stack not in stacks:
      raise UserError(
        f"a{'n' * (other[0] == 'e')} {other}-only model (no parameter below"
        f" {stack}/); gkd converts T5 encoder–decoders"
      )
  for what, axes in _REQUIRED.items():
    if _first_with(axes, shapes) is None:
      some = ", ".join(sorted(shapes)[:3]) or "none at all"
      raise UserError(
        f"not a T5 encoder–decoder: no {what} under T5X's name among its "
        f"{len(shapes)} parameters ({some}, …)"
      )


def _fields_of(shapes: Shapes) -> dict[str, Any]:
  """The fields of T5Config that shapes determine."""
  found: dict[str, int] = {}
  for axes in _REQUIRED.values():
    name = _first_with(axes, shapes)
    shape = shapes[name]
    if len(shape) != len(axes) or not all(shape):
      raise UserError(
        f"{name} has the shape {tuple(shape)}; expected two dimensions, as T5X"
        " has it"
      )
    found = dict(zip(axes, shape, strict=True)) | found
  heads, joined = found["heads"], found["joined_kv"]
  if joined % heads:
    raise UserError(
      f"the query kernels have {joined} columns, which {heads} heads (the rows "
      "of the relative bias) do not divide; expected heads × head size"
    )
  return {
    "vocab_size": found["vocab"],
    "emb_dim": found["embed"],
    "num_heads": heads,
    "num_encoder_layers": _num_layers(shapes, "encoder"),
    "num_decoder_layers": _num_layers(shapes, "decoder"),
    "head_dim": joined // heads,
    "mlp_dim": found["mlp"],
    "logits_via_embedding": t5_params.HEAD not in shapes,
    "relative_buckets": found["relpos_buckets"],
    "bias_per_layer": "/layers_"
    in _first_with(_REQUIRED["relative bias"], shapes),
  }


def _first_with(axes: Axes, shapes: Shapes) -> str | None:
  """The first parameter, by name, that T5 has with these axes."""
  for name in sorted(shapes):
    try:
      if t5_params.axes_of(name) == axes:
        return name
    except UserError:
      continue  # no parameter of T5: for the caller to list
  return None


def _num_layers(shapes: Shapes, stack: str) -> int:
  """One more than the highest number: gaps are for the caller to list."""
  layers = filter(None, map(t5_params.layer_of, shapes))
  numbers = [number for of, number, _ in layers if of == stack]
  if not numbers:
    raise UserError(
      f"no layer below {stack}/; expected {stack}/layers_0/… as T5X names them"
    )
  return max(numbers) + 1


def _activations(shapes: Shapes) -> tuple[tuple[str, ...], list[str]]:
  branches = _num_branches(shapes)
  if branches == 1:
    return _ACTIVATIONS[1], ["mlp_activations: relu, as T5 1.0 (one kernel wi)"]
  if branches == 2:
    return _ACTIVATIONS[2], [
      "mlp_activations: gelu and linear, as T5 1.1, Flan-T5 and mT5 (two "
      "kernels wi_0, wi_1); UL2 has silu and linear"
    ]
  raise UserError(
    f"an MLP with {branches} input kernels; give mlp_activations, one name a "
    "kernel"
  )


def _num_branches(shapes: Shapes) -> int:
  """Input kernels of an MLP: 1 for wi, 2 for wi_0 and wi_1."""
  return len({m[1] for m in map(_MLP_INPUT.fullmatch, shapes) if m})


def _real_ids(rows: int) -> tuple[int, str]:
  real = sizes.known_vocabulary_size(rows)
  if sizes.is_public_table(rows):
    return real, f"vocabulary_size: {real} real ids in {rows} rows, as public"
  return real, f"vocabulary_size: each of the {rows} rows is a real id"


def _check_activations(config: T5Config, shapes: Shapes) -> None:
  branches = _num_branches(shapes)
  if len(config.mlp_activations) != branches:
    raise UserError(
      f"mlp_activations={config.mlp_activations!r} was given, but the MLP has "
      f"{branches} input kernel(s); give one name a kernel"
    )
