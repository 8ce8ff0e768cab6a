"""The modules that register tasks, found by their names."""

import importlib
import os
from typing import Any

from gkd.errors import UserError


def register(
  task_module: str, data_dir: str | os.PathLike | None, vocabulary: Any
) -> None:
  """Calls `register(data_dir, vocabulary)` of the module of that dotted name.

  Raises:
    UserError: there is no such module, something that it imports is missing, or
      it has no such function. An error within its own code stays what it is.
  """
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
  file = getattr(module, "__file__", None)
  if file is None and hasattr(module, "__path__"):
    folder = next(iter(module.__path__))
    raise UserError(
      f"TASK_MODULE {task_module!r}: there is a folder {folder}, but no"
      f" {parts[-1]}.py; put the folder of {parts[-1]}.py on PYTHONPATH, or"
      " name another module"
    )
  if not callable(getattr(module, "register", None)):
    raise UserError(
      f"TASK_MODULE {task_module!r} ({file}) has"
      " no register(data_dir, vocabulary); write one that adds its tasks to"
      " seqio's registry, or name another module"
    )
  module.register(data_dir, vocabulary)
