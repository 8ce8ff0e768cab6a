"""Whose code a configuration runs: that of gkd and of the user's folders.

A gin file imports modules and calls what it finds in them. This is no sandbox,
see SECURITY.md, but a file of settings cannot start other programs by itself.
"""

from collections.abc import Iterable
import importlib.util
from pathlib import Path
import sys

from gkd.types import UserError

_INSTALLED = {"site-packages", "dist-packages"}


def add(files: Iterable[str]) -> None:
  """Makes modules beside these files, and in the working folder, importable.

  Last, so that none of them hides an installed one.
  """
  for folder in (Path(), *(Path(file).parent for file in files)):
    if (name := str(folder.absolute())) not in sys.path:
      sys.path.append(name)


def refuse_foreign(module: str, where: str) -> None:
  """Refuses modules of Python's library and of installed packages."""
  top = module.partition(".")[0]
  if top in ("gkd", "__gin__"):
    return
  is_foreign = top in sys.stdlib_module_names or top == "__main__"
  spec = None if is_foreign else importlib.util.find_spec(top)
  if spec is not None:  # without one gin says that there is no such module
    places = spec.submodule_search_locations or [str(spec.origin)]
    is_foreign = any(_INSTALLED & {*Path(place).parts} for place in places)
  if is_foreign:
    raise UserError(
      f"{where}: {module} is neither of gkd nor of a folder of yours (that of"
      " the gin file, the working folder or PYTHONPATH); use it in a module"
      " that you write there"
    )
