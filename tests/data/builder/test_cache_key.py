"""The key of a task holds its arguments and no places of this machine."""

import dataclasses
import functools
import importlib
import json
import sys
import types

import pytest

from gkd.data.builder import cache_key
from gkd.text import postprocess


@dataclasses.dataclass(frozen=True)
class Family:
  terms: int
  operators: str = "+"


def dataset(split, shuffle_files, seed=None):
  raise AssertionError("only looked at")


def task(source=dataset, steps=()):
  """As much of a seqio task as is looked at."""
  return types.SimpleNamespace(
    name="t",
    source=types.SimpleNamespace(_dataset_fn=source),
    preprocessors=list(steps),
    output_features={},
    postprocessor=postprocess.strip,
    predict_metric_fns=[],
  )


def key(source=dataset, data_dir=None, steps=()):
  found = cache_key.preprocessing(task(source, steps), data_dir)
  assert " at 0x" not in json.dumps(found)
  return found


def generator(family, sizes, seed, folder="/data/here"):
  def rows(split):
    return family, sizes, seed, folder

  def dataset_fn(split, shuffle_files):
    return rows(split)

  return dataset_fn


def test_arguments_of_a_generated_task_count():
  sizes = {"train": 10, "test": 3}
  made = key(generator(Family(3), sizes, 0))
  assert made == key(generator(Family(3), dict(sizes), 0))
  for other in (
    generator(Family(4), sizes, 0),
    generator(Family(3, "-"), sizes, 0),
    generator(Family(3), {**sizes, "train": 11}, 0),
    generator(Family(3), sizes, 1),
    functools.partial(dataset, seed=1),
    lambda split, shuffle_files, size=3: None,
  ):
    assert key(other) != made
  assert key(functools.partial(dataset, seed=1)) != key(
    functools.partial(dataset, seed=2)
  )


def test_the_place_of_the_data_does_not_count():
  here = generator(Family(3), {}, 0, "/data/here/file.gz")
  there = generator(Family(3), {}, 0, "/mnt/file.gz")
  assert key(here) != key(there)
  assert key(here, "/data/here") == key(there, "/mnt")


def test_steps_and_their_arguments_count():
  first = functools.partial(dataset, shuffle_files=[1, {"a": None}])
  second = functools.partial(dataset, shuffle_files=[1, {"a": 2}])
  keys = [key(steps=steps) for steps in ([first], [second], [dataset], [])]
  assert len({json.dumps(k) for k in keys}) == 4


def test_a_function_that_holds_itself_has_an_end():
  def recursive(split, shuffle_files):
    return recursive

  assert key(recursive) == key(recursive)


@pytest.fixture
def modules(tmp_path, monkeypatch):
  """A task's module with constants from elsewhere, and a package."""
  monkeypatch.syspath_prepend(str(tmp_path))
  files = {
    "own_task.py": "from own_sizes import SIZE\nfrom own_package import task\n",
    "own_sizes.py": "SIZE = 3\n",
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


def test_constants_from_other_modules_count(modules):
  found = cache_key.sources(task(), "own_task")
  own = {name for name in found if name.startswith("own_")}
  assert own == {
    "own_task",
    "own_sizes",
    "own_package",
    "own_package.task",
    "own_package.constants",
  }
  assert all(found[name] for name in own)


def test_the_code_that_makes_rows_counts(modules, monkeypatch):
  before = cache_key.sources(task(), "own_task")
  for name in ("gkd.data.builder.seqio_source", "gkd.data.builder.tokenise"):
    known = cache_key.hashes.source_hash(name)
    assert before[name] == known
    with monkeypatch.context() as patch:
      patch.setattr(cache_key.hashes, "source_hash", lambda module: "another")
      assert cache_key.sources(task(), "own_task")[name] == "another"
