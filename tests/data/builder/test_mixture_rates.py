"""Rates on disk are found without seqio, and not once their grounds changed."""

import json

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


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
  ("field", "change", "message"),
  [
    (
      "raw_files",
      {"bytes": 7, "mtime_ns": 0, "sha256": "0"},
      "is stale: raw file",
    ),
    ("sources", "0", f"is stale: the code of {MODULE} has changed"),
  ],
)
def test_a_change_in_any_of_the_caches_is_noticed(
  tmp_path, caches, caplog, place, field, change, message
):
  (name,) = caches[place].info[field]
  caches[place].info[field] = {name: change}
  caches[1 - place].info[field] = {}
  mixture_rates.write(tmp_path, "mix", RATES, caches, "train")
  caplog.set_level("INFO")
  assert find(tmp_path) is None
  assert f"mixture.json {message}" in caplog.text
  assert name in caplog.text


@pytest.mark.parametrize(
  "content",
  ["", "[]", "{}", json.dumps({"format": 0}), json.dumps({"format": 2})],
)
def test_a_file_that_says_nothing_is_passed_over(tmp_path, caches, content):
  mixture_rates.write(tmp_path, "mix", RATES, caches, "train").write_text(
    content
  )
  assert find(tmp_path, "train") is None
