"""What the configs of all families share: fields from JSON, and their checks.

config = from_fields(DecoderConfig, {"vocab_size": 32000, …})
config = with_overrides(config, {"dropout_rate": 0.1}, path)
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import types
import typing
from typing import Any

import jax.numpy as jnp

from gkd.errors import check_number
from gkd.models import layers
from gkd.types import UserError

# Fields of the program: they replace what a checkpoint says.
OF_THIS_RUN = ("dropout_rate", "dtype")
SPECIAL_IDS = ("pad_id", "eos_ids", "start_id")
_MOST = 2**31  # of any size: what an int32 holds
_DTYPES = ("float32", "bfloat16")


def from_fields(config_type: type, fields: Mapping[str, Any]) -> Any:
  """A config from its fields, as JSON or gin has them.

  Raises:
    UserError: an unknown field, one that is missing, or one with a bad value.
  """
  name, known = config_type.__name__, dataclasses.fields(config_type)
  names = [field.name for field in known]
  if unknown := sorted(set(fields) - set(names)):
    raise UserError(
      f"unknown {name} field(s) {', '.join(unknown)}; expected some of "
      f"{', '.join(names)}; correct the name"
    )
  missing = [
    field.name
    for field in known
    if field.default is dataclasses.MISSING and field.name not in fields
  ]
  if missing:
    raise UserError(
      f"{name} {dict(fields)} has no {', '.join(missing)}; give all sizes, or a"
      " published one by its name, such as T5_1_1_SMALL"
    )
  try:
    return from_json(config_type, fields)
  except (AttributeError, TypeError) as problem:  # of a record among them
    raise UserError(f"{name} {dict(fields)}: {problem}; correct it") from None


def from_json(kind: Any, value: Any) -> Any:
  """A value of a type: JSON has neither tuples nor dataclasses."""
  inner = typing.get_args(kind)
  if typing.get_origin(kind) in (types.UnionType, typing.Union):  # X | None
    return from_json(inner[0], value)
  if isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
    hints = typing.get_type_hints(kind)
    return kind(**{n: from_json(hints.get(n), v) for n, v in value.items()})
  if isinstance(value, list) and kind not in (bool, float, int, str):
    # tuple[X, Y], tuple[X, ...] or only a tuple
    if not inner or len(inner) != len(value) or inner[-1] is ...:
      inner = [inner[0] if inner else None] * len(value)
    return tuple(map(from_json, inner, value))
  return value


def with_overrides(
  config: Any, overrides: Mapping[str, Any], origin: object
) -> Any:
  """The config of a checkpoint with the user's fields.

  Args:
    config: of the checkpoint.
    overrides: {field: value}. Those of the program, dropout_rate and dtype,
      replace what was saved, others must agree with it.
    origin: what says the saved fields, for messages.

  Raises:
    UserError: a field that contradicts what was saved.
  """
  saved = dataclasses.asdict(config)
  wanted = from_fields(type(config), {**saved, **overrides})
  for name in overrides.keys() - set(OF_THIS_RUN):
    before, value = getattr(config, name), getattr(wanted, name)
    if before != value:
      raise UserError(
        f"{name}={value!r} was given, but {origin} says {before!r}; leave it"
        " out or give the right checkpoint"
      )
  return wanted


def normalize(config: Any) -> None:
  """Makes lists and jnp dtypes hashable and fills in `vocabulary_size`."""
  changes = {
    "mlp_activations": _tuple(config.mlp_activations),
    "dtype": _dtype_name(config.dtype),
    "eos_ids": _tuple(config.eos_ids),
  }
  if config.vocabulary_size is None:
    changes["vocabulary_size"] = config.vocab_size
  for name, value in changes.items():
    object.__setattr__(config, name, value)


def check(
  config: Any, sizes: Sequence[str], epsilon: str | None = None
) -> None:
  """Refuses values of the fields that all families have.

  Args:
    config: normalized.
    sizes: names of fields that hold positive integers.
    epsilon: name of the field that norms add, unless it is of a part.

  Raises:
    UserError: at the first field that makes no model.
  """
  for name in sizes:
    value = getattr(config, name)
    if type(value) is not int or not 0 < value < _MOST:
      raise error(config, name, f"a positive integer below {_MOST}")
  rows, known = config.vocab_size, [*layers.ACTIVATIONS]
  activations = config.mlp_activations
  if not activations or not all(name in known for name in activations):
    raise error(config, "mlp_activations", f"one or more of {', '.join(known)}")
  for name in SPECIAL_IDS:
    value = getattr(config, name)
    if value is None and getattr(type(config), name) is None:
      continue
    ids = value if isinstance(value, tuple) else (value,)
    if not ids or not all(type(x) is int and 0 <= x < rows for x in ids):
      raise error(config, name, f"ids below vocab_size={rows}")
  if config.dtype not in _DTYPES:
    raise error(config, "dtype", f"one of {', '.join(_DTYPES)}")
  if type(config.logits_via_embedding) is not bool:
    raise error(config, "logits_via_embedding", "True or False")
  kind = type(config).__name__
  check_number(
    f"{kind}.dropout_rate",
    config.dropout_rate,
    lambda x: 0 <= x < 1,
    "a number from 0 up to, but not, 1",
  )
  if epsilon is not None:
    check_number(
      f"{kind}.{epsilon}",
      getattr(config, epsilon),
      lambda x: 0 < x < 1,
      "a number between 0 and 1, say 1e-6",
    )
  if config.vocabulary_size > rows:
    raise error(
      config, "vocabulary_size", f"at most vocab_size={rows}; raise vocab_size"
    )


def error(config: Any, name: str, expected: str) -> UserError:
  """The error about a field's value."""
  return UserError(
    f"{type(config).__name__}.{name} is {getattr(config, name)!r:.60};"
    f" expected {expected}"
  )


def _tuple(value: Any) -> tuple:
  """("relu",) of "relu" or any sequence of names, (1,) of the id 1."""
  return tuple(value) if isinstance(value, list | tuple) else (value,)


def _dtype_name(dtype: Any) -> str:
  try:
    return jnp.dtype(dtype).name
  except (SyntaxError, TypeError, ValueError):  # numpy's, by how it is wrong
    return str(dtype)
