"""Content hashes, and the difference of two keys in words."""

import hashlib
import json

import pytest

from gkd.data import hashes

KEY = {"seed": 0, "prompts": {"split": "train", "hash": "a" * 64}, "top_k": 5}


def test_a_content_hash_does_not_depend_on_the_order_of_keys():
  left = hashes.content_hash({"a": 1, "b": ["ä"]})
  assert left == hashes.content_hash({"b": ["ä"], "a": 1})
  text = json.dumps({"a": 1, "b": ["ä"]}, ensure_ascii=False)
  assert left == hashlib.sha256(text.encode()).hexdigest()
  assert left != hashes.content_hash({"b": ["ä"], "a": 2})


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    ({}, ""),
    ({"seed": 1}, "seed 0, not 1"),
    (
      {"prompts": KEY["prompts"] | {"split": "test"}},
      "prompts.split train, not test",
    ),
    (
      {"prompts": KEY["prompts"] | {"hash": "b" * 64}},
      "prompts.hash aaaaaaaaaaaa…, not bbbbbbbbbbbb…",
    ),
    ({"limit": 8}, "limit none, not 8"),
    ({"seed": None, "top_k": 6}, "seed 0, not none; top_k 5, not 6"),
    (
      dict.fromkeys("abcdef", 1),
      "a none, not 1; b none, not 1; c none, not 1; d none, not 1; 2 more",
    ),
  ],
)
def test_differences_name_both_values(change, expected):
  assert hashes.differences(KEY, KEY | change) == expected
