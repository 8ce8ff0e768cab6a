"""The cache that fits is found, and of several the newest."""

import os

from gkd.data import writer
from gkd.data.builder import lookup
from gkd.data.builder import staleness
from gkd.data.cache import Row
from gkd.text.vocabulary import ByteVocabulary

LENGTHS = {"inputs": 4, "targets": 4}


def make(path, **info):
  content = {
    "task": "toy",
    "split": "train",
    "lengths": LENGTHS,
    "overlong": "truncate",
    "vocabulary": ByteVocabulary(),
    **info,
  }
  writer.write_rows(path, [Row([1], [1], "p", "r")], content)
  return path


def find(folder, data_dir=None):
  spec = lookup.CacheSpec(
    task="toy",
    split="train",
    lengths=LENGTHS,
    vocabulary=ByteVocabulary(),
    cache_dir=folder,
    data_dir=data_dir,
  )
  return lookup.find(spec)


def test_the_newest_of_several_is_taken(tmp_path):
  """They differ in what only the task knows, such as sizes and seeds."""
  folders = [make(tmp_path / "toy" / f"train-{n}") for n in "bac"]
  for order in ((0, 1, 2), (2, 1, 0), (0, 2, 1)):
    for date, place in enumerate(order):
      os.utime(folders[place] / "info.json", (date, date))
    assert find(tmp_path) == str(folders[order[-1]])


def test_a_changed_raw_file_makes_a_cache_stale(tmp_path):
  (tmp_path / "x.gz").write_bytes(b"one")
  described = staleness.describe({"x.gz": tmp_path / "x.gz"})
  made = make(tmp_path / "toy" / "train-0", raw_files=described)
  assert find(tmp_path, tmp_path) == find(tmp_path) == str(made)
  (tmp_path / "x.gz").write_bytes(b"two")
  os.utime(tmp_path / "x.gz", (1, 1))
  assert find(tmp_path, tmp_path) is None
  assert find(tmp_path, tmp_path / "elsewhere") == str(made)


def test_folders_in_the_making_and_locks_are_no_caches(tmp_path):
  (tmp_path / "toy" / ".train-0.partial" / "cache").mkdir(parents=True)
  (tmp_path / "toy" / ".train-0.lock").write_text("")
  assert find(tmp_path) is None
