"""Two names of splits, and whether they can share rows."""

import pytest

from gkd.data import split_names


@pytest.mark.parametrize(
  ("left", "right", "expected"),
  [
    ("train", "train", True),
    ("train", "validation", False),
    ("train[:90%]", "train[90%:]", False),
    ("train[:90%]", "train[80%:]", True),
    ("train[:100]", "train[100:200]", False),
    ("train[:101]", "train[100:200]", True),
    ("train[100:]", "train", True),
    ("train[:10]", "train[50%:]", True),
    ("train+validation", "validation", True),
    ("all", "test", True),
  ],
)
def test_splits_that_may_share_rows(left, right, expected):
  assert split_names.may_intersect(left, right) is expected
  assert split_names.may_intersect(right, left) is expected
