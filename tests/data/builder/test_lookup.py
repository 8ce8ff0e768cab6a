"""The cache that fits is found, and of several the newest."""

import os

import pytest

from gkd.data import hashes
from gkd.data.builder import cache_key
from gkd.data.builder import lookup
from gkd.text.data_files import DataFiles
from gkd.text.vocabulary import ByteVocabulary
from tests.data import tiny_caches
from tests.data.tiny_caches import LENGTHS


def make(path, **info):
  tiny_caches.numbered(path, 2, overlong="truncate", **info)
  return path


def find(folder, **changes):
  fields = {
    "task": "toy",
    "split": "train",
    "lengths": LENGTHS,
    "vocabulary": ByteVocabulary(),
    "cache_dir": folder,
    **changes,
  }
  return lookup.find(lookup.CacheSpec(**fields))


@pytest.mark.parametrize(
  "change",
  [
    {"task": "other"},
    {"split": "test"},
    {"lengths": {**LENGTHS, "inputs": 13}},
    {"vocabulary": ByteVocabulary(extra_ids=1)},
    {"overlong": "refuse"},
  ],
)
def test_find_returns_only_what_fits(tmp_path, change, caplog):
  made = make(tmp_path / "toy" / "train-0")
  assert find(tmp_path) == str(made)
  assert find(tmp_path, **change) is None
  (made / "info.json").unlink()
  assert find(tmp_path) is None
  assert "incomplete cache" in caplog.text


@pytest.mark.parametrize(
  ("sources", "module", "fits"),
  [
    (["gkd.tasks.arithmetic"], "gkd.tasks.arithmetic", True),
    (["gkd.tasks.arithmetic"], "", True),
    (["mine", "gkd.tasks.arithmetic"], "gkd.tasks.arithmetic", True),
    (["gkd.tasks.arithmetic"], "gkd.tasks.translation", False),
    (["gkd.tasks.arithmetic"], "gkd.tasks.arithmetics", False),
    (["gkd.tasks.arithmetic"], "not a module", False),
    # A package's files are no sources, and a cache made by hand has none.
    (["gkd.tasks.arithmetic"], "numpy", True),
    ([], "gkd.tasks.translation", True),
  ],
)
def test_a_task_of_another_module_does_not_fit(
  tmp_path, caplog, sources, module, fits
):
  caplog.set_level("INFO")
  file = cache_key.source_file
  digests = {
    name: hashes.file_hash(file(name)) if file(name) else "0"
    for name in sources
  }
  about = {"sources": digests, "key_format": cache_key.FORMAT}
  made = make(tmp_path / "toy" / "train-0", **(about if sources else {}))
  assert find(tmp_path, task_module=module) == (str(made) if fits else None)
  assert ("is of another TASK_MODULE" in caplog.text) != fits


def test_another_file_of_ones_own_is_other_data(tmp_path):
  own = DataFiles(files=".", fields={"inputs": "a"})
  (tmp_path / "train.csv").write_text("a\nb\n")
  raw_files = cache_key.raw_file_states({"train.csv": tmp_path / "train.csv"})
  make(tmp_path / "toy/train-0", data_files=own.settings(), raw_files=raw_files)
  wanted = {"data_dir": tmp_path, "data_files": own}
  assert find(tmp_path, **wanted)
  (tmp_path / "train.jsonl").write_text('{"a": "c"}')
  assert find(tmp_path, **wanted) is None


def test_the_newest_of_several_is_taken(tmp_path):
  """They differ in what only the task knows, such as sizes and seeds."""
  folders = [make(tmp_path / "toy" / f"train-{n}") for n in "bac"]
  for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1)):
    for date, place in enumerate(order):
      os.utime(folders[place] / "info.json", (date, date))
    assert find(tmp_path) == str(folders[order[-1]])


def test_folders_in_the_making_and_locks_are_no_caches(tmp_path):
  (tmp_path / "toy" / ".train-0.partial" / "cache").mkdir(parents=True)
  (tmp_path / "toy" / ".train-0.lock").write_text("")
  assert find(tmp_path) is None
