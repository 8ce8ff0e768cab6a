"""Entries of EVAL_ALSO."""

import pytest

from gkd.config import records
from gkd.types import UserError

DATA = records.Data(
  task="gsm8k",
  split="test",
  module="gkd.tasks.arithmetic",
  lengths={"inputs": 4, "targets": 4},
  cache="/here",
)


def split_of(entry):
  """Module, task, split and cache of the entry beside `DATA`."""
  scoring = records.Scoring(data=DATA, also=(entry,), batch_size=1)
  first, second = scoring.splits
  assert first == DATA
  assert second.lengths == DATA.lengths
  return second.module, second.task, second.split, second.cache


@pytest.mark.parametrize(
  ("entry", "expected"),
  [
    ("svamp/test", (DATA.module, "svamp", "test", "")),
    ("x.y:svamp/test[:1%]", ("x.y", "svamp", "test[:1%]", "")),
    ("a/train+test[3:]", (DATA.module, "a", "train+test[3:]", "")),
    ("/caches/a", ("", "", "", "/caches/a")),
    ("~/caches/a", ("", "", "", "~/caches/a")),
    ("../a", ("", "", "", "../a")),
  ],
)
def test_entry_names_a_split_or_a_cache(entry, expected):
  assert split_of(entry) == expected


@pytest.mark.parametrize("entry", ["svamp", "a/", "a/b/c", "a b/c", "x:", ""])
def test_what_names_nothing_is_refused(entry):
  message = r"EVAL_ALSO has .*; expected 'task/split', 'module:task/split' or"
  with pytest.raises(UserError, match=message):
    split_of(entry)
