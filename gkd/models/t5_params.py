"""The table of T5's parameters: name, shape, axes, and what others call them.

Every module that needs a name, a shape or a logical axis of a T5 reads it here:
sharding, opening and writing of checkpoints, T5X's stacked layers, Hugging
Face's names, Adafactor's slots in T5X's layout.

  for name, parameter in table(config).items():
    print(name, parameter.shape, parameter.axes, parameter.hf_name)

Nothing is traced: tracing a model takes seconds, and hours where a damaged file
says that it has thousands of layers.
"""

from collections.abc import Iterator
import math
import re
from typing import Any
from typing import NamedTuple

from gkd.types import Axes
from gkd.types import UserError

EMBEDDING = "token_embedder/embedding"
HEAD = "decoder/logits_dense/kernel"
HF_EMBEDDING = "shared.weight"
HF_HEAD = "lm_head.weight"
STACKS = ("encoder", "decoder")

# Adafactor's slots of a parameter in T5X: first moment, second moment, and the
# second moment factored into row and column. A kind that is not used has
# UNUSED_SLOT as its shape.
SLOT_KINDS = ("m", "v", "v_row", "v_col")
UNUSED_SLOT = (1,)

# End of a name -> logical axes (T5X's), whether Hugging Face's array is the
# transpose: PyTorch's linear layers keep (out, in).
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
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/(.+)")


class Parameter(NamedTuple):
  """One parameter of a config.

  Attributes:
    shape: ours, which is T5X's unscanned one.
    axes: logical name of each axis.
    hf_name: name in a Hugging Face file.
    hf_transposed: whether the array there is the transpose.
  """

  shape: tuple[int, ...]
  axes: Axes
  hf_name: str
  hf_transposed: bool

  @property
  def hf_shape(self) -> tuple[int, ...]:
    return self.shape[::-1] if self.hf_transposed else self.shape


def table(config: Any) -> dict[str, Parameter]:
  """{T5X name, slash-separated and unscanned: parameter}, sorted by name.

  Args:
    config: a `t5.T5Config`.
  """
  sizes = axis_sizes(config)
  found = {}
  for name, hf_name in sorted(_names(config)):
    axes, transposed = _axes_and_transposed(name)
    shape = tuple(sizes[axis] for axis in axes)
    found[name] = Parameter(shape, axes, hf_name, transposed)
  return found


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


def num_parameters(config: Any) -> int:
  """Scalars of all parameters."""
  return sum(math.prod(row.shape) for row in table(config).values())


def axes_of(name: str) -> Axes:
  """Logical axes of one layer's parameter, of a stacked name as well.

  Raises:
    UserError: T5 has no such parameter.
  """
  return _axes_and_transposed(name)[0]


def layer_of(name: str) -> tuple[str, int, str] | None:
  """("encoder", 3, "mlp/wo/kernel") of "encoder/layers_3/mlp/wo/kernel"."""
  match = _LAYER.fullmatch(name)
  return match and (match[1], int(match[2]), match[3])


def stacked_name(name: str) -> tuple[str, int] | None:
  """("encoder/encoder/…", 3) of "encoder/layers_3/…"; None for the others.

  T5X's scalable_t5 (`scan_layers=True`) keeps all layers of a stack in one
  array of that name.
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


def is_second_moment(
  v: tuple[int, ...],
  row: tuple[int, ...],
  column: tuple[int, ...],
  shape: tuple[int, ...],
) -> bool:
  """Whether Adafactor makes slots of these shapes for a parameter's shape.

  Either v is whole, or there are a row and a column, whichever T5X called
  which.
  """
  if v == shape and row == column == UNUSED_SLOT:
    return True
  sides = sorted(row + column)
  return v == UNUSED_SLOT and len(shape) == 2 and sides == sorted(shape)


def mlp_inputs(num_branches: int) -> list[str]:
  """Names of an MLP's input kernels: wi, or wi_0 and wi_1."""
  if num_branches == 1:
    return ["wi"]
  return [f"wi_{branch}" for branch in range(num_branches)]


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
  for name in (*mlp_inputs(num_branches), "wo"):
    yield f"mlp/{name}/kernel", f"{last}.DenseReluDense.{name}.weight"


def _axes_and_transposed(name: str) -> tuple[Axes, bool]:
  for pattern, axes, transposed in _AXES:
    if re.search(pattern + "$", name):
      return axes, transposed
  raise UserError(f"{name} is no parameter of a T5 encoder–decoder")
