"""Prompts that stand twice, found by their text."""

import collections

import numpy as np
import pytest

from gkd.data.builder import contamination
from tests.data import tiny_caches

LEFT = ["a", "b", "a", "c", "a", "b"]
RIGHT = ["x", " b ", "c", "c", "y", "x"]


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
  folder = tmp_path_factory.mktemp("caches")
  one = np.ones(1, np.int32)
  return [
    tiny_caches.write(
      folder / name, [tiny_caches.Row(one, one, p, None) for p in prompts]
    )
    for name, prompts in (("left", LEFT), ("right", RIGHT))
  ]


def test_within_a_cache_the_first_of_each_does_not_count(caches):
  counts = collections.Counter(LEFT)
  found = contamination.within(caches[0])
  assert found.prompts == sum(n > 1 for n in counts.values()) == 2
  assert found.rows == sum(n - 1 for n in counts.values()) == 3
  assert found.quoted == "'a', 'b'"


def test_between_caches_rows_are_those_of_the_second(caches):
  left, right = caches
  found = contamination.shared(left, right)
  assert (found.prompts, found.rows) == (2, 3)
  assert found.quoted == "'b', 'c'"
  found = contamination.shared(right, left)
  assert (found.prompts, found.rows) == (2, 3)
  found = contamination.shared(left, left)
  assert (found.prompts, found.rows) == (3, 6)


def test_nothing_found_has_no_examples(caches, tmp_path):
  one = np.ones(1, np.int32)
  rows = [tiny_caches.Row(one, one, text, None) for text in "pq"]
  other = tiny_caches.write(tmp_path / "c", rows)
  rows = [tiny_caches.Row(one, one, "z" * 100, None)] * 2
  long = contamination.within(tiny_caches.write(tmp_path / "d", rows))
  assert long.quoted == repr("z" * 59 + "…")
  for found in (
    contamination.within(other),
    contamination.shared(caches[0], other),
  ):
    assert found == (0, 0, "")
