"""Gin: parsing, checks and building; only this module and `gin_table` use it.

gin builds objects from the files of `configs/`; everything that gin would let
pass or report in a page of text becomes one line here: unknown macro names,
missing values, values that nothing reads, wrong types.

  configuration.load(["runs/distill.gin"], ["BATCH_SIZE=8"])
  config = configuration.build(TrainConfig)
  text = configuration.operative()   # parses again: --gin_file=config.gin
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import importlib

# gin 0.5.0's dynamic registration uses it without importing it.
import importlib.util
import inspect
import os
from pathlib import Path
import re
import traceback
from typing import Any
from typing import TextIO

import gin
from gin import config as gin_config
from gin import config_parser

import gkd
from gkd.config import gin_table
from gkd.config import module_roots
from gkd.config import overrides
from gkd.config.overrides import Key
from gkd.config.overrides import Overrides
from gkd.models import sizes
from gkd.types import UserError

# Beside gin's own global state: what of it the user wrote.
_overrides = Overrides()
_DYNAMIC = "from __gin__ import dynamic_registration"
_COMPONENTS = (
  "from gkd.losses import divergence",
  "from gkd.losses import objective",
  "from gkd.models import t5",
  "from gkd.rewards import text",
  "from gkd.sampling import params",
  "from gkd.training import optimizer",
  "from gkd.training import rollout",
  "from gkd.training import schedules",
  "from gkd.training import trackers",
)
# --gin.STUDENT_MODEL=%T5_1_1_SMALL is the same as =T5_1_1_SMALL.
_SIZES = [f"{name} = {name!r}" for name in sizes.NAMES]


def config_folder() -> Path:
  """The gin files: beside the package in a checkout, else inside it."""
  package = Path(gkd.__file__).parent
  installed = package / "configs"
  return installed if installed.is_dir() else package.parent / "configs"


def load(
  files: Sequence[str], bindings: Sequence[str], command: str = "train"
) -> None:
  """Parses gin files, then `NAME=VALUE` bindings, and checks them.

  Args:
    files: paths, absolute, from the working folder or from `configs/`; later
      files override earlier ones.
    bindings: "NAME=VALUE"; text may stand without quotes.
    command: whose help lists the names, for the message.

  Raises:
    UserError: an unknown file, name or component, or a wrong type.
  """
  gin.clear_config()
  _overrides.clear()
  module_roots.add(file for file in files if os.path.isfile(file))
  opened: list[TextIO] = []

  def reader(path):
    if any(file.name == path and not file.closed for file in opened):
      raise UserError(f"{path} includes itself; take out that include")
    for module in gin_table.imports_of(path):  # before gin runs any of them
      module_roots.refuse_foreign(module, f"{path}: import {module}")
    opened.append(open(path, encoding="utf-8"))  # noqa: SIM115, gin closes it
    return opened[-1]

  ours = config_folder()
  gin_config._LOCATION_PREFIXES[:] = ["", str(ours)]
  # gin also takes paths for resources of Python packages: it logs a miss as an
  # error, and a folder `runs` in the working folder makes it fail.
  gin_config._FILE_READERS[:] = [(reader, os.path.isfile)]
  gin.parse_config(_SIZES)
  for file in files:
    _parse_file(file)
  for path in (Path(file.name) for file in opened):
    if not path.resolve().is_relative_to(ours.resolve()):
      names = gin_table.macros_of(path)
      _overrides.files.update(dict.fromkeys(names, str(path)))
  gin_table.bind_defaults()
  _overrides.with_value.update(gin_table.bound_macros())
  for binding in bindings:
    _parse_binding(binding)
  _overrides.refuse_unknown(gin_table.referenced_macros(), ours, command)
  gin_table.refuse_circles()
  gin_table.refuse_foreign()
  gin_table.refuse_wrong_types()


def describes(cls: type, scope: str = "") -> bool:
  """Whether the files describe an object of a class."""
  return (scope, _selector(cls)) in gin_config._CONFIG


def build(cls: type, scope: str = "") -> Any:
  """The object of class `cls` that the bindings of a gin scope describe.

  Raises:
    UserError: no file describes it, values are missing, or an object refused
      its own.
  """
  if not describes(cls, scope):
    raise UserError(
      f"no --gin_file describes a {cls.__name__!r}: start with one of"
      f" runs/ or experiments/ in {config_folder()}, then add others"
    )
  reached = gin_table.reachable((scope, _selector(cls)))
  _refuse_missing(reached)
  if not scope:  # with one it is a part, which does not read everything
    _overrides.refuse_unread(reached, cls.__name__)
  where = f"the configuration of {cls.__name__}"
  with _one_line(where), gin.config_scope(scope or None):
    return gin.get_configurable(cls)()


def loaded() -> dict[str, str]:
  """What was loaded, by name, to be compared."""
  lines = gin.config_str(max_line_length=10**6).splitlines()
  return dict(line.split(" = ", 1) for line in lines if " = " in line)


def operative() -> str:
  """What was used, as a gin file that can be given to --gin_file again."""
  return gin.operative_config_str()


def macros() -> str:
  """Of what was used the macros alone, NAME = VALUE, one a line."""
  lines = gin.operative_config_str(max_line_length=10**6).splitlines()
  return "\n".join(x for x in lines if re.match(r"[A-Z][A-Z0-9_]* = ", x))


def imported_modules() -> list[str]:
  """Modules that the files import."""
  return [statement.module for statement in gin_config._IMPORTS]


def refuse_idle_flags(idle: Iterable[tuple[Sequence[str], str]]) -> None:
  """Refuses flags for macros that have no effect here, each with the reason."""
  for names, why in idle:
    _overrides.refuse_idle_flags(names, why)


def _selector(cls: type) -> str:
  return f"{cls.__module__}.{cls.__qualname__}"


def _parse_file(file: str) -> None:
  ours = config_folder()
  if not any((folder / file).is_file() for folder in (Path(), ours)):
    known = [p.relative_to(ours).as_posix() for p in ours.rglob("*.gin")]
    raise UserError(
      f"--gin_file {file!r} does not exist here nor in {ours}; did you mean"
      f" {overrides.nearest(file, known)}?"
    )
  with _one_line(f"--gin_file {file}"):
    gin.parse_config_file(file)


def _parse_binding(binding: str) -> None:
  """Parses one NAME=VALUE of the command line, if there is such a name."""
  name, equals, value = binding.partition("=")
  name, value = name.strip(), value.strip()
  if not equals or not re.fullmatch(r"[\w./]+", name):
    raise UserError(
      f"--gin.{binding}: expected --gin.NAME=VALUE, without spaces around ="
    )
  known = gin_table.bound_macros() | gin_table.referenced_macros()
  if "." not in name and name not in known:
    _overrides.unknown.append(name)
    return
  # gin knows only components that some file imports; here ours are known too.
  imported = {statement.format() for statement in gin_config._IMPORTS}
  imports = sorted((imported | set(_COMPONENTS)) - {_DYNAMIC})
  with _one_line(f"--gin.{binding}"):
    gin.parse_config([_DYNAMIC, *imports, f"{name} = {_quoted(value)}"])
  _overrides.flags.update(dict.fromkeys(gin_table.keys_of(name), name))


def _quoted(value: str) -> str:
  """The value as gin reads it: a shell eats the quotes around plain text."""
  if value.startswith(("@", "%")):
    return value
  delegate = gin_config.ParserDelegate(skip_unknown=True)
  try:
    [_] = config_parser.ConfigParser(f"x = {value}", delegate)
  except Exception:  # any way in which gin's tokenizer and parser fail
    return repr(value)
  return value if value else "''"


def _refuse_missing(reached: Iterable[Key]) -> None:
  """One line with all names that need a value and have none."""
  missing = sorted(
    name
    for name, kind in reached
    if kind == gin_table.MACRO and not gin_table.is_bound(name)
  )
  if not missing:
    return
  remedies, plain = [], []
  for name in missing:
    if name in gin_table.FILES:
      remedies.append(gin_table.FILES[name])
    elif near := sizes.nearest(name):  # %NAME of a model
      remedies.append(f"{near}see gkd list models")
    else:
      plain.append(name)
  if plain:
    more, them = (" and so on", "them") if plain[1:] else ("", "it")
    remedies.append(
      f"add --gin.{plain[0]}=…{more}, or a --gin_file that sets {them}"
    )
  raise UserError(f"no value for {', '.join(missing)}; {'; '.join(remedies)}")


@contextlib.contextmanager
def _one_line(where: str) -> Iterator[None]:
  """Turns gin's and the objects' own messages into one line each."""
  try:
    yield
  except UserError as error:
    raise UserError(_in_macros(str(error))) from None
  except Exception as error:
    if _is_bug(error):
      raise
    text, remedy = _plain(str(error)), "correct the name or value"
    if re.search(r"(named '|file: )t5x\b", text):
      remedy = "files and components of T5X are not read, see docs/from_t5x.md"
    raise UserError(f"{where}: {text}; {remedy}") from error


def _in_macros(message: str) -> str:
  """The sentence, about the macro that sets a field and not about the field."""
  # gin appends where it was; the message itself is already a sentence.
  text, *where = re.split(r"\n  In (?:call to|file|bindings) ", message)
  match = re.match(r"(?:decoding |\w+\.)?(\w+|beam \w+) (?=is )", text)
  name = "".join(where).partition("'")[2].partition("'")[0]
  macro = match and gin_table.macro_of(match[1].replace(" ", "_"), name)
  return f"{macro} {text[match.end() :]}" if macro else text


def _is_bug(error: Exception) -> bool:
  """Whether our own code failed rather than gin: that deserves a traceback."""
  *_, (frame, _) = traceback.walk_tb(error.__traceback__)
  module = frame.f_globals.get("__name__", "")
  in_import = frame.f_code.co_filename.startswith("<")
  return not (module.split(".")[0] in ("gin", "tokenize") or in_import)


def _plain(message: str) -> str:
  """Gin's message without its places in our own import lines."""
  message = " ".join(message.split("\n  In call to")[0].split())
  for noise in (" In bindings string line", " No values supplied by Gin"):
    message = message.split(noise)[0]
  # Python's own error of an unclosed bracket is a text and a place.
  message = re.sub(r"^\('(.+)', \((\d+), .*", r"\1 (line \2)", message)
  message = message.rstrip(". ")
  match = re.match(
    r"Couldn't resolve selector \S+; <module '([\w.]+)'.* has no attribute"
    r" (\w+)",
    message,
  )
  if match is None:
    return message
  module, name = match.groups()
  members = inspect.getmembers(importlib.import_module(module), inspect.isclass)
  classes = [key for key, value in members if value.__module__ == module]
  near = overrides.nearest(name, classes)
  return f"{module} has no {name!r}" + f", did you mean {near}?" * bool(near)
