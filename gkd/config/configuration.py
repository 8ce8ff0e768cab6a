"""Gin, tamed: only this module and `gin_table` import it.

gin builds objects from the files of `configs/`; everything that gin would let
pass or report in a page of text becomes one line here: unknown macro names,
missing values, values that nothing reads, wrong types.

  configuration.load(["runs/distill.gin"], ["BATCH_SIZE=8"])
  settings = configuration.build(Training)
  text = configuration.operative()   # parses again: --gin_file=config.gin
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib

# gin 0.5.0's dynamic registration uses it without importing it.
import importlib.util  # noqa: F401
import os
from pathlib import Path
from typing import Any

import gin
from gin import config as gin_config
from gin import config_parser

import gkd
from gkd.config import gin_table
from gkd.config import messages
from gkd.config.overrides import Given
from gkd.types import UserError

# Beside gin's own global state: what of it the user wrote.
_given = Given()
_DYNAMIC = "from __gin__ import dynamic_registration"
_COMPONENTS = (
  "from gkd.losses import divergence",
  "from gkd.losses import objective",
  "from gkd.models import t5",
  "from gkd.sampling import params",
  "from gkd.training import optimizer",
  "from gkd.training import rollout",
  "from gkd.training import schedules",
)


def config_folder() -> Path:
  """The gin files: beside the package in a checkout, else inside it."""
  package = Path(gkd.__file__).parent
  installed = package / "configs"
  return installed if installed.is_dir() else package.parent / "configs"


def load(files: Sequence[str], bindings: Sequence[str]) -> None:
  """Parses gin files, then `NAME=VALUE` bindings, and checks them.

  Args:
    files: paths, absolute, from the working folder or from `configs/`; later
      files override earlier ones.
    bindings: "NAME=VALUE"; text may stand without quotes.

  Raises:
    UserError: an unknown file, name or component, or a wrong type.
  """
  gin.clear_config()
  _given.files.clear()
  _given.flags.clear()
  _given.in_files.clear()
  opened: list[str] = []

  def reader(path):
    opened.append(path)
    return open(path, encoding="utf-8")

  gin_config._LOCATION_PREFIXES[:] = ["", str(config_folder())]
  # gin also takes paths for resources of Python packages: it logs a miss as an
  # error, and a folder `runs` in the working folder makes it fail.
  gin_config._FILE_READERS[:] = [(reader, os.path.isfile)]
  for file in files:
    _parse_file(file)
  for path in map(Path, opened):
    if not path.resolve().is_relative_to(config_folder().resolve()):
      _given.files.update(dict.fromkeys(gin_table.macros_of(path), str(path)))
  macros = [s for s, selector in gin_config._CONFIG if selector == "gin.macro"]
  _given.in_files.update(macros)
  for binding in bindings:
    _parse_binding(binding)
  _given.refuse_unknown(gin_table.referenced_macros(), config_folder())
  gin_table.refuse_wrong_types()


def build(cls: type, scope: str = "") -> Any:
  """The object of class `cls` that the configuration describes.

  Args:
    cls: a class that some gin file binds.
    scope: the gin scope of its bindings.

  Raises:
    UserError: no file describes it, values are missing, or an object refused
      its own.
  """
  selector = f"{cls.__module__}.{cls.__qualname__}"
  if (scope, selector) not in gin_config._CONFIG:
    raise UserError(
      f"no --gin_file describes a {cls.__name__!r}: start with one of"
      f" runs/ or experiments/ in {config_folder()}, then add others"
    )
  _refuse_missing((scope, selector))
  if not scope:  # with one it is a part, which does not read everything
    _given.refuse_idle(gin_table.reachable(("", selector)), cls.__name__)
  where = f"the configuration of {cls.__name__}"
  with _one_line(where), gin.config_scope(scope or None):
    return gin.get_configurable(cls)()


def operative() -> str:
  """What was used, as a gin file that can be given to --gin_file again."""
  return gin.operative_config_str()


def refuse_idle_flags(names: Iterable[str], why: str) -> None:
  """Refuses macros on the command line that do nothing in this run."""
  _given.refuse_idle_flags(names, why)


def _parse_file(file: str) -> None:
  found = any(
    (Path(prefix) / file).is_file() for prefix in gin_config._LOCATION_PREFIXES
  )
  if not found:
    raise UserError(
      f"--gin_file {file!r} does not exist here nor in {config_folder()};"
      f" did you mean {messages.nearest(file, _all_files())}?"
    )
  with _one_line(f"--gin_file {file}"):
    gin.parse_config_file(file)


def _parse_binding(binding: str) -> None:
  """Parses one NAME=VALUE of the command line; the name must exist."""
  name, equals, value = binding.partition("=")
  name, value = name.strip(), value.strip()
  if not equals or not name:
    raise UserError(
      f"--gin.{binding}: expected --gin.NAME=VALUE, without spaces around ="
    )
  known = gin_table.macro_names()
  if "." not in name and name not in known:
    raise UserError(
      f"--gin.{name}: no gin file of this command defines {name!r}; did you"
      f" mean {messages.nearest(name, known)}?"
    )
  with _one_line(f"--gin.{binding}"):
    gin.parse_config([*_imports(), f"{name} = {_quoted(value)}"])
  _given.flags.update(dict.fromkeys(gin_table.keys_of(name), name))


def _imports() -> list[str]:
  """Import lines for the command line: of our components and of all files.

  Without them gin knows only the components that some file already mentions.
  """
  known = {statement.format() for statement in gin_config._IMPORTS}
  return [_DYNAMIC, *sorted((known | set(_COMPONENTS)) - {_DYNAMIC})]


def _quoted(value: str) -> str:
  """The value as gin reads it: a shell eats the quotes around plain text."""
  if value.startswith(("@", "%")):
    return value
  delegate = gin_config.ParserDelegate(skip_unknown=True)
  try:
    list(config_parser.ConfigParser(f"x = {value}", delegate))
  except Exception:  # any way in which gin's tokenizer and parser fail
    return repr(value)
  return value if value else "''"


def _refuse_missing(key: tuple[str, str]) -> None:
  """One line with all names that need a value and have none."""
  missing = sorted(
    name
    for name, kind in gin_table.reachable(key)
    if kind == gin_table.MACRO and not gin_table.is_bound(name)
  )
  if missing:
    raise UserError(
      f"no value for {', '.join(missing)}; add --gin.{missing[0]}=… and so on,"
      " or a --gin_file that sets them"
    )


@contextlib.contextmanager
def _one_line(where: str) -> Iterator[None]:
  """Turns gin's and the objects' own messages into one line each."""
  try:
    yield
  except UserError as error:
    # gin appends where it was; the message itself is already a sentence.
    text = str(error).split("\n  In call to configurable")[0]
    raise UserError(text) from None
  except (
    ValueError,
    TypeError,
    SyntaxError,
    NameError,
    AttributeError,
    ImportError,
    RuntimeError,
    OSError,
  ) as error:
    if _is_bug(error):
      raise
    text = messages.plain(str(error))
    raise UserError(f"{where}: {text}; correct the name or value") from error


def _is_bug(error: Exception) -> bool:
  """Whether our own code failed rather than gin: that deserves a traceback."""
  trace = error.__traceback__
  while trace.tb_next is not None:
    trace = trace.tb_next
  file = trace.tb_frame.f_code.co_filename
  module = trace.tb_frame.f_globals.get("__name__", "")
  return not (module.split(".")[0] == "gin" or file.startswith("<"))


def _all_files() -> list[str]:
  folder = config_folder()
  return [path.relative_to(folder).as_posix() for path in folder.rglob("*.gin")]
