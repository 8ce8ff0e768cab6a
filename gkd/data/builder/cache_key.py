"""What a cache is made of: its key, and whether any of that has changed.

The key holds a format number, source files, arguments, raw files, split,
lengths and vocabulary; docs/data.md lists what is not noticed. Comparing it
later needs neither TensorFlow nor the task. What is not on this machine cannot
have changed: a cache that was copied here is used as it is.
"""

import ast
from collections.abc import Mapping
import functools
import importlib.machinery
import importlib.util
import inspect
import logging
import os
from pathlib import Path
import sys
from typing import Any

from gkd.data import hashes

# Once in a process: a command looks for the same cache several times.
_log_once = functools.cache(logging.getLogger("gkd").info)
# To be raised when `seqio_source` or `tokenise` makes other rows of the same
# task, or when the key is composed in another way.
FORMAT = 3
_LIBRARIES = {"site-packages", "dist-packages"}


def source_hashes(task: Any, task_module: str) -> dict[str, str]:
  """{module: sha256 of its source file} of a task and of what it imports.

  Only modules of the project are followed: `gkd.text`, `gkd.tasks`, and what is
  no installed package. A module of metric functions alone does not count, for
  they leave nothing in a cache.
  """
  makers = [*task.preprocessors, task.postprocessor]
  waiting = {task_module} | {_module(f) for f in makers if f is not None}
  ignored = {_module(f) for f in task.metric_fns} - waiting
  digests = {}
  while waiting:
    name = waiting.pop()
    if name in digests or name in ignored or not _is_project(name):
      continue
    if file := source_file(name):
      digests[name] = hashes.file_hash(file)
      waiting |= _imports(name, file)
  return dict(sorted(digests.items()))


def source_file(module: str) -> Path | None:
  """The file of a module, without running it; its package is run."""
  spec = _spec(module)
  file = Path(spec.origin) if spec and spec.origin else None
  return file if file and file.is_file() else None


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
    "steps": [_as_json(step, str(data_dir or "")) for step in steps],
    "features": {name: [f.add_eos, f.dtype.name] for name, f in features},
  }


def raw_file_states(raw_files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
  """{name: bytes, mtime_ns and sha256} of raw files, for info.json."""
  states = {}
  for name, path in sorted(raw_files.items()):
    stat = path.stat()
    state = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    states[name] = state | {"sha256": hashes.file_hash(path)}
  return states


def compare(
  info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> tuple[list[str], list[str]]:
  """Code and raw files of an info.json: what has changed, what is not here."""
  changed, missing = [], []
  if "sources" in info and info.get("key_format") != FORMAT:
    changed.append("the way in which gkd makes rows")
  for module, digest in info.get("sources", {}).items():
    file = source_file(module)
    if file is None:
      missing.append(f"the code of {module}")
    elif hashes.file_hash(file) != digest:
      changed.append(f"the code of {module}")
  for name, state in info.get("raw_files", {}).items():
    file = _raw_file(name, data_dir)
    if file is None:
      missing.append(f"its raw file {name}")
    elif not _has_state(file, state):
      changed.append(f"raw file {file}")
  return changed, missing


def is_fresh(
  path: Path, info: Mapping[str, Any], data_dir: str | os.PathLike | None
) -> bool:
  """Whether nothing has changed; logs what has, and what is not here."""
  changed, missing = compare(info, data_dir)
  for name in missing:
    _log_once("cache %s is used as it is: %s is not here", path, name)
  for name in changed[:1]:
    _log_once("cache %s is stale: %s has changed since", path, name)
  return not changed


def is_of_module(path: Path, info: Mapping[str, Any], task_module: str) -> bool:
  """Whether the task of a cache is one of this module; logs if it is not.

  Names of tasks are unique within a module alone. Installed packages are no
  source of a cache, and a cache without sources does not say.
  """
  sources = info.get("sources")
  if not (task_module and sources) or task_module in sources:
    return True
  if _spec(task_module) is not None and not _is_project(task_module):
    return True
  _log_once("cache %s is of another TASK_MODULE than %s", path, task_module)
  return False


def _raw_file(name: str, data_dir: str | os.PathLike | None) -> Path | None:
  """A raw file on this machine; outside of `data_dir` its name is its path."""
  file = Path(data_dir or "", name)
  is_placed = data_dir or file.is_absolute()
  return file if is_placed and file.is_file() else None


def _has_state(file: Path, state: Mapping[str, Any]) -> bool:
  stat = file.stat()
  return stat.st_size == state["bytes"] and (
    # Reading gigabytes at each start would be a waste.
    stat.st_mtime_ns == state["mtime_ns"]
    or _hash(file, stat.st_mtime_ns) == state["sha256"]
  )


@functools.lru_cache(maxsize=1024)
def _hash(file: Path, mtime_ns: int) -> str:
  """The hash of a file at that time: several caches share raw files."""
  return hashes.file_hash(file)


def _as_json(value: Any, data_dir: str) -> Any:
  """A value as JSON that is the same in every process."""
  as_json = functools.partial(_as_json, data_dir=data_dir)
  if isinstance(value, functools.partial):
    return [as_json(v) for v in (value.func, value.args, value.keywords)]
  if isinstance(value, Mapping):
    return {str(k): as_json(value[k]) for k in sorted(value, key=str)}
  if isinstance(value, list | tuple):
    return [as_json(v) for v in value]
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
  spec = _spec(top)
  if spec is None:
    return False
  places = [spec.origin or "", *(spec.submodule_search_locations or ())]
  return all(_LIBRARIES.isdisjoint(Path(place).parts) for place in places)


def _spec(module: str) -> importlib.machinery.ModuleSpec | None:
  try:
    return importlib.util.find_spec(module)
  # Of a module that no file was read for, or as the package above likes.
  except Exception:
    return None


def _imports(name: str, file: Path) -> set[str]:
  """Names in the import statements of a module that may be modules."""
  package = name if file.stem == "__init__" else name.rpartition(".")[0]
  names = set()
  try:
    tree = ast.parse(file.read_bytes())
  except (SyntaxError, ValueError):  # compiled, or never imported
    return names
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ""
      if node.level:
        base = importlib.util.resolve_name("." * node.level + base, package)
      names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
  return names
