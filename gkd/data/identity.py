"""What a seqio task is, as names and hashes: the key of its cache.

Looks at a task object and imports neither seqio nor TensorFlow.
"""

from collections.abc import Callable
from collections.abc import Mapping
import functools
import inspect
from pathlib import Path
import sys
import types
from typing import Any

from gkd.data import cache
from gkd.types import UserError

_LIBRARIES = {"site-packages", "dist-packages"}
# Modules that are not there where training and evaluation run.
_TF_SIDE = ("seqio", "t5", "tensorflow", "tensorflow_datasets")


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


def preprocessing(task: Any) -> dict[str, Any]:
  """What the tokens depend on, as JSON."""
  return {
    "source": [type(task.source).__name__, str(task.source)]
    if not _has_address(str(task.source))
    else [type(task.source).__name__],
    "preprocessors": [_describe(p) for p in task.preprocessors],
    "features": {
      name: [feature.add_eos, feature.dtype.name]
      for name, feature in task.output_features.items()
    },
  }


def sources(task: Any, task_module: str) -> dict[str, str]:
  """Hashes of the source files that tokens and references depend on.

  These are the task's module, those of its preprocessors and postprocessor, and
  what they import, within `gkd.text`, `gkd.tasks` and the user's own code.
  Metric functions leave nothing in a cache, so a module of theirs alone does
  not count. Nor do installed libraries: finding their files would import them,
  and TensorFlow with them.
  """
  kept = [*task.preprocessors]
  kept += [task.postprocessor] if task.postprocessor else []
  waiting = {task_module} | {_module(f) for f in kept}
  hashes: dict[str, str] = {}
  ignored = {_module(f) for f in task.predict_metric_fns} - waiting
  while waiting:
    name = waiting.pop()
    if name not in hashes and name not in ignored and _is_own(name):
      hashes[name] = cache.source_hash(name)
      waiting |= _imported(sys.modules[name])
  return dict(sorted(hashes.items()))


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


def _describe(value: Any) -> Any:
  """A function and the arguments bound to it, the same in every process."""
  if isinstance(value, functools.partial):
    return [
      _describe(value.func),
      [_describe(v) for v in value.args],
      {k: _describe(v) for k, v in sorted(value.keywords.items())},
    ]
  if isinstance(value, Mapping):
    return {str(k): _describe(v) for k, v in sorted(value.items())}
  if isinstance(value, list | tuple):
    return [_describe(v) for v in value]
  if callable(value):
    name = getattr(value, "__qualname__", type(value).__qualname__)
    bound = inspect.getclosurevars(value).nonlocals if _closes(value) else {}
    plain = {k: v for k, v in bound.items() if _is_plain(v)}
    return [f"{getattr(value, '__module__', '')}:{name}", plain]
  return value if _is_plain(value) else type(value).__qualname__


def _closes(value: Any) -> bool:
  return inspect.isfunction(value) and value.__closure__ is not None


def _is_plain(value: Any) -> bool:
  return value is None or isinstance(value, bool | int | float | str)


def _has_address(text: str) -> bool:
  """Whether a text names an object in memory, which no other process has."""
  return " at 0x" in text
