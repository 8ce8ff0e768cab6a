"""What a killed build leaves is continued, and only if it fits."""

import logging
import shutil

import numpy as np
import pytest

from gkd.data import shards
from gkd.data import writer
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.writer import CacheWriter
from gkd.text.vocabulary import ByteVocabulary
from gkd.types import UserError
from tests import child

KEY = {"model": "a", "seed": 0}


@pytest.fixture(autouse=True)
def _messages(caplog):
  caplog.set_level(logging.INFO, "gkd")


INFO = {
  "task": "toy",
  "split": "train",
  "lengths": {"inputs": 9, "targets": 4},
  "vocabulary": ByteVocabulary(),
}


def rows_of(shard, count=5):
  return [
    Row(
      np.arange(3, 4 + i + shard % 3, dtype=np.int32),
      np.arange(3, 4 + i % 4, dtype=np.int32),
      f"prompt {shard}-{i}",
      [i, f"ä{shard}"],
    )
    for i in range(count)
  ]


def build(path, count, key=KEY):
  """Adds what is missing of `count` shards; returns the ones added."""
  added = []
  with CacheWriter(path, key) as writer:
    for index in range(count):
      if index not in writer.finished:
        writer.add(index, rows_of(index))
        added.append(index)
    writer.finish(INFO)
  return added


def interrupted(path, done, key=KEY):
  """The folder of a build that stopped after these shards."""
  with CacheWriter(path, key) as writer:
    for index in done:
      writer.add(index, rows_of(index))
    assert writer.finished == dict.fromkeys(done, 5)
  return writer.folder


def files(path):
  return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_build_equals_what_write_rows_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(shards, "FIRST_ROWS", 5)
  rows = [row for index in range(3) for row in rows_of(index)]
  writer.write_rows(tmp_path / "a", rows, INFO)
  assert build(tmp_path / "b", 3) == [0, 1, 2]
  assert files(tmp_path / "a") == files(tmp_path / "b")
  cache = TokenCache(tmp_path / "b")
  assert cache.info["shards"] == [
    {"file": f"rows-{i:05d}.array_record", "rows": 5} for i in range(3)
  ]
  assert cache.info["longest"] == {"inputs": 7, "targets": 4}
  cache.verify()


def test_finished_shards_are_continued_in_any_order(tmp_path, caplog):
  build(tmp_path / "whole", 4)
  folder = interrupted(tmp_path / "c", [2, 0])
  # What a killed process was writing goes.
  kept = {file.name for file in folder.iterdir()}
  for name in (".00001-123", ".00001.json.123-4567.partial"):
    (folder / name).write_text("")
  with CacheWriter(tmp_path / "c", KEY):
    assert {file.name for file in folder.iterdir()} == kept
  assert not (tmp_path / "c").exists()
  assert build(tmp_path / "c", 4) == [1, 3]
  assert "10 rows are done" in caplog.text
  assert files(tmp_path / "c") == files(tmp_path / "whole")
  assert not (tmp_path / ".c.partial").exists()
  # The same next to a finished cache that is made anew, as it is damaged.
  interrupted(tmp_path / "c", [0, 2])
  assert build(tmp_path / "c", 4) == [1, 3]


@pytest.mark.parametrize("damage", ["flip", "cut", "no hashes", "no sidecar"])
def test_a_torn_shard_is_dropped(tmp_path, caplog, damage):
  build(tmp_path / "whole", 3)
  folder = interrupted(tmp_path / "c", [0, 1])
  shard = folder / shards.CACHE_FOLDER / shards.name(1)
  content = shard.read_bytes()
  if damage == "flip":
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  elif damage == "cut":
    shard.write_bytes(content[:-1])
  else:
    suffix = {"no hashes": ".npy", "no sidecar": ".json"}[damage]
    (folder / f"00001{suffix}").unlink()
  assert build(tmp_path / "c", 3) == [1, 2]
  said = "damaged shards 1 are made again" in caplog.text
  assert said == (damage != "no sidecar")
  assert files(tmp_path / "c") == files(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_shard_that_is_lost_leaves_the_old_cache_alone(tmp_path, damage):
  build(tmp_path / "c", 2)
  before = files(tmp_path / "c")
  with CacheWriter(tmp_path / "c", KEY) as writer:
    for index in range(2):
      writer.add(index, rows_of(index, count=3))
    shard = writer.folder / shards.CACHE_FOLDER / shards.name(1)
    content = shard.read_bytes()
    shard.unlink()
    if damage == "cut":
      shard.write_bytes(content[:-1])
    message = r"shard .*rows-00001.array_record (is missing|has \d+ bytes), not"
    with pytest.raises(UserError, match=message + r".*same command again"):
      writer.finish(INFO)
  assert files(tmp_path / "c") == before
  with CacheWriter(tmp_path / "c", KEY) as writer:
    assert list(writer.finished) == [0]


def test_another_key_starts_anew_or_is_refused(tmp_path, caplog):
  folder = interrupted(tmp_path / "c", [0, 1])
  before = files(folder / shards.CACHE_FOLDER)
  other = KEY | {"seed": 1}
  message = (
    rf"{folder} holds 10 finished rows made with seed 0, not 1; give the same"
    " settings again to go on, or delete that folder"
  )
  with (
    pytest.raises(UserError, match=message),
    CacheWriter(tmp_path / "c", other, spare=True),
  ):
    pass
  assert files(folder / shards.CACHE_FOLDER) == before
  assert build(tmp_path / "c", 2, other) == [0, 1]
  assert "thrown away: it was made with seed 0, not 1" in caplog.text
  interrupted(tmp_path / "d", [0])
  assert build(tmp_path / "d", 1, "text") == [0]
  assert "settings none, not text" in caplog.text


def test_without_a_key_nothing_is_left_to_continue(tmp_path):
  folder = interrupted(tmp_path / "c", [0], key=None)
  assert not folder.exists()
  # Nor is anything left of a build that had not finished a shard.
  assert not interrupted(tmp_path / "d", []).exists()


def test_killed_after_the_cache_was_moved_into_place(tmp_path, caplog):
  build(tmp_path / "c", 1)
  folder = interrupted(tmp_path / "d", [0])
  shutil.rmtree(folder / shards.CACHE_FOLDER)
  folder.rename(tmp_path / ".c.partial")
  with CacheWriter(tmp_path / "c", KEY) as writer:
    assert writer.exists
    assert not writer.finished
  assert not (tmp_path / ".c.partial").exists()
  assert "damaged" not in caplog.text


def test_one_build_at_a_time(tmp_path):
  with CacheWriter(tmp_path / "c", KEY) as writer:
    writer.add(0, rows_of(0))
    with pytest.raises(UserError, match=r"cache .*c is in use by process"):
      CacheWriter(tmp_path / "c", KEY).__enter__()
    assert writer.finished == {0: 5}


def test_counts_add_up_over_shards_and_a_kill(tmp_path):
  with CacheWriter(tmp_path / "c", KEY) as writer:
    writer.add(0, rows_of(0), {"cut": 2})
    writer.add(1, rows_of(1), {"cut": 1, "alone": 4})
  with CacheWriter(tmp_path / "c", KEY) as writer:
    assert writer.counts == {"cut": 3, "alone": 4}


def test_a_full_disk_is_one_line_and_leaves_the_finished_shards(
  tmp_path, monkeypatch
):
  def full(path, target):
    raise OSError(28, "No space left on device")

  with CacheWriter(tmp_path / "c", KEY) as writer:
    writer.add(0, rows_of(0))
    with monkeypatch.context() as patch:
      patch.setattr(shards.os, "replace", full)
      with pytest.raises(
        UserError,
        match=r"\(No space left on device\); its 1 finished shards stay",
      ):
        writer.add(1, rows_of(1))
      with pytest.raises(UserError, match=r"No space .* 1 finished shards"):
        writer.finish(INFO)
    assert writer.finished == {0: 5}
  assert build(tmp_path / "c", 2) == [1]


def test_records_that_do_not_fit_on_the_disk_are_noticed(tmp_path):
  """ArrayRecord itself reports it, at the end; a file limit stands for it."""
  code = """
    import itertools, resource, signal, sys
    from tests.data import test_writer as t

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with t.CacheWriter(sys.argv[1], t.KEY) as writer:
      resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
      try:
        writer.add(0, itertools.islice(itertools.cycle(t.rows_of(0)), 4000))
      except t.UserError as error:
        assert "File too large" in str(error), error
        print("refused", writer.finished)
  """
  assert child.run(code, tmp_path / "c") == "refused {}"
