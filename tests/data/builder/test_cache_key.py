"""The key of a task holds what its rows depend on, and a change is noticed."""

import dataclasses
import functools
import importlib
import json
import logging
import os
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


def task(source=rows, steps=(), metrics=()):
  """As much of a seqio task as is looked at."""
  return types.SimpleNamespace(
    source=types.SimpleNamespace(rows=source),
    preprocessors=list(steps),
    output_features={},
    postprocessor=postprocess.strip,
    metric_fns=list(metrics),
  )


def key(source=rows, data_dir=None, steps=()):
  text = json.dumps(cache_key.arguments(task(source, steps), data_dir))
  assert " at 0x" not in text
  return text


def test_arguments_of_source_and_steps_count():
  sizes = {"train": 10, "test": 3}
  partial = functools.partial
  first = key(partial(rows, Family(3), sizes))
  assert first == key(partial(rows, Family(3), dict(sizes)))
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
  assert len({first, *others, *steps}) == 11
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
    "own_other.py": "def count(targets, predictions):\n  return {}\n",
    "own_raising.py": "raise RuntimeError\n",
    "own_broken/__init__.py": "1 / 0\n",
  }
  for name, content in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
  importlib.invalidate_caches()
  importlib.import_module("own_task")
  yield tmp_path
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
  other = task(metrics=[importlib.import_module("own_other").count])
  assert "own_other" not in cache_key.source_hashes(other, "own_task")
  assert "own_other" in cache_key.source_hashes(other, "own_other")


def test_a_module_is_found_without_being_run(modules):
  found = cache_key.source_file("own_raising")
  assert found == modules / "own_raising.py"
  assert cache_key.source_file("no_such_module") is None
  assert cache_key.source_file("own_broken.tasks") is None


@pytest.fixture
def raw(tmp_path):
  """A raw file in a data directory, and the info of a cache made of it."""
  file = tmp_path / "data" / "sub" / "train.gz"
  file.parent.mkdir(parents=True)
  file.write_bytes(b"one\ntwo\n")
  info = {"raw_files": cache_key.raw_file_states({"sub/train.gz": file})}
  return tmp_path / "data", file, info


@pytest.fixture
def fresh(tmp_path, caplog):
  caplog.set_level(logging.INFO, "gkd")
  return functools.partial(cache_key.is_fresh, tmp_path / "cache")


def test_a_file_is_read_where_its_date_is_another_and_only_once(
  raw, fresh, monkeypatch
):
  data_dir, file, info = raw
  read = []
  digest = info["raw_files"]["sub/train.gz"]["sha256"]
  monkeypatch.setattr(
    hashes, "file_hash", lambda file: read.append(file) or digest
  )
  assert fresh(info, data_dir)
  assert read == []
  for date in (1, 2):
    os.utime(file, ns=(date, date))
    assert fresh(info, data_dir)
    assert fresh(info, data_dir)
    assert read == [file] * date


@pytest.mark.parametrize("content", [b"one\ntwO\n", b"one\n"])
def test_other_content_is_stale(raw, fresh, caplog, content):
  data_dir, file, info = raw
  file.write_bytes(content)
  os.utime(file, ns=(1, 1))
  assert not fresh(info, data_dir)
  assert f"stale: raw file {file} has changed since" in caplog.text


def test_changed_code_is_stale(fresh, caplog):
  module = "gkd.text.postprocess"
  digest = hashes.file_hash(cache_key.source_file(module))
  info = {"sources": {module: digest}, "key_format": cache_key.FORMAT}
  assert fresh(info, None)
  assert not fresh({**info, "sources": {module: "0"}}, None)
  assert "the code of gkd.text.postprocess has changed" in caplog.text
  assert not fresh({"sources": {module: digest}}, None)  # of an older key
  assert "the way in which gkd makes rows has changed" in caplog.text


def test_without_the_code_the_cache_stands_and_says_so_once(fresh, caplog):
  module = "no_such_tasks"
  info = {"sources": {module: "0"}, "key_format": cache_key.FORMAT}
  assert cache_key.compare(info, None) == ([], [f"the code of {module}"])
  for _ in range(2):
    assert fresh(info, None)
  message = f"is used as it is: the code of {module} is not here"
  assert caplog.text.count(message) == 1
  assert "is stale" not in caplog.text
