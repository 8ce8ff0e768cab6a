"""Functions of a task by the names that a cache has for them.

Evaluation and training import metric and postprocess functions by their names
and without TensorFlow. What stands in a module that imports it, or has no name
(a lambda, a partial, seqio's `metric_objs`), is taken from seqio's registry by
a child process, for which a cache names it "seqio:module:task:place".

  name = "seqio:my_tasks:qa:predictions/0/f1"
  resolve(name, "a cache", lambda: vocabulary)(targets, answers)
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
import functools
import importlib
import inspect
import multiprocessing
import os
import re
import signal
import sys
import threading
import traceback
import types
from typing import Any

from gkd.errors import UserError
from gkd.quiet_import import QuietImport
from gkd.text.vocabulary import Vocabulary

PREFIX = "seqio:"
# What is not installed where training and evaluation run.
_TENSORFLOW = ("seqio", "t5", "tensorflow", "tensorflow_datasets")
# What imports TensorFlow: never imported by name where this module is.
_SERVER = "gkd.tasks.functions"
_children: dict[tuple[str, str], "_Child"] = {}


def resolve(
  name: str, owner: str, vocabulary: Callable[[], Vocabulary]
) -> Callable[..., Any]:
  """The function called "package.module:function"; `owner` needs it.

  One that needs TensorFlow runs in a process of its own, which has to know the
  vocabulary.
  """
  if name.startswith(PREFIX):
    module, task, place = _parts(name)
    if (module, task) not in _children:
      _children[module, task] = _Child(module, task, vocabulary())
    return _with_arguments(place, _children[module, task].call)
  module, _, function = name.partition(":")
  try:
    return getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError) as error:
    raise UserError(
      f"{owner} needs the function {name!r}, which cannot be imported"
      f" ({error}); install its package or make the cache again"
    ) from error


def resolve_here(name: str, vocabulary: Vocabulary) -> Callable[..., Any]:
  """The same in this process, which may import TensorFlow."""
  module, task, place = _parts(name)
  server = importlib.import_module(_SERVER)
  found = server.find(module, task, vocabulary)
  return _with_arguments(place, functools.partial(server.call, found))


def keep_text(text: str, example: Any = None, is_target: bool = False) -> str:
  """What seqio does without a postprocess_fn."""
  del example, is_target
  return text


def name_of(function: Callable[..., Any], where: str) -> str:
  """By what `resolve` finds a function: its own name, or its place in a task.

  Args:
    function: a function, a partial, or an object that is called.
    where: "module:task:kind/index".
  """
  if name := _importable(function):
    return name
  # The function of a partial; the class of an object.
  named = getattr(function, "func", function)
  return f"{PREFIX}{where}/{getattr(named, '__name__', type(named).__name__)}"


def packages(info: Mapping[str, Any]) -> dict[str, str]:
  """{function that a cache names: package that it is of}."""
  names = filter(None, [info["postprocess"], *info["metrics"]])
  return {n: re.split("[.:]", n.removeprefix(PREFIX))[0] for n in names}


def _importable(function: Callable[..., Any]) -> str | None:
  """The name by which a function is imported without TensorFlow, if it is."""
  name = getattr(function, "__qualname__", "")
  module = inspect.getmodule(function)
  importable = (
    inspect.isfunction(function)
    and getattr(module, name, None) is function
    and not _needs_tensorflow(module)
  )
  return f"{function.__module__}:{name}" if importable else None


def _needs_tensorflow(module: types.ModuleType) -> bool:
  values = [module, *vars(module).values()]
  names = [v.__name__ for v in values if inspect.ismodule(v)]
  names += [
    v.__module__ for v in values if inspect.isfunction(v) or inspect.isclass(v)
  ]
  return any(name.partition(".")[0] in _TENSORFLOW for name in names)


def _parts(name: str) -> tuple[str, str, str]:
  module, _, rest = name.removeprefix(PREFIX).partition(":")
  task, _, place = rest.rpartition(":")  # a task may have a colon
  return module, task, place


def _with_arguments(place: str, call: Callable[..., Any]) -> Callable[..., Any]:
  """The function with the arguments by which evaluation knows what it takes."""
  kind, _, name = place.split("/")

  def postprocess(text, example=None, is_target=False):
    return call(place, text, example, is_target)

  def predictions(targets, predictions):
    return call(place, targets, predictions)

  def scores(targets, scores):
    return call(place, targets, scores)

  def texts(targets, texts):
    return call(place, targets, texts)

  function = locals()[kind]
  function.__name__ = name
  return function


class _Child:
  """The process, which ends with this one."""

  def __init__(self, module: str, task: str, vocabulary: Vocabulary):
    context = multiprocessing.get_context("spawn")
    self._near, far = context.Pipe()
    process = context.Process(
      target=_serve, args=(far, module, task, vocabulary), daemon=True
    )
    process.start()
    far.close()
    self._name = f"metrics of task {task!r} ({module}), which need TensorFlow"
    self._lock = threading.Lock()
    self._receive()

  def call(self, *request: Any) -> Any:
    with self._lock:
      return self._receive(request)

  def _receive(self, *requests: Any) -> Any:
    try:
      for request in requests:
        self._near.send(request)
      value, error = self._near.recv()
    except (EOFError, OSError) as end:  # OSError: it died before this request
      raise UserError(f"{self._name}: their process died; start again") from end
    if isinstance(error, UserError):
      raise UserError(f"{self._name}: {error}")
    if error is not None:
      raise RuntimeError(f"{self._name}:\n{error}")
    return value


def _serve(far: Any, module: str, task: str, vocabulary: Vocabulary) -> None:
  """Answers calls until the other side is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  sys.meta_path.insert(0, QuietImport("tensorflow"))
  import jax  # not by the workers that import this module

  # Accelerators are the models': TensorFlow would take all of their memory.
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  jax.config.update("jax_platforms", "cpu")

  def answer(function, *arguments):
    try:
      far.send((function(*arguments), None))
    except UserError as error:
      far.send((None, error))
    except ImportError as error:
      far.send((None, UserError(f"{error}; install it, or use another task")))
    except Exception:
      far.send((None, traceback.format_exc()))

  with contextlib.suppress(EOFError, OSError):
    calls: list[Callable[..., Any]] = []

    def start():
      server = importlib.import_module(_SERVER)
      found = server.find(module, task, vocabulary)
      calls.append(functools.partial(server.call, found))

    answer(start)
    while True:
      answer(calls[0], *far.recv())
