"""Queries of gin's table of bindings, and the defaults of macros."""

import ast
from collections.abc import Iterator
import contextlib
import graphlib
import inspect
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

from gkd.config import module_roots
from gkd.config import type_check
from gkd.config.overrides import MACRO
from gkd.config.overrides import Key
from gkd.types import UserError

_CONSTANT = "gin.constant"
_NOTHING = object()
# How to give what is an object, for which there are files.
FILES = {
  "REWARD": "add --gin_file=rewards/exact_answer.gin, see gkd list rewards",
  "DIVERGENCE": "add --gin_file=divergences/reverse_kl.gin, see gkd list"
  " divergences",
}


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


def macro_of(field: str, name: str) -> str | None:
  """The macro that sets a field of the class of that name, or of a part."""
  macros = {
    selector.rpartition(".")[2]: macro
    for selector, bound, value in _fields()
    if bound == field and (macro := _macro_name(value))
  }
  others = set(macros.values())
  # What an evaluation decodes with has macros of its own.
  part = others.pop() if len(others) == 1 and name != "EvalConfig" else None
  return macros.get(name, part)


def macros_of(path: Path) -> list[str]:
  """Macros that a file sets itself, without those of files it includes."""
  return [
    statement.selector
    for statement in _statements(path)
    if isinstance(statement, config_parser.BindingStatement)
    and not (statement.arg_name or statement.scope)
  ]


def imports_of(path: str) -> Iterator[str]:
  """Modules that a file imports, up to its first mistake: gin will say that."""
  with contextlib.suppress(Exception):
    for statement in _statements(Path(path)):
      if isinstance(statement, config_parser.ImportStatement):
        yield statement.module


def bind_defaults() -> None:
  """Gives each macro without a value the default of the parameter it sets.

  So a default stands once, in the field of a record, and a file that binds
  `keep = %KEEP` makes `--gin.KEEP=5` possible without repeating it. Parameters
  of one macro that have different defaults leave it without a value.
  """
  defaults: dict[str, list[Any]] = {}
  for selector, field, value in _fields():
    name = _macro_name(value)
    # TASK_MODULE = %MIXTURE_OR_TASK_MODULE leaves the value to that one.
    alias = gin_config._CONFIG.get((name, MACRO), {}).get("value")
    name = _macro_name(alias) or name
    if name is None or (name, MACRO) in gin_config._CONFIG:
      continue
    function = gin_config._REGISTRY[selector].wrapped
    parameter = inspect.signature(function).parameters.get(field)
    # None of a callable that takes **kwargs; a dataclass hides what its
    # `default_factory` makes.
    if parameter is not None and _is_literal(parameter.default):
      defaults.setdefault(name, []).append(parameter.default)
  gin.parse_config(
    [
      f"{name} = {first!r}"
      for name, (first, *others) in defaults.items()
      if all(default == first for default in others)
    ]
  )


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
  return set().union(*map(_sources, _references(key)))


def refuse_circles() -> None:
  """Refuses macros and objects whose values refer back to themselves."""
  try:
    graphlib.TopologicalSorter(_references(*gin_config._CONFIG)).prepare()
  except graphlib.CycleError as error:
    names = [
      f"%{name}" if kind == MACRO else f"@{kind.rpartition('.')[2]}"
      for name, kind in reversed(error.args[1])
    ]
    raise UserError(
      f"{' = '.join(names)[1:]} goes round in a circle; give"
      f" {names[0][1:]} a value"
    ) from None


def refuse_wrong_types() -> None:
  """Compares every bound value with the annotation of its parameter."""
  for selector, field, bound in _fields():
    value = _without_macros(bound)
    hint = type_check.hints(gin_config._REGISTRY[selector].wrapped).get(field)
    if hint is None or _fits(value, hint):
      continue
    name = _macro_name(bound) or f"{selector.rpartition('.')[2]}.{field}"
    remedy = FILES.get(name, "give a value of that type")
    raise UserError(
      f"{name} is {value!r}; expected {type_check.describe(hint)}: {remedy}"
    )


def _fields() -> Iterator[tuple[str, str, Any]]:
  """(selector, parameter, value) of each binding that is no macro."""
  for (_, selector), bound in gin_config._CONFIG.items():
    if selector not in (MACRO, _CONSTANT):
      for field, value in bound.items():
        yield selector, field, value


def refuse_foreign() -> None:
  """Refuses objects that neither gkd nor a module of the user's defines."""
  for _, selector in _references(*gin_config._CONFIG):
    if not selector.startswith("gin."):
      made = gin_config._REGISTRY[selector].wrapped
      # Methods of Python's own objects have none.
      module = getattr(made, "__module__", None) or "builtins"
      module_roots.refuse_foreign(module, f"@{selector}")


def _statements(path: Path) -> config_parser.ConfigParser:
  delegate = gin_config.ParserDelegate(skip_unknown=True)
  return config_parser.ConfigParser(path.read_text("utf-8"), delegate)


def _references(*roots: Key) -> dict[Key, list[Key]]:
  """What is looked up to build `roots`: {key: keys that its value needs}."""
  graph: dict[Key, list[Key]] = {}
  todo = [*roots]
  while todo:
    key = todo.pop()
    if key not in graph:
      bound: dict[str, Any] = {}
      for source in _sources(key):
        bound |= gin_config._CONFIG.get(source, {})
      references = gin.config.iterate_references(bound)
      # A reference with a scope leaves the active one, others stay in it.
      keys = [reference.config_key for reference in references]
      graph[key] = [(scope or key[0], target) for scope, target in keys]
      todo += graph[key]
  return graph


def _sources(key: Key) -> list[Key]:
  """In the scope a/b the bindings of "", "a" and "a/b" hold; later ones win."""
  active, selector = key
  if selector in (MACRO, _CONSTANT):
    return [key]
  parts = active.split("/") if active else []
  ends = range(len(parts) + 1)
  return [("/".join(parts[:end]), selector) for end in ends]


def _macro_name(value: Any) -> str | None:
  """The macro that a bound value refers to; None if it is something else."""
  if not isinstance(value, gin_config.ConfigurableReference):
    return None
  name, kind = value.config_key
  return name if kind == MACRO else None


def _without_macros(value: Any) -> Any:
  """Follows macros to a value or an object; _NOTHING if one has none."""
  while name := _macro_name(value):
    value = gin_config._CONFIG.get((name, MACRO), {}).get("value", _NOTHING)
  return value


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value may have the type; what a function returns is not known."""
  if isinstance(value, gin_config.ConfigurableReference):
    made = value.configurable.wrapped
    if value.config_key[1].startswith("gin."):  # required
      return True
    if not value.evaluate:
      return type_check.fits_object(type(made), hint)
    return not inspect.isclass(made) or type_check.fits_object(made, hint)
  has_reference = any(gin.config.iterate_references({"value": value}))
  return value is _NOTHING or has_reference or type_check.fits(value, hint)


def _is_literal(value: Any) -> bool:
  """Whether gin parses the `repr` of a value; it knows neither inf nor nan."""
  try:
    return ast.literal_eval(repr(value)) == value
  except (SyntaxError, ValueError):
    return False
