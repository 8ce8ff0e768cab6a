"""What is said of seqio's numbers and ours; no TensorFlow is needed for it."""

import math
from types import SimpleNamespace

import pytest

from gkd.cli import seqio_check
from gkd.types import UserError

EVALUATION = SimpleNamespace(
  name="toy",
  split="test",
  label="",
  lengths={"inputs": 4, "targets": 4},
  metric_part="toy",
  cache=SimpleNamespace(path="c"),
)


def compare(theirs, ours):
  evaluator = SimpleNamespace(seqio_metrics=lambda *_: theirs)
  return seqio_check.compare(evaluator, [(EVALUATION, [[]])], ours)


def test_two_that_are_not_a_number_are_the_same():
  lines = compare({"bleu": math.nan}, {"eval/toy/bleu": float("nan")})
  assert lines == "seqio.Evaluator gives the same eval/toy/bleu: nan"


@pytest.mark.parametrize(
  ("ours", "message"),
  [
    ({"eval/toy/bleu": math.nan}, "bleu = 1.0 and gkd nan on the same"),
    ({}, "bleu = 1.0 and gkd has no such metric"),
  ],
)
def test_another_number_is_refused(ours, message):
  with pytest.raises(UserError, match=message):
    compare({"bleu": 1.0}, ours)
