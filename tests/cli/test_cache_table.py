"""What `gkd cache list` says of whole, stale, damaged and half-made caches."""

import json
import os
import re

import numpy as np
import pytest

from gkd import locks
from gkd.cli import cache_table
from gkd.data import hashes
from gkd.data.builder import cache_key
from gkd.data.builder import mixture_rates
from gkd.data.cache import TokenCache
from gkd.data.writer import CacheWriter
from gkd.text.vocabulary import ByteVocabulary
from tests.data import tiny_caches

MODULE = "gkd.text.numbers"


@pytest.fixture
def raw(tmp_path):
  file = tmp_path / "raw" / "rows.txt"
  file.parent.mkdir()
  file.write_text("what it was made of")
  return file


@pytest.fixture
def cache_dir(tmp_path, raw):
  """A cache of a task, with the code and the raw file behind it."""
  one = np.ones(2, np.int32)
  tiny_caches.write(
    tmp_path / "caches" / "toy" / "train-0",
    [tiny_caches.Row(one, one, str(i), None) for i in range(1200)],
    vocabulary=ByteVocabulary(extra_ids=3),
    key_format=cache_key.FORMAT,
    sources={MODULE: hashes.file_hash(cache_key.source_file(MODULE))},
    raw_files=cache_key.raw_file_states({raw.name: raw}),
    truncated_inputs=0,
    truncated_targets=2,
  )
  return tmp_path / "caches"


def listed(cache_dir, data_dir=""):
  return "\n".join(cache_table.entries(cache_dir, str(data_dir)))


def test_an_entry_has_what_one_wants_to_know(cache_dir, raw):
  path = cache_dir / "toy" / "train-0"
  os.utime(path / "prompts.npy", (0, 0))
  size = sum(f.stat().st_size for f in path.iterdir())
  size -= (path / "info.json").stat().st_size
  text = listed(cache_dir, raw.parent)
  assert text.splitlines()[0] == "toy train: fresh"
  for part in (
    "1,200 rows",
    "inputs 2/5, targets 2/4 (2 rows cut)",
    "vocabulary bytes, 262 ids (3 extra)",
    f"{size / 1000:.3g} kB on disk",
    str(path),
  ):
    assert part in text
  assert re.search(r"made (1969-12-31|1970-01-01) \d\d:\d\d", text)


def test_raw_files_that_nobody_noted_are_said(cache_dir):
  path = cache_dir / "toy" / "train-0" / "info.json"
  info = json.loads(path.read_text())
  path.write_text(json.dumps({**info, "raw_files": {}}))
  assert "toy train: code fresh, raw files not tracked" in listed(cache_dir)
  path.write_text(json.dumps({**info, "raw_files": {}, "generated": True}))
  assert "toy train: fresh" in listed(cache_dir)


def test_what_made_it_stale_is_named(cache_dir, raw, monkeypatch):
  raw.write_text("something else")
  assert "toy train: fresh" in listed(cache_dir)  # not here: it stands for it
  text = listed(cache_dir, raw.parent)
  assert f"toy train: STALE, raw file {raw} has changed" in text
  monkeypatch.setattr(cache_key.hashes, "file_hash", lambda file: "another")
  assert f"STALE, the code of {MODULE} has changed" in listed(cache_dir)


def test_a_torn_file_is_damage(cache_dir):
  shard = next((cache_dir / "toy" / "train-0").glob("rows-*"))
  shard.write_bytes(shard.read_bytes()[:-1])
  text = listed(cache_dir)
  assert "toy train-0: DAMAGED" in text
  assert f"{shard.name} has" in text


def test_how_far_a_half_made_cache_is(cache_dir):
  one = np.ones(1, np.int32)
  row = tiny_caches.Row(one, one, "x", None)
  with CacheWriter(cache_dir / "toy" / "test-1", {"a": 1}) as writer:
    writer.add(0, [row] * 3)
    writer.add(1, [row] * 2)
    text = listed(cache_dir)
    assert f"toy test-1: in the making by process {os.getpid()}" in text
    assert "5 rows in 2 shards are done" in text
    assert "goes on from there" not in text
  text = listed(cache_dir)
  assert "toy test-1: HALF-MADE, nobody is at it" in text
  assert "5 rows in 2 shards are done; the command that was stopped" in text
  # The lock that asks did not take it away.
  with locks.hold(cache_dir / "toy" / ".test-1.lock", "it"):
    assert "in the making" in listed(cache_dir)


def test_completions_say_who_wrote_them(tmp_path):
  one = np.ones(1, np.int32)
  written_by = {
    "source": "teacher",
    "checkpoint": "runs/big",
    "temperature": 0.7,
    "top_k": 40,
    "top_p": 1.0,
    "num_samples": 4,
    "seed": 0,
    "truncated": 1234,
    "missing": None,
  }
  rows = [tiny_caches.Row(one, one[:0], "x", None)]
  cache = tiny_caches.write(tmp_path / "c", rows, written_by=written_by)
  text = cache_table.entry(cache, "")
  assert text.splitlines()[0] == "toy train: complete"
  assert "1 prompts alone" in text
  assert (
    "targets written by the teacher, checkpoint runs/big, temperature 0.7,"
    " top-k 40, 4 a prompt, seed 0, 1,234 cut without EOS"
  ) in text
  assert cache_table.entry(cache, "", verified=True).startswith(
    "toy train: sound, every byte was read\n"
  )


def test_a_mixture_is_listed_with_its_rates(cache_dir, raw):
  cache = TokenCache(cache_dir / "toy" / "train-0")
  mixture_rates.write(
    cache_dir, "mix", {"toy": 3.0, "b": 0.5}, [cache], "train"
  )
  text = listed(cache_dir, raw.parent)
  assert "mixture mix: fresh\n  rates toy 3, b 0.5" in text
  raw.write_text("something else")
  assert "mixture mix: STALE" in listed(cache_dir, raw.parent)


def test_sizes_are_short():
  sizes = (7, 999, 1_000, 48_612_345, 2.5e11, 3e12)
  texts = ["7 bytes", "999 bytes", "1 kB", "48.6 MB", "250 GB", "3 TB"]
  assert list(map(cache_table._format_bytes, sizes)) == texts


def test_caches_are_found_in_folders_of_folders(cache_dir):
  path = cache_dir / "toy" / "train-0"
  for place in (cache_dir, cache_dir / "toy", path):
    assert cache_table.cache_folders(place) == [path]
  assert cache_table.cache_folders(cache_dir / "none") == []


def test_tokenizers_and_files_on_their_way_are_no_caches(cache_dir):
  text = listed(cache_dir)
  (cache_dir / "models" / "tokenizer-0123456789ab").mkdir(parents=True)
  (cache_dir / "toy" / ".mixture.json.1-2.partial").write_text("")
  assert listed(cache_dir) == text
