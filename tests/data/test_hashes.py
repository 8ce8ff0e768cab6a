"""Content hashes of JSON."""

import hashlib
import json

from gkd.data import hashes


def test_a_content_hash_does_not_depend_on_the_order_of_keys():
  left = hashes.content_hash({"a": 1, "b": ["ä"]})
  assert left == hashes.content_hash({"b": ["ä"], "a": 1})
  text = json.dumps({"a": 1, "b": ["ä"]}, ensure_ascii=False)
  assert left == hashlib.sha256(text.encode()).hexdigest()
  assert left != hashes.content_hash({"b": ["ä"], "a": 2})
