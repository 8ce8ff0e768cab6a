"""Annotations of parameters, compared with literals of a configuration.

gin passes any value to any parameter; BATCH_SIZE = 'a' would fail somewhere
inside. Only literals are judged, never objects.
"""

import collections.abc
import inspect
import types
import typing
from typing import Any
from typing import Literal


def hints(function: Any) -> dict[str, Any]:
  """Annotations of a callable's parameters; {} where they do not resolve."""
  target = inspect.unwrap(function)
  if not inspect.isclass(target):
    target = getattr(target, "__func__", target)
  try:
    return typing.get_type_hints(target)
  except (NameError, TypeError):
    return {}


def fits(value: Any, hint: Any) -> bool:
  """Whether a literal is of an annotated type. Objects are not judged."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, option) for option in arguments)
  if origin is Literal:
    return value in arguments
  if hint is None or hint is type(None):
    return value is None
  if hint is bool:
    return isinstance(value, bool)
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool)
  if hint is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if hint is str:
    return isinstance(value, str)
  if origin in (tuple, list, collections.abc.Sequence):
    return isinstance(value, (tuple, list)) and (
      not arguments or all(fits(item, arguments[0]) for item in value)
    )
  if origin in (dict, collections.abc.Mapping):
    return isinstance(value, dict) and all(
      fits(key, arguments[0]) and fits(item, arguments[1])
      for key, item in value.items()
    )
  if hint is Any:
    return True
  # A class of ours: a literal in its place is a forgotten @.
  return not inspect.isclass(hint)


def words(hint: Any) -> str:
  """An annotation as a newcomer reads it."""
  plain = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "True or False",
    type(None): "None",
    None: "None",
  }
  if hint in plain:
    return plain[hint]
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(words(option) for option in arguments)
  if origin is Literal:
    return "one of " + ", ".join(repr(option) for option in arguments)
  if origin in (tuple, list, collections.abc.Sequence):
    return f"a list of items, each {words(arguments[0])}"
  if origin in (dict, collections.abc.Mapping):
    return f"a dict of {words(arguments[0])} to {words(arguments[1])}"
  return f"a {getattr(hint, '__name__', hint)} object, written @module.Name()"
