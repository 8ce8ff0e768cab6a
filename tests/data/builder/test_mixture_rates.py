"""Rates on disk are found without seqio, and not once their grounds changed."""

import json
import os

import pytest

from gkd.data import hashes
from gkd.data.builder import cache_key
from gkd.data.builder import mixture_rates
from tests.data import tiny_caches

RATES = {"a": 3.0, "b": 1.0}
MODULE = "gkd.text.numbers"


@pytest.fixture
def caches(tmp_path):
  """Each was made of a raw file of its own and of one module."""
  digest = hashes.file_hash(cache_key.source_file(MODULE))
  made = []
  for name in RATES:
    raw = tmp_path / "raw" / f"{name}.txt"
    raw.parent.mkdir(exist_ok=True)
    raw.write_text(name)
    cache = tiny_caches.numbered(tmp_path / name, 3, task=name)
    cache.info["sources"] = {MODULE: digest}
    cache.info["raw_files"] = cache_key.raw_file_states({raw.name: raw})
    made.append(cache)
  return made


def find(tmp_path, split=None):
  return mixture_rates.find(tmp_path, "mix", tmp_path / "raw", split)


def test_the_rates_of_a_split_are_found(tmp_path, caches):
  assert find(tmp_path) is None
  path = mixture_rates.write(tmp_path, "mix", RATES, caches, "train")
  assert path == tmp_path / "mix" / "mixture.json"
  assert find(tmp_path) == find(tmp_path, "train") == RATES
  assert find(tmp_path, "validation") is None


@pytest.mark.parametrize("name", ["a.txt", "b.txt"])
def test_a_changed_raw_file_of_any_cache_is_noticed(
  tmp_path, caches, name, caplog
):
  mixture_rates.write(tmp_path, "mix", RATES, caches, "train")
  raw = tmp_path / "raw" / name
  raw.write_text("c")
  os.utime(raw, ns=(1, 1))
  caplog.set_level("INFO")
  assert find(tmp_path) is None
  assert "mixture.json is stale: raw file" in caplog.text
  assert name in caplog.text


def test_changed_code_is_noticed(tmp_path, caches, caplog):
  caches[1].info["sources"] = {"gkd.text.metrics": "another hash"}
  mixture_rates.write(tmp_path, "mix", RATES, caches, "train")
  caplog.set_level("INFO")
  assert find(tmp_path) is None
  assert "is stale: the code of gkd.text.metrics has changed" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"format": 0})])
def test_a_file_that_says_nothing_is_passed_over(tmp_path, caches, content):
  mixture_rates.write(tmp_path, "mix", RATES, caches, "train").write_text(
    content
  )
  assert find(tmp_path) is None
