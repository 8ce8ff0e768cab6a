"""Keeps TensorFlow's banner off the terminal.

Its C++ writes a warning and notes on processors to the file descriptor of
stderr while it is imported; no setting turns that off, whoever imports it.
"""

from collections.abc import Iterator
import contextlib
import importlib.abc
import importlib.util
import os
import sys


class QuietImport(importlib.abc.MetaPathFinder):
  """Finds one module, once, and silences stderr while it is imported.

  sys.meta_path.insert(0, QuietImport("tensorflow"))
  """

  def __init__(self, name: str):
    self._name = name

  def find_spec(self, name, path, target=None):
    """That of the finders behind this one, with a silent loader."""
    if name != self._name:
      return None
    sys.meta_path.remove(self)
    spec = importlib.util.find_spec(name)
    if spec is not None:
      spec.loader.exec_module = _silent()(spec.loader.exec_module)
    return spec


@contextlib.contextmanager
def _silent() -> Iterator[None]:
  """Nothing that is written to file descriptor 2 arrives."""
  sys.stderr.flush()
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)
