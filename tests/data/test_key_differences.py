"""What two keys disagree about, in words."""

import pytest

from gkd.data import key_differences


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    ({}, ""),
    ({"seed": 1}, "seed 0, not 1"),
    ({"prompts": {"split": "test"}}, "prompts.split train, not test"),
    ({"model": "b" * 64}, "model aaaaaaaaaaaa…, not bbbbbbbbbbbb…"),
    ({"limit": 8}, "limit none, not 8"),
    ({"seed": None, "top_k": 6}, "seed 0, not none; top_k 5, not 6"),
    (
      dict.fromkeys("abcdef", 1),
      "a none, not 1; b none, not 1; c none, not 1; d none, not 1; 2 more",
    ),
  ],
)
def test_differences_name_both_values(change, expected):
  prompts = {"split": "train"}
  key = {"seed": 0, "prompts": prompts, "top_k": 5, "model": "a" * 64}
  assert key_differences.describe(key, key | change) == expected
