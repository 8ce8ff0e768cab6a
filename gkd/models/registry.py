"""Families of models by name: what a checkpoint says it holds.

  model = build(config_of("t5", {"vocab_size": 32128, …}))
  family_of(model.config)  # "t5"

A family of one's own is trained, saved and loaded without being registered, as
long as its `LanguageModel` is given each time; registered, its checkpoints open
by themselves:

  register("my_family", MyConfig, my_model)
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import json
import types
import typing
from typing import Any
from typing import NamedTuple

from gkd.models import markov
from gkd.models import t5
from gkd.types import LanguageModel
from gkd.types import UserError

T5 = "t5"


class Family(NamedTuple):
  """A frozen dataclass of sizes, and what makes a model of it."""

  config_type: type
  build: Callable[[Any], LanguageModel]


_FAMILIES = {
  T5: Family(t5.T5Config, t5.encoder_decoder),
  "markov": Family(markov.MarkovConfig, markov.markov_chain),
}


def register(
  name: str, config_type: type, build: Callable[[Any], LanguageModel]
) -> None:
  """Makes checkpoints of a family open by themselves in this process."""
  known = _FAMILIES.get(name)
  if known is not None and known != (config_type, build):
    raise UserError(
      f"the model family {name!r} is registered already, with"
      f" {known.config_type.__qualname__}; choose another name"
    )
  _FAMILIES[name] = Family(config_type, build)


def family_of(config: Any) -> str:
  """Name of a config's family; that of its class where none is registered.

  Raises:
    UserError: not a frozen dataclass, not hashable, or with fields that JSON
      does not keep: it could not be saved, loaded or compared.
  """
  kind = type(config)
  is_record = dataclasses.is_dataclass(config)
  if not is_record or not kind.__dataclass_params__.frozen:
    raise UserError(
      f"LanguageModel.config is a {kind.__qualname__}; expected an instance of"
      " a frozen dataclass, which is saved with the parameters"
    )
  family = canonical(_class_name(kind))
  try:
    hash(config)
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    is_kept = family not in _FAMILIES or config_of(family, saved) == config
  except TypeError as error:
    raise UserError(
      f"LanguageModel.config, a {kind.__qualname__}, cannot be saved or"
      f" compared ({error}); expected numbers, strings, tuples and frozen"
      " dataclasses"
    ) from error
  if not is_kept:
    raise UserError(
      f"LanguageModel.config, a {kind.__qualname__}, is another one when it is"
      " read from JSON; expected numbers, strings, tuples and frozen"
      " dataclasses, each field with its type"
    )
  return family


def canonical(family: str) -> str:
  """The registered name of a family that was saved under its class's name."""
  for name, known in _FAMILIES.items():
    if family == _class_name(known.config_type):
      return name
  return family


def macro_of(role: str, family: str) -> str:
  """Macro of a role's model: T5's sizes, or the model of another family."""
  return f"{role.upper()}_MODEL" if family == T5 else role.upper()


def config_of(family: str, fields: Mapping[str, Any]) -> Any:
  """Config of a family from its saved fields; the fields if it is unknown."""
  if family == T5:  # which says more about a wrong field
    return t5.T5Config.from_size(fields)
  if (known := _FAMILIES.get(canonical(family))) is None:
    return dict(fields)
  try:
    return _from_json(known.config_type, fields)
  except (NameError, TypeError) as error:  # a field, or the type of one
    raise UserError(
      f"the saved config of a model of the family {family!r} does not fit"
      f" {known.config_type.__qualname__} ({error}); use the code that it was"
      " saved with"
    ) from error


def build(config: Any, origin: str = "the model") -> LanguageModel:
  """The model of a config; `origin` says whose it is in the message.

  Raises:
    UserError: its family is not registered.
  """
  family = _FAMILIES.get(canonical(_class_name(type(config))))
  if family is None:
    raise UserError(
      f"{origin} is of a family that gkd does not know; bind its LanguageModel,"
      " or call gkd.models.registry.register in the module that defines it"
    )
  return _built(family.build, config)


# Programs are compiled once for each `LanguageModel`.
@functools.lru_cache(maxsize=64)
def _built(make: Callable[[Any], LanguageModel], config: Any) -> LanguageModel:
  return make(config)


def _class_name(config_type: type) -> str:
  return f"{config_type.__module__}.{config_type.__qualname__}"


def _from_json(kind: Any, value: Any) -> Any:
  """A value of a type: JSON has neither tuples nor dataclasses."""
  if isinstance(value, Mapping) and dataclasses.is_dataclass(kind):
    hints = typing.get_type_hints(kind)
    return kind(**{n: _from_json(hints.get(n), v) for n, v in value.items()})
  inner = typing.get_args(kind)
  if typing.get_origin(kind) in (types.UnionType, typing.Union):  # X | None
    return _from_json(inner[0], value)
  if isinstance(value, list):  # tuple[X, Y], tuple[X, ...] or only a tuple
    if len(inner) != len(value) or inner[-1] is ...:
      inner = [inner[0] if inner else None] * len(value)
    return tuple(map(_from_json, inner, value))
  return value
