"""Settings as JSON, and what is told of two that differ."""

import dataclasses
import json

import numpy as np

from gkd.structured_settings import differences
from gkd.structured_settings import setting
from gkd.structured_settings import to_json


@dataclasses.dataclass(frozen=True)
class Inner:
  size: int = 3
  names: tuple[str, ...] = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Outer:
  rate: float = setting("RATE", default=0.1)
  inner: Inner = setting("INNER", default_factory=Inner)
  prefixed: Inner = setting("EVAL_", default_factory=Inner, may_change=True)
  many: tuple[Inner, ...] = (Inner(),)
  function: object = len
  data: object = dataclasses.field(default=None, compare=False)


def shown(before, now):
  before = json.loads(json.dumps(to_json(before)))
  return [str(found) for found in differences(before, now, "TOP")]


def test_json_has_the_fields_that_compare():
  assert to_json(Outer(data=object())) == {
    "type": "Outer",
    "rate": 0.1,
    "inner": {"type": "Inner", "size": 3, "names": ["a", "b"]},
    "prefixed": {"type": "Inner", "size": 3, "names": ["a", "b"]},
    "many": [{"type": "Inner", "size": 3, "names": ["a", "b"]}],
    "function": "len",
  }
  assert to_json({"a": np.float32(0.5), "b": None}) == {"a": 0.5, "b": None}


def test_equal_settings_have_no_differences():
  assert shown(Outer(), Outer(data=1)) == []


def test_a_difference_has_the_users_name_and_both_values():
  other = Outer(0.2, Inner(4), Inner(5), (Inner(6),))
  assert shown(Outer(), other) == [
    "RATE: 0.1 → 0.2",
    "INNER.size: 3 → 4",
    "EVAL_SIZE: 3 → 5",
    "TOP.many.size: 3 → 6",
  ]
  found = differences(to_json(Outer()), other, "TOP")
  assert [one.may_change for one in found] == [False, False, True, False]


def test_records_of_other_classes_are_shown_whole():
  (line,) = shown(Inner(), Outer())
  assert line.startswith("TOP: Inner(size=3, names=['a', 'b']) → Outer(rate=0.")
  assert line.endswith("…")


def test_a_field_of_a_newer_version_had_its_default():
  before = to_json(Outer())
  del before["rate"]
  assert differences(before, Outer(), "") == []
  (found,) = differences(before, Outer(rate=0.2), "")
  assert str(found) == "RATE: not set → 0.2"
