"""The key of a task holds its arguments and no places of this machine."""

import dataclasses
import functools
import importlib
import json
import subprocess
import sys
import types

import pytest

from gkd.data import hashes
from gkd.data.builder import cache_key
from gkd.text import postprocess


@dataclasses.dataclass(frozen=True)
class Family:
  terms: int
  operators: str = "+"


def rows(family, sizes, split, folder="/data/here"):
  raise AssertionError("only looked at")


def task(source=rows, steps=()):
  """As much of a seqio task as is looked at."""
  return types.SimpleNamespace(
    source=types.SimpleNamespace(rows=source),
    preprocessors=list(steps),
    output_features={},
    postprocessor=postprocess.strip,
    predict_metric_fns=[],
  )


def key(source=rows, data_dir=None, steps=()):
  found = json.dumps(cache_key.arguments(task(source, steps), data_dir))
  assert " at 0x" not in found
  return found


def test_arguments_of_source_and_steps_count():
  sizes = {"train": 10, "test": 3}
  partial = functools.partial
  made = key(partial(rows, Family(3), sizes))
  assert made == key(partial(rows, Family(3), dict(sizes)))
  others = [
    key(source)
    for source in (
      rows,
      partial(rows, Family(4), sizes),
      partial(rows, Family(3, "-"), sizes),
      partial(rows, Family(3), {**sizes, "train": 11}),
      partial(rows, Family(3), sizes, folder=[1, {"a": None}]),
      partial(rows, Family(3), sizes, folder=[1, {"a": 2}]),
      lambda split: None,
    )
  ]
  steps = [key(steps=s) for s in ([rows], [partial(rows, 1)], [key])]
  assert len({made, *others, *steps}) == 11
  # An object without a description of its own is named by its type.
  assert key(partial(rows, object())) == key(partial(rows, object()))


def test_the_place_of_the_data_does_not_count():
  here = functools.partial(rows, folder="/data/here/file.gz")
  there = functools.partial(rows, folder="/mnt/file.gz")
  assert key(here) != key(there)
  assert key(here, "/data/here") == key(there, "/mnt")


@pytest.fixture
def modules(tmp_path, monkeypatch):
  """A task's module with constants from elsewhere, and a package."""
  monkeypatch.syspath_prepend(str(tmp_path))
  files = {
    "own_task.py": (
      "import seqio\nfrom own_sizes import SIZE\nfrom own_package import task\n"
      "def later():\n  import own_torn\n"
    ),
    "own_sizes.py": "SIZE = 3\n",
    "own_torn.py": "print 'never imported'\n",
    "own_package/__init__.py": "",
    "own_package/task.py": "def f():\n  from . import constants\nf()\n",
    "own_package/constants.py": "SEED = 0\n",
    "own_other.py": "",
  }
  for name, content in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
  importlib.import_module("own_task")
  importlib.import_module("own_other")
  yield
  for name in [n for n in sys.modules if n.startswith("own_")]:
    del sys.modules[name]


def test_modules_of_the_project_count_with_what_they_import(modules):
  found = cache_key.source_hashes(task(), "own_task")
  assert set(found) == {
    "gkd.text.chain_addition",
    "gkd.text.postprocess",
    "own_task",
    "own_sizes",
    "own_torn",
    "own_package",
    "own_package.task",
    "own_package.constants",
  }
  for name, digest in found.items():
    assert digest == hashes.file_hash(cache_key.source_file(name))


def test_a_module_of_metrics_alone_does_not_count(modules):
  other = task()
  sys.modules["own_other"].count = lambda targets, predictions: {}
  sys.modules["own_other"].count.__module__ = "own_other"
  other.predict_metric_fns = [sys.modules["own_other"].count]
  assert "own_other" not in cache_key.source_hashes(other, "own_task")
  assert "own_other" in cache_key.source_hashes(other, "own_other")


def test_a_module_is_found_without_being_run(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  (tmp_path / "some_module.py").write_text("raise RuntimeError\n")
  (tmp_path / "torn_package").mkdir()
  (tmp_path / "torn_package" / "__init__.py").write_text("1 / 0\n")
  importlib.invalidate_caches()
  found = cache_key.source_file("some_module")
  assert found == tmp_path / "some_module.py"
  assert cache_key.source_file("no_such_module") is None
  assert cache_key.source_file("torn_package.tasks") is None


def test_workers_and_readers_need_no_jax():
  """Each worker would start a second later and take 200 MB more."""
  code = (
    "import sys\n"
    "from gkd.data.builder import workers, lookup\n"
    "heavy = {'jax', 'flax', 'tensorflow', 'seqio'} & set(sys.modules)\n"
    "assert not heavy, heavy\n"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
