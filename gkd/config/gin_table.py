"""Queries of gin's table of bindings, and the defaults of macros.

A key is (scope, selector); a macro `NAME` has the key (NAME, "gin.macro"), and
its value is evaluated in the scope NAME.
"""

import inspect
import math
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from gkd.config import type_check
from gkd.types import UserError

MACRO = "gin.macro"
_CONSTANT = "gin.constant"
_NOTHING = object()

Key = tuple[str, str]


def is_bound(name: str) -> bool:
  """Whether a macro has a value."""
  value = gin_config._CONFIG.get((name, MACRO), {}).get("value", _NOTHING)
  is_reference = isinstance(value, gin_config.ConfigurableReference)
  is_required = is_reference and value.config_key == ("gin.REQUIRED", _CONSTANT)
  return value is not _NOTHING and not is_required


def bound_macros() -> set[str]:
  """Macros that some file or flag sets."""
  return {name for name, kind in gin_config._CONFIG if kind == MACRO}


def referenced_macros() -> set[str]:
  """Macros that some binding refers to."""
  references = gin.config.iterate_references(gin_config._CONFIG)
  keys = [reference.config_key for reference in references]
  return {name for name, kind in keys if kind == MACRO}


def macros_of(path: Path) -> list[str]:
  """Macros that a file sets itself, without those of files it includes."""
  delegate = gin_config.ParserDelegate(skip_unknown=True)
  statements = config_parser.ConfigParser(path.read_text("utf-8"), delegate)
  return [
    statement.selector
    for statement in statements
    if isinstance(statement, config_parser.BindingStatement)
    and not (statement.arg_name or statement.scope)
  ]


def bind_defaults() -> None:
  """Gives each macro without a value the default of the parameter it sets.

  So a default stands once, in the field of a record, and a file that binds
  `keep = %KEEP` makes `--gin.KEEP=5` possible without repeating it. Parameters
  of one macro that have different defaults leave it without a value.
  """
  defaults: dict[str, list[Any]] = {}
  for (_, selector), bound in gin_config._CONFIG.items():
    if selector in (MACRO, _CONSTANT):
      continue
    parameters = inspect.signature(
      gin_config._REGISTRY[selector].wrapped
    ).parameters
    for field, value in bound.items():
      name = _macro_name(value)
      if name is None or (name, MACRO) in gin_config._CONFIG:
        continue
      if field not in parameters:  # of a callable that takes **kwargs
        continue
      default = parameters[field].default
      # A dataclass hides what its `default_factory` makes.
      if default is not inspect.Parameter.empty and _is_literal(default):
        defaults.setdefault(name, []).append(default)
  bindings = [
    f"{name} = {found[0]!r}"
    for name, found in defaults.items()
    if all(default == found[0] for default in found)
  ]
  gin.parse_config(bindings)


def keys_of(name: str) -> list[Key]:
  """Keys of the binding that "NAME" or "scope/module.Class.field" set."""
  scope, _, rest = name.rpartition("/")
  selector, _, field = rest.rpartition(".")
  if not selector:
    return [(name, MACRO)]
  return [
    key
    for key, bound in gin_config._CONFIG.items()
    if key[0] == scope
    and f".{key[1]}".endswith(f".{selector}")
    and field in bound
  ]


def reachable(key: Key) -> set[Key]:
  """All keys that are looked up when `key` is built."""
  seen: set[Key] = set()
  reached: set[Key] = set()
  todo = [key]
  while todo:
    active, selector = todo.pop()
    if (active, selector) in seen:
      continue
    seen.add((active, selector))
    scopes = [active] if selector in (MACRO, _CONSTANT) else _scopes(active)
    reached |= {(scope, selector) for scope in scopes}
    bound: dict[str, Any] = {}
    for scope in scopes:
      bound |= gin_config._CONFIG.get((scope, selector), {})
    for reference in gin.config.iterate_references(bound):
      scope, wanted = reference.config_key
      # A reference with a scope leaves the active one, others stay in it.
      todo.append((scope or active, wanted))
  return reached


def refuse_wrong_types() -> None:
  """Compares every bound value with the annotation of its parameter."""
  for (_, selector), bound in gin_config._CONFIG.items():
    if selector in (MACRO, _CONSTANT):
      continue
    hints = type_check.hints(gin_config._REGISTRY[selector].wrapped)
    for field, given in bound.items():
      value, hint = _literal(given), hints.get(field)
      if value is _NOTHING or hint is None or type_check.fits(value, hint):
        continue
      name = _macro_name(given) or f"{selector.rpartition('.')[2]}.{field}"
      raise UserError(
        f"{name} is {value!r}; expected {type_check.describe(hint)}:"
        " give a value of that type"
      )


def _scopes(active: str) -> list[str]:
  """In the scope a/b the bindings of "", "a" and "a/b" hold; later ones win."""
  parts = active.split("/") if active else []
  return ["/".join(parts[:end]) for end in range(len(parts) + 1)]


def _macro_name(value: Any) -> str | None:
  """The macro that a bound value refers to; None if it is something else."""
  if not isinstance(value, gin_config.ConfigurableReference):
    return None
  name, kind = value.config_key
  return name if kind == MACRO else None


def _literal(value: Any) -> Any:
  """Follows macros to a plain value; _NOTHING if an object is in the way."""
  while name := _macro_name(value):
    value = gin_config._CONFIG.get((name, MACRO), {}).get("value", _NOTHING)
  has_reference = any(gin.config.iterate_references({"value": value}))
  return _NOTHING if has_reference else value


def _is_literal(value: Any) -> bool:
  """Whether gin parses the `repr` of a value; it knows neither inf nor nan."""
  if isinstance(value, tuple):
    return all(map(_is_literal, value))
  if isinstance(value, float):
    return math.isfinite(value)
  return value is None or isinstance(value, bool | int | str)
