"""Type annotations of parameters, compared with literals of a configuration.

gin passes any value to any parameter; BATCH_SIZE = 'a' would fail somewhere
inside. Only literals are checked, never objects.
"""

import collections.abc
import functools
import inspect
import types
import typing
from typing import Any
from typing import Literal

import jax

from gkd.errors import is_text

_UNIONS = (typing.Union, types.UnionType)
_LISTS = (tuple, list, collections.abc.Sequence)
_DICTS = (dict, collections.abc.Mapping)
_NAMES = {
  int: "a whole number",
  float: "a number",
  str: "text",
  bool: "True or False",
  Any: "anything",
  type(None): "None",
  None: "None",
}


@functools.cache
def hints(function: Any) -> dict[str, Any]:
  """Annotations of a callable's parameters; {} where they do not resolve."""
  try:
    return typing.get_type_hints(inspect.unwrap(function))
  except (NameError, TypeError):
    return {}


def fits(value: Any, hint: Any) -> bool:
  """Whether a literal has the annotated type."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in _UNIONS:
    return any(fits(value, option) for option in arguments)
  if origin is Literal:
    return value in arguments
  if hint is None or hint is type(None):
    return value is None
  if hint in (int, float):
    kinds = int if hint is int else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)
  if hint is bool:
    return isinstance(value, bool)
  if hint is str:
    return isinstance(value, str) and is_text(value)
  if origin in _LISTS:
    return isinstance(value, (tuple, list)) and (
      not arguments or all(fits(item, arguments[0]) for item in value)
    )
  if origin in _DICTS:
    return isinstance(value, dict) and all(
      fits(key, arguments[0]) and fits(item, arguments[1])
      for key, item in value.items()
    )
  # A literal in the place of a class of ours is a forgotten @.
  return hint is Any or not inspect.isclass(hint)


def fits_object(kind: type, hint: Any) -> bool:
  """Whether an object of a class may have the annotated type."""
  if typing.get_origin(hint) in _UNIONS:
    return any(fits_object(kind, option) for option in typing.get_args(hint))
  plain = typing.get_origin(hint) or hint
  if plain is Any:
    return True
  if getattr(plain, "_is_protocol", False):
    methods = (name for name, x in vars(plain).items() if inspect.isfunction(x))
    public = [n for n in methods if n == "__call__" or not n.startswith("_")]
    fields = inspect.get_annotations(plain).keys()
    fields -= inspect.get_annotations(kind).keys()
    return all(hasattr(kind, name) for name in [*public, *fields])
  return plain is not Literal and issubclass(kind, plain)


def describe(hint: Any) -> str:
  """An annotation in words for an error message."""
  if hint in _NAMES:
    return _NAMES[hint]
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in _UNIONS:
    # An array is what a traced value is, never one of a configuration.
    return " or ".join(describe(x) for x in arguments if x is not jax.Array)
  if origin is Literal:
    return "one of " + ", ".join(map(repr, arguments))
  if origin in _LISTS:
    return f"a list of items, each {describe(arguments[0])}"
  if origin in _DICTS:
    return f"a dict of {describe(arguments[0])} to {describe(arguments[1])}"
  return f"a {getattr(hint, '__name__', hint)} object, written @module.Name()"
