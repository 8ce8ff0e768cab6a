"""What a seqio task is, as names and hashes: the key of its cache.

Looks at a task object and imports neither seqio nor TensorFlow.
"""

import ast
from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
import inspect
from pathlib import Path
import sys
import types
from typing import Any

from gkd.data import hashes
from gkd.errors import UserError

_LIBRARIES = {"site-packages", "dist-packages"}
# Modules that are not there where training and evaluation run.
_TF_SIDE = ("seqio", "t5", "tensorflow", "tensorflow_datasets")
# What makes the rows of every task.
_MAKERS = ("gkd.data.builder.seqio_source", "gkd.data.builder.tokenise")
_DEPTH = 8  # of arguments within arguments; a function may hold itself


def functions(task: Any) -> dict[str, Any]:
  """Names of the task's postprocess and metric functions."""
  if len(task.metric_objs) > len(task.metric_fns):
    raise UserError(
      f"task {task.name!r} has metric_objs, which need TensorFlow; give"
      " metric_fns(targets, predictions)"
    )
  post = task.postprocessor
  return {
    "postprocess": None if post is None else _dotted(post, task.name),
    "metrics": [_dotted(fn, task.name) for fn in task.predict_metric_fns],
  }


def preprocessing(task: Any, data_dir: str | None = None) -> dict[str, Any]:
  """What the tokens depend on, as JSON.

  Args:
    task: a seqio task.
    data_dir: left out wherever it occurs: the same files elsewhere are the same
      data.
  """
  describe = _Describer(str(data_dir) if data_dir else None)
  source = [type(task.source).__name__]
  if not _has_address(str(task.source)):
    source.append(str(task.source))
  # What generates rows has arguments, such as sizes and seeds.
  source.append(describe(getattr(task.source, "_dataset_fn", None)))
  return {
    "source": source,
    "preprocessors": [describe(p) for p in task.preprocessors],
    "features": {
      name: [feature.add_eos, feature.dtype.name]
      for name, feature in task.output_features.items()
    },
  }


def sources(task: Any, task_module: str) -> dict[str, str]:
  """Hashes of the source files that tokens and references depend on.

  These are the code that makes the rows of every task, the task's module, those
  of its preprocessors and postprocessor, and what they import, within
  `gkd.text`, `gkd.tasks` and the user's own code.
  Metric functions leave nothing in a cache, so a module of theirs alone does
  not count. Nor do installed libraries: finding their files would import them,
  and TensorFlow with them.
  """
  kept = [*task.preprocessors]
  kept += [task.postprocessor] if task.postprocessor else []
  waiting = {task_module} | {_module(f) for f in kept}
  found = {name: hashes.source_hash(name) for name in _MAKERS}
  ignored = {_module(f) for f in task.predict_metric_fns} - waiting
  while waiting:
    name = waiting.pop()
    if name not in found and name not in ignored and _is_own(name):
      found[name] = hashes.source_hash(name)
      waiting |= _imported(sys.modules[name]) | _imports(name)
  return dict(sorted(found.items()))


def _module(function: Callable[..., Any]) -> str:
  while isinstance(function, functools.partial):
    function = function.func
  return getattr(function, "__module__", None) or type(function).__module__


def _is_own(name: str) -> bool:
  """Whether a loaded module is code of the data, ours or the user's."""
  top = name.partition(".")[0]
  if top == "gkd":
    return name.startswith(("gkd.text.", "gkd.tasks."))
  file = getattr(sys.modules.get(name), "__file__", None)
  if file is None or top in sys.stdlib_module_names or top == "__main__":
    return False
  return _LIBRARIES.isdisjoint(Path(file).parts)


def _dotted(function: Callable[..., Any], task_name: str) -> str:
  """Name "module:name" of a function that evaluation can import by itself."""
  module = getattr(function, "__module__", None)
  name = getattr(function, "__qualname__", None)
  wrong = None
  if not inspect.isfunction(function) or not name.isidentifier():
    wrong = "is not a module-level function"
  elif getattr(inspect.getmodule(function), name, None) is not function:
    wrong = "cannot be found under its name in its module"
  elif _needs_tensorflow(inspect.getmodule(function)):
    wrong = "stands in a module that imports TensorFlow or seqio"
  if wrong:
    raise UserError(
      f"task {task_name!r}: {function!r} {wrong}; evaluation imports"
      " postprocess and metric functions by name and without TensorFlow: define"
      " it with def at the top level of such a module, as in gkd.text.metrics"
    )
  return f"{module}:{name}"


def _needs_tensorflow(module: types.ModuleType) -> bool:
  names = {module.__name__} | _imported(module)
  return any(name.partition(".")[0] in _TF_SIDE for name in names)


def _imported(module: types.ModuleType) -> set[str]:
  """Names of the modules that a module's global names come from."""
  return {
    v.__name__ if inspect.ismodule(v) else v.__module__
    for v in vars(module).values()
    if inspect.ismodule(v) or inspect.isfunction(v) or inspect.isclass(v)
  }


def _imports(name: str) -> set[str]:
  """Names of modules in the import statements of a module.

  Constants that come from there have no module of their own to tell.
  """
  file = hashes.source_file(name)
  if file is None or file.suffix != ".py":
    return set()
  package = getattr(sys.modules[name], "__package__", None) or ""
  found = set()
  for node in ast.walk(ast.parse(file.read_bytes())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      above = package.split(".")
      above = above[: len(above) - node.level + 1] if node.level else []
      base = ".".join([*above, *filter(None, [node.module])])
      found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
  return found & set(sys.modules)


class _Describer:
  """Values as JSON, the same in every process."""

  def __init__(self, data_dir: str | None):
    self._data_dir = data_dir

  def __call__(self, value: Any, depth: int = _DEPTH) -> Any:
    if not depth:
      return type(value).__qualname__
    inner = functools.partial(self, depth=depth - 1)
    if isinstance(value, str) and self._data_dir:
      return value.removeprefix(self._data_dir)
    if value is None or isinstance(value, bool | int | float | str):
      return value
    if isinstance(value, functools.partial):
      return [inner(value.func), inner(value.args), inner(value.keywords)]
    if isinstance(value, Mapping):
      return {str(k): inner(value[k]) for k in sorted(value, key=str)}
    if isinstance(value, list | tuple):
      return [inner(v) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
      fields = {
        f.name: getattr(value, f.name) for f in dataclasses.fields(value)
      }
      return [type(value).__qualname__, inner(fields)]
    if callable(value):
      return self._function(value, inner)
    return type(value).__qualname__

  def _function(self, value: Any, inner: Callable[[Any], Any]) -> Any:
    """Name, values it closes over, and defaults."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    bound = inspect.getclosurevars(value).nonlocals if _closes(value) else {}
    return [
      f"{getattr(value, '__module__', '')}:{name}",
      inner(bound),
      inner(getattr(value, "__defaults__", None)),
      inner(getattr(value, "__kwdefaults__", None)),
    ]


def _closes(value: Any) -> bool:
  return inspect.isfunction(value) and value.__closure__ is not None


def _has_address(text: str) -> bool:
  """Whether a text names an object in memory, which no other process has."""
  return " at 0x" in text
