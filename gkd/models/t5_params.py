"""The table of T5's parameters: name, shape, axes, and what others call them.

  for name, parameter in table(config).items():
    print(name, parameter.shape, parameter.axes, parameter.hf_name)

Sharding, checkpoints of all formats and Adafactor's slots read it. Nothing is
traced: that takes seconds, and hours where a damaged file says that a model has
thousands of layers.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any

from gkd.models.parameter_table import Parameter
from gkd.models.parameter_table import Shape
from gkd.models.parameter_table import layer_of
from gkd.types import Axes
from gkd.types import UserError

EMBEDDING = "token_embedder/embedding"
HEAD = "decoder/logits_dense/kernel"
HF_EMBEDDING = "shared.weight"
HF_HEAD = "lm_head.weight"
STACKS = ("encoder", "decoder")

# Adafactor's slots of a parameter in T5X: first moment, second moment, and that
# factored into row and column; and the shape of a kind that is not used.
SLOT_KINDS = ("m", "v", "v_row", "v_col")
UNUSED_SLOT = (1,)

# End of a name -> T5X's logical axes, and whether Hugging Face's array is the
# transpose (PyTorch's linear layers keep (out, in)).
_AXES: tuple[tuple[str, Axes, bool], ...] = (
  (EMBEDDING, ("vocab", "embed"), False),
  (HEAD, ("embed", "vocab"), True),
  (r"relpos_bias/rel_embedding", ("heads", "relpos_buckets"), True),
  (r"(query|key|value)/kernel", ("embed", "joined_kv"), True),
  (r"out/kernel", ("joined_kv", "embed"), True),
  (r"mlp/wi(_\d+)?/kernel", ("embed", "mlp"), True),
  (r"mlp/wo/kernel", ("mlp", "embed"), True),
  (r"norm/scale", ("embed",), False),
)
# Of a layer, in order: attention, norm before it, Hugging Face's name of it.
_ATTENTIONS = {
  "encoder": (("attention", "pre_attention", "SelfAttention"),),
  "decoder": (
    ("self_attention", "pre_self_attention", "SelfAttention"),
    ("encoder_decoder_attention", "pre_cross_attention", "EncDecAttention"),
  ),
}
_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
_BIAS = "relpos_bias/rel_embedding"
_HF_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"


def table(config: Any) -> dict[str, Parameter]:
  """{T5X's unscanned name: parameter} of a `t5.T5Config`, sorted."""
  sizes = axis_sizes(config)
  parameters = {}
  for name, hf_name in sorted(_names(config)):
    axes, transposed = _axes_and_transposed(name)
    shape = tuple(sizes[axis] for axis in axes)
    parameters[name] = Parameter(shape, axes, hf_name, transposed)
  return parameters


def axis_sizes(config: Any) -> dict[str, int]:
  """Size of each logical axis of a parameter."""
  return {
    "vocab": config.vocab_size,
    "embed": config.emb_dim,
    "mlp": config.mlp_dim,
    "heads": config.num_heads,
    "kv": config.head_dim,
    "joined_kv": config.num_heads * config.head_dim,
    "relpos_buckets": config.relative_buckets,
  }


def depths(config: Any) -> dict[str, int]:
  """{stack: number of layers}."""
  return {
    "encoder": config.num_encoder_layers,
    "decoder": config.num_decoder_layers,
  }


def with_layers(config: Any, kept: Mapping[str, Sequence[int]]) -> Any:
  """The config of the model with some layers of each stack."""
  return dataclasses.replace(
    config,
    num_encoder_layers=len(kept["encoder"]),
    num_decoder_layers=len(kept["decoder"]),
  )


def axes_of(name: str) -> Axes:
  """Logical axes of one layer's parameter, of a stacked name as well.

  Raises:
    UserError: T5 has no such parameter.
  """
  return _axes_and_transposed(name)[0]


def stacked_name(name: str) -> tuple[str, int] | None:
  """("encoder/encoder/…", 3) of "encoder/layers_3/…"; None for the others.

  T5X's scalable_t5 keeps all layers of a stack in one array of that name.
  """
  if (layer := layer_of(name)) is None:
    return None
  stack, number, rest = layer
  return f"{stack}/{stack}/{rest}", number


def stacked_axes(name: str) -> Axes:
  """Axes of a stacked array: layers second, heads as an axis of their own."""
  first, *rest = (
    part
    for axis in axes_of(name)
    for part in (("heads", "kv") if axis == "joined_kv" else (axis,))
  )
  return (first, "layers", *rest)


def is_second_moment(v: Shape, row: Shape, column: Shape, shape: Shape) -> bool:
  """Whether Adafactor makes slots of these shapes for a parameter's shape.

  Either v is whole, or there are a row and a column, in any order.
  """
  if v == shape and row == column == UNUSED_SLOT:
    return True
  sides = sorted(row + column)
  return v == UNUSED_SLOT and len(shape) == 2 and sides == sorted(shape)


def _names(config: Any) -> Iterator[tuple[str, str]]:
  """Our name and Hugging Face's of all parameters."""
  yield EMBEDDING, HF_EMBEDDING
  if not config.logits_via_embedding:
    yield HEAD, HF_HEAD
  for stack, depth in depths(config).items():
    yield f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight"
    if not config.bias_per_layer:
      yield f"{stack}/{_BIAS}", f"{stack}.block.0.{_HF_BIAS}"
    layer = dict(_layer_names(stack, len(config.mlp_activations)))
    if config.bias_per_layer:
      layer[_BIAS] = _HF_BIAS
    for i in range(depth):
      for name, hf_name in layer.items():
        yield f"{stack}/layers_{i}/{name}", f"{stack}.block.{i}.{hf_name}"


def _layer_names(stack: str, num_branches: int) -> Iterator[tuple[str, str]]:
  for j, (attention, norm, hf_attention) in enumerate(_ATTENTIONS[stack]):
    yield f"{norm}_layer_norm/scale", f"layer.{j}.layer_norm.weight"
    for name, hf_name in _PROJECTIONS.items():
      yield (
        f"{attention}/{name}/kernel",
        f"layer.{j}.{hf_attention}.{hf_name}.weight",
      )
  last = f"layer.{len(_ATTENTIONS[stack])}"
  yield "pre_mlp_layer_norm/scale", f"{last}.layer_norm.weight"
  inputs = [f"wi_{i}" for i in range(num_branches)]
  for name in (*(inputs if num_branches > 1 else ["wi"]), "wo"):
    yield f"mlp/{name}/kernel", f"{last}.DenseReluDense.{name}.weight"


def _axes_and_transposed(name: str) -> tuple[Axes, bool]:
  for pattern, axes, transposed in _AXES:
    if re.search(pattern + "$", name):
      return axes, transposed
  raise UserError(f"{name} is no parameter of a T5 encoder–decoder")
