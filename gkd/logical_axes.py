"""Logical axis names of arrays, and the mesh axes that rules split them over.

A mesh has the axes of `MESH_AXES`. Batches are split over "data" and "fsdp";
rules say what else is split: pairs of a logical name and a mesh axis, of which
the first whose mesh axis is free holds, as in T5X. Parameters have names
(`LanguageModel.axes`) and the rules of their model; activations are named by
`constrain`, with the rules of ACTIVATIONS.
"""

import math

import jax
from jax.sharding import PartitionSpec

from gkd.types import Array
from gkd.types import Axes
from gkd.types import Rules
from gkd.types import UserError

MESH_AXES = ("data", "fsdp", "model")
BATCH = ("data", "fsdp")

# T5X's standard_logical_axis_rules(1, 1).
_ONE_DIMENSION: Rules = (
  ("batch", BATCH),
  ("vocab", "model"),
  ("embed", None),
  ("mlp", "model"),
  ("heads", "model"),
  ("kv", None),
  ("joined_kv", "model"),
  ("relpos_buckets", None),
  ("length", None),
  ("layers", None),
)
ACTIVATIONS = _ONE_DIMENSION
DEFAULT = "fsdp"  # that is "1d" on a mesh without such an axis
PRESETS: dict[str, Rules] = {
  "fsdp": (("embed", "fsdp"), *_ONE_DIMENSION),
  "1d": _ONE_DIMENSION,
  # Parameters over both axes: standard_logical_axis_rules(1, 2).
  "2d": (("embed", "data"), *_ONE_DIMENSION),
}


def rules_of(choice: str | tuple, macro: str) -> Rules:
  """The rules of a preset's name, or the user's pairs before those of "1d".

  Raises:
    UserError: neither; `macro` says whose in the message.
  """
  if isinstance(choice, str):
    if choice not in PRESETS:
      raise UserError(
        f"{macro} is {choice!r}; expected one of {', '.join(PRESETS)}, or pairs"
        " of a logical axis and a mesh axis"
      )
    return PRESETS[choice]
  names = [name for name, _ in _ONE_DIMENSION]
  for pair in choice:
    is_pair = isinstance(pair, list | tuple) and len(pair) == 2
    if not is_pair or pair[0] not in names or pair[1] not in (None, *MESH_AXES):
      raise UserError(
        f"{macro} has {pair!r}; expected a pair of one of {', '.join(names)}"
        f" and one of {', '.join(MESH_AXES)} or None"
      )
  return (*map(tuple, choice), *_ONE_DIMENSION)


def spec(names: Axes, rules: Rules) -> PartitionSpec:
  """The mesh axes of the dimensions of an array, each used once.

  Raises:
    KeyError: a name without a rule.
  """
  found, used = [], set()
  for name in names:
    fitting = [axes for known, axes in rules if known == name]
    if name is not None and not fitting:
      raise KeyError(name)
    free = (axes for axes in fitting if used.isdisjoint(as_tuple(axes)))
    found.append(next(free, None))
    used.update(as_tuple(found[-1]))
  return PartitionSpec(*found)


def constrain(x: Array, *names: str | None) -> Array:
  """An activation, laid out by its names inside a partitioned model.

  Elsewhere (see `partitioning.partitioned`) it is returned as it is; a
  dimension that does not divide over its mesh axes is not split.
  """
  sizes = jax.sharding.get_abstract_mesh().shape
  if not sizes:
    return x
  axes = [
    axes if size % math.prod(sizes[a] for a in as_tuple(axes)) == 0 else None
    for size, axes in zip(x.shape, spec(names, ACTIVATIONS), strict=True)
  ]
  return jax.lax.with_sharding_constraint(x, PartitionSpec(*axes))


def constrain_states(states: Array) -> Array:
  """States of tokens [B, T, D] of a batch."""
  return constrain(states, "batch", "length", "embed")


def constrain_logits(logits: Array) -> Array:
  """Logits [B, …, V] of a batch, no device with the whole vocabulary."""
  return constrain(logits, "batch", *[None] * (logits.ndim - 2), "vocab")


def as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
  """The mesh axes of one dimension, of which there may be none."""
  return (axes,) if isinstance(axes, str) else axes or ()
