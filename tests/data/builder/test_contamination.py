"""Prompts that stand twice, found by their text."""

import numpy as np
import pytest

from gkd.data.builder import contamination
from tests.data import tiny_caches


@pytest.fixture
def write(tmp_path):
  def write(prompts):
    one = np.ones(1, np.int32)
    rows = [tiny_caches.Row(one, one, prompt, None) for prompt in prompts]
    return tiny_caches.write(tmp_path / "".join(prompts)[:9], rows)

  return write


def test_within_a_cache_the_first_of_each_does_not_count(write):
  assert contamination.within(write("abacab")) == (2, 3, "'a', 'b'")
  assert contamination.within(write("pq")) == (0, 0, "")
  long = contamination.within(write(["z" * 100] * 2))
  assert long.quoted == repr("z" * 59 + "…")


def test_between_caches_rows_are_those_of_the_second(write):
  left, right = write("abacab"), write(["x", " b ", "c", "c", "y", "x"])
  assert contamination.shared(left, right) == (2, 3, "'b', 'c'")
  assert contamination.shared(right, left)[:2] == (2, 3)
  assert contamination.shared(left, left)[:2] == (3, 6)
  assert contamination.shared(left, write("pq")) == (0, 0, "")
