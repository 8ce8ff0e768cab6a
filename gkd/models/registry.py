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
from typing import Any
from typing import NamedTuple

from gkd.models import t5
from gkd.types import LanguageModel
from gkd.types import UserError

T5 = "t5"


class Family(NamedTuple):
  """A frozen dataclass of sizes, and what makes a model of it."""

  config_type: type
  build: Callable[[Any], LanguageModel]


_FAMILIES = {T5: Family(t5.T5Config, t5.encoder_decoder)}


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
    UserError: not a frozen dataclass, which could not be saved or compared.
  """
  kind = type(config)
  is_record = dataclasses.is_dataclass(config)
  if not is_record or not kind.__dataclass_params__.frozen:
    raise UserError(
      f"LanguageModel.config is a {kind.__qualname__}; expected an instance of"
      " a frozen dataclass, which is saved with the parameters"
    )
  return canonical(_class_name(kind))


def canonical(family: str) -> str:
  """The registered name of a family that was saved under its class's name."""
  for name, known in _FAMILIES.items():
    if family == _class_name(known.config_type):
      return name
  return family


def config_of(family: str, fields: Mapping[str, Any]) -> Any:
  """Config of a family from its saved fields; the fields if it is unknown."""
  if family == T5:  # which says more about a wrong field
    return t5.T5Config.from_size(fields)
  if (known := _FAMILIES.get(canonical(family))) is None:
    return dict(fields)
  values = {name: _hashable(value) for name, value in fields.items()}
  try:
    return known.config_type(**values)
  except TypeError as error:
    raise UserError(
      f"the saved config of a model of the family {family!r} does not fit"
      f" {known.config_type.__qualname__} ({error}); use the code that it was"
      " saved with"
    ) from error


def build(config: Any) -> LanguageModel:
  """The model of a config.

  Raises:
    UserError: its family is not registered.
  """
  family = _FAMILIES.get(canonical(_class_name(type(config))))
  if family is None:
    raise UserError(
      "the model is of a family that gkd does not know; bind its LanguageModel,"
      " or call gkd.models.registry.register in the module that defines it"
    )
  return family.build(config)


def _class_name(config_type: type) -> str:
  return f"{config_type.__module__}.{config_type.__qualname__}"


def _hashable(value: Any) -> Any:
  """JSON has no tuples, and a config with lists could be no static argument."""
  return tuple(map(_hashable, value)) if isinstance(value, list) else value
