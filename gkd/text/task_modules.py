"""The modules that register tasks, found by their names."""

import importlib
import os
import types
from typing import Any

from gkd.errors import UserError


def register(
  task_module: str,
  data_dir: str | os.PathLike | None,
  vocabulary: Any,
  **options: Any,
) -> None:
  """Has the module of that dotted name add its tasks to seqio's registry.

  By its `register(data_dir, vocabulary)` or, where it has none, as it is
  imported: these tasks have a vocabulary of their own.

  Options are for our own modules, and handed on.

  Raises:
    UserError: there is no such module, or something that it imports is missing.
      An error within its own code stays what it is.
  """
  module = _import(task_module)
  if hasattr(module, "register"):
    module.register(data_dir, vocabulary, **options)


def takes_vocabulary(task_module: str) -> bool:
  """Whether the module's tasks get the vocabulary of the configuration."""
  return hasattr(_import(task_module), "register")


def _import(task_module: str) -> types.ModuleType:
  parts = task_module.split(".") if isinstance(task_module, str) else [""]
  if not all(map(str.isidentifier, parts)):
    raise UserError(
      f"TASK_MODULE is {task_module!r}; expected the dotted name of a module"
      " that registers tasks, such as 'gkd.tasks.arithmetic'"
    )
  try:
    module = importlib.import_module(task_module)
  except ImportError as error:
    raise UserError(
      f"TASK_MODULE {task_module!r} cannot be imported ({error}); correct the"
      " name, or install it or put its folder on PYTHONPATH"
    ) from error
  if getattr(module, "__file__", None) is None and hasattr(module, "__path__"):
    folder = next(iter(module.__path__))
    raise UserError(
      f"TASK_MODULE {task_module!r}: there is a folder {folder}, but no"
      f" {parts[-1]}.py; put the folder of {parts[-1]}.py on PYTHONPATH, or"
      " name another module"
    )
  return module
