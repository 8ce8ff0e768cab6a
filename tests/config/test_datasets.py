"""What a run trains on: one cache or several, named, listed or registered."""

import dataclasses
import importlib
import sys

import pytest

from gkd.config import datasets
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data.builder import build_cache
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError
from tests.data import tiny_caches

LENGTHS = {"inputs": 12, "targets": 4}
MODULE = """
import seqio
from gkd.tasks import features
from gkd.tasks import sources
from gkd.text import metrics
from gkd.text import postprocess

ROWS = {{"red": {red}, "blue": 2}}


def rows(name):
  return lambda split: (
    {{"inputs": f"{{name}} {{i}}", "targets": "x"}} for i in range(ROWS[name])
  )


def register(data_dir, vocabulary):
  for name in ROWS:
    features.add_task(
      name, sources.rows_source(rows(name), ("train", "test")), vocabulary,
      postprocess=postprocess.strip, metrics=[metrics.accuracy])
  if "colours" in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.remove("colours")
  seqio.MixtureRegistry.add(
    "colours", [(name, seqio.mixing_rate_num_examples) for name in ROWS])
"""


OWN_MODULE = """
import seqio
import tensorflow as tf

seqio.TaskRegistry.add(
  "own_greys",
  seqio.FunctionDataSource(
    lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensors(
      {"inputs": "a", "targets": "b"}), splits=("train",)),
  {name: seqio.Feature(seqio.ByteVocabulary(extra_ids=7))
   for name in ("inputs", "targets")},
  [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
)
seqio.MixtureRegistry.add("own_mixed", ["own_greys"], default_rate=2)
"""


@pytest.fixture
def folders(tmp_path):
  return Folders(data_dir="", cache_dir=str(tmp_path / "caches"))


@pytest.fixture
def named(tmp_path):
  return [tiny_caches.numbered(tmp_path / name, 5, task=name) for name in "ab"]


@pytest.fixture
def write_module(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "coloured", raising=False)
  # Code of the same size within a second: compiled code would be taken for it.
  monkeypatch.setattr(sys, "dont_write_bytecode", True)
  monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

  def write(red):
    (tmp_path / "coloured.py").write_text(MODULE.format(red=red))
    importlib.invalidate_caches()
    if "coloured" in sys.modules:
      importlib.reload(sys.modules["coloured"])

  return write


def make_data(**fields):
  common = {"task": "", "split": "train", "lengths": LENGTHS}
  return DataConfig(**{**common, "vocabulary": "bytes", **fields})


def contents(mixture):
  names = [cache.info["task"] for cache in mixture.caches]
  return dict(zip(names, mixture.rates, strict=True))


def test_folders_alone_have_equal_rates_and_a_dict_its_own(named, folders):
  paths = [str(cache.path) for cache in named]
  for cache, rates in (
    (paths[0], {"a": 1}),
    (paths, {"a": 1, "b": 1}),
    (dict(zip(paths, (3, 1.5), strict=True)), {"a": 2, "b": 1}),
  ):
    mixture = datasets.open_mixture(make_data(cache=cache), folders)
    assert contents(mixture) == rates


def test_several_caches_are_for_training(named, folders):
  paths = [str(cache.path) for cache in named]
  message = f"TRAIN_CACHE is a mixture, .*: {paths[0]}, {paths[1]}"
  with pytest.raises(UserError, match=message):
    datasets.open_cache(make_data(cache=paths), folders)
  data = make_data(task="x", mixture={"red": 1, "blue": 1})
  with pytest.raises(UserError, match=r"x is a mixture, .* parts: red, blue"):
    datasets.open_cache(data, folders)


def test_evaluation_on_training_rows_of_any_part_is_refused(named, folders):
  train = make_data(task="x", mixture={"red": 1, "blue": 1})
  evaluation = make_data(task="blue")
  message = "EVAL_SPLIT 'train' intersects TRAIN_SPLIT 'train' of task blue"
  with pytest.raises(UserError, match=message):
    datasets.check_split_names(train, [evaluation])
  mixture = datasets.open_mixture(
    make_data(cache=[str(cache.path) for cache in named]), folders
  )
  with pytest.raises(UserError, match="TRAIN_SPLIT 'train' of task b"):
    datasets.check_disjoint(mixture, named[1])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"mixture": {}}, "MIXTURE is empty; give tasks with their rates"),
    (
      {"mixture": {"a": 1}, "cache": "c"},
      "MIXTURE and TRAIN_CACHE 'c' are both given",
    ),
  ],
)
def test_contradicting_names_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    make_data(task="x", **fields)


def test_a_mixture_of_the_registry(write_module, folders, monkeypatch, caplog):
  pytest.importorskip("seqio")
  write_module(red=6)
  data = make_data(task="colours", module="coloured")
  mixture = datasets.open_mixture(data, folders)
  assert contents(mixture) == {"blue": 1, "red": 3}
  assert [len(cache) for cache in mixture.caches] == [2, 6]

  # Found again where nothing can be made.
  with monkeypatch.context() as patch:
    patch.setattr(build_cache, "find_or_build", None)
    patch.setitem(sys.modules, "gkd.tasks.mixtures", None)
    again = datasets.open_mixture(data, folders)
    assert contents(again) == contents(mixture)
    # The same by hand, and a task of it alone.
    by_hand = dataclasses.replace(data, mixture={"red": 3, "blue": 1})
    assert contents(datasets.open_mixture(by_hand, folders)) == {
      "blue": 1,
      "red": 3,
    }
    red = dataclasses.replace(data, task="red")
    assert contents(datasets.open_mixture(red, folders)) == {"red": 1}
    with pytest.raises(UserError, match=r"colours is a mixture, .*: blue, red"):
      datasets.open_cache(data, folders)

  # Another number of rows: caches and rates are made again, and that is said.
  caplog.set_level("INFO")
  write_module(red=4)
  changed = datasets.open_mixture(data, folders)
  assert contents(changed) == {"blue": 1, "red": 2}
  assert (
    "mixture.json is stale: the code of coloured has changed" in caplog.text
  )


def test_a_module_may_register_as_it_is_imported_with_a_vocabulary_of_its_own(
  folders, tmp_path, monkeypatch
):
  pytest.importorskip("seqio")
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "own_colours.py").write_text(OWN_MODULE)
  importlib.invalidate_caches()
  task = make_data(task="own_greys", module="own_colours", vocabulary="")
  mixed = dataclasses.replace(task, task="own_mixed")
  with pytest.raises(UserError, match=r"task 'x' .*'own_greys', 'own_mixed"):
    datasets.vocabulary_of(dataclasses.replace(task, task="x"), folders)
  for data in (mixed, task):
    assert datasets.vocabulary_of(data, folders).size == 266
    assert contents(datasets.open_mixture(data, folders)) == {"own_greys": 1}
  given = dataclasses.replace(task, vocabulary="bytes")
  with pytest.raises(UserError, match="another inputs vocabulary than VOCABUL"):
    datasets.open_mixture(given, folders)
  # Found again where nothing can be made.
  monkeypatch.setattr(build_cache, "_has_seqio", lambda: False)
  for data in (mixed, task):
    assert datasets.vocabulary_of(data, folders).size == 266
    assert contents(datasets.open_mixture(data, folders)) == {"own_greys": 1}
  with pytest.raises(UserError, match="VOCABULARY is empty; give"):
    datasets.vocabulary_of(dataclasses.replace(task, task="x"), folders)


def test_a_cache_of_another_vocabulary_is_named(named, folders, tmp_path):
  rows = [tiny_caches.Row([1], [1], "x", None)]
  other = tiny_caches.write(
    tmp_path / "c",
    rows,
    task="c",
    vocabulary=ByteVocabulary(extra_ids=1),
    written_by={"source": "teacher"},
  )
  paths = [str(cache.path) for cache in (*named, other)]
  data = make_data(cache=paths)
  message = (
    f"cache {other.path} was made with another vocabulary.* or read its text:"
    f" gkd cache export {other.path}"
  )
  with pytest.raises(UserError, match=message):
    datasets.open_mixture(data, folders)
