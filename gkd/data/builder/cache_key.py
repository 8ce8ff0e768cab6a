"""The key of a task's cache: all that its rows depend on, as JSON.

- `FORMAT`, a number that stands for the code in `gkd.data` that makes rows;
- the source files of the task's module, of the modules of its preprocessors
  and its postprocessor, and of the project's modules that these import;
- arguments: those of preprocessors and of the source that are visible without
  running anything, above all those of `functools.partial`;
- raw files, split, lengths and vocabulary.

A value that a function closes over is not noticed; docs/data.md says so.
"""

import ast
from collections.abc import Iterable
from collections.abc import Mapping
import functools
import importlib.util
import inspect
from pathlib import Path
import sys
from typing import Any

from gkd.data import hashes

# To be raised when `seqio_source` or `tokenise` makes other rows of the same
# task, or when the key is composed in another way.
FORMAT = 2
_LIBRARIES = {"site-packages", "dist-packages"}


def source_hashes(task: Any, task_module: str) -> dict[str, str]:
  """{module: sha256 of its source file} of a task and of what it imports.

  Only modules of the project are followed: `gkd.text`, `gkd.tasks`, and what is
  no installed package. A module of metric functions alone does not count, for
  they leave nothing in a cache.
  """
  makers = [*task.preprocessors, task.postprocessor]
  waiting = {task_module} | {_module(f) for f in makers if f is not None}
  ignored = {_module(f) for f in task.predict_metric_fns} - waiting
  found = {}
  while waiting:
    name = waiting.pop()
    if name in found or name in ignored or not _is_project(name):
      continue
    if digest := source_hash(name):
      found[name] = digest
      waiting |= _imports(name)
  return dict(sorted(found.items()))


def source_hash(module: str) -> str | None:
  """sha256 of the source file of a module; None where there is none."""
  file = source_file(module)
  return hashes.file_hash(file) if file else None


def source_file(module: str) -> Path | None:
  """The file of a module, without running it; its package is run."""
  name = getattr(sys.modules.get(module), "__file__", None)
  if name is None:
    try:
      spec = importlib.util.find_spec(module)
    except Exception:  # the package above may raise whatever it likes
      return None
    name = spec.origin if spec else None
  return Path(name) if name and Path(name).is_file() else None


def arguments(task: Any, data_dir: str | None = None) -> dict[str, Any]:
  """Names and arguments of the steps of a task, as JSON.

  Args:
    task: a seqio task.
    data_dir: left out at the front of paths: the same files elsewhere are the
      same data.
  """
  source = task.source
  rows = getattr(source, "rows", getattr(source, "_dataset_fn", None))
  steps = [type(source).__name__, source, rows, *task.preprocessors]
  features = task.output_features.items()
  return {
    "steps": [_described(step, str(data_dir or "")) for step in steps],
    "features": {name: [f.add_eos, f.dtype.name] for name, f in features},
  }


def _described(value: Any, data_dir: str) -> Any:
  """A value as JSON that is the same in every process."""
  describe = functools.partial(_described, data_dir=data_dir)
  if isinstance(value, functools.partial):
    return [describe(v) for v in (value.func, value.args, value.keywords)]
  if isinstance(value, Mapping):
    return {str(k): describe(value[k]) for k in sorted(value, key=str)}
  if isinstance(value, list | tuple):
    return [describe(v) for v in value]
  if inspect.isroutine(value) or isinstance(value, type):
    return f"{value.__module__}:{value.__qualname__}"
  if isinstance(value, str | Path):
    return str(value).removeprefix(data_dir)
  text = repr(value)
  return type(value).__qualname__ if " at 0x" in text else text


def _module(function: Any) -> str:
  while isinstance(function, functools.partial):
    function = function.func
  return getattr(function, "__module__", None) or type(function).__module__


@functools.lru_cache(maxsize=1024)
def _is_project(name: str) -> bool:
  """Whether a module is code of the data: ours, or the user's own."""
  top = name.partition(".")[0]
  if top == "gkd":
    return name.startswith(("gkd.text.", "gkd.tasks."))
  if top in sys.stdlib_module_names or top == "__main__":
    return False
  try:
    spec = importlib.util.find_spec(top)
  except ValueError:  # a module that no file was read for
    return False
  if spec is None:
    return False
  places = [spec.origin or "", *(spec.submodule_search_locations or ())]
  return all(_LIBRARIES.isdisjoint(Path(place).parts) for place in places)


def _imports(name: str) -> Iterable[str]:
  """Names in the import statements of a module that may be modules."""
  file = source_file(name)
  package = name if file.stem == "__init__" else name.rpartition(".")[0]
  found = set()
  try:
    tree = ast.parse(file.read_bytes())
  except (SyntaxError, ValueError):  # compiled, or never imported
    return found
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        base = importlib.util.resolve_name("." * node.level + base, package)
      found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
  return found
