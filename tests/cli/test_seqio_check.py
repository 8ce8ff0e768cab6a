"""What is said of seqio's numbers and ours; no TensorFlow is needed for it."""

import math
from types import SimpleNamespace

import pytest

from gkd.cli import seqio_check
from gkd.types import UserError


@pytest.fixture
def words():
  """What is said if seqio found these metrics and we found those."""

  def words(theirs, ours):
    comparison = object.__new__(seqio_check.Comparison)
    evaluation = SimpleNamespace(
      name="toy",
      split="test",
      label="",
      lengths={},
      metric_part="toy",
      cache=SimpleNamespace(path="c"),
    )
    comparison._answered = [seqio_check._Answered(evaluation, [])]
    comparison._evaluator = SimpleNamespace(seqio_metrics=lambda *_: theirs)
    return comparison.compare(ours)

  return words


def test_two_that_are_not_a_number_are_the_same(words):
  said = words({"bleu": math.nan}, {"eval/toy/bleu": float("nan")})
  assert said == "seqio.Evaluator gives the same eval/toy/bleu: nan"


def test_another_number_is_refused(words):
  with pytest.raises(UserError, match=r"bleu = 1.0 and gkd nan on the same"):
    words({"bleu": 1.0}, {"eval/toy/bleu": math.nan})


def test_a_metric_that_we_lack_is_one_line(words):
  with pytest.raises(UserError, match=r"bleu = 1.0 and gkd has no such metric"):
    words({"bleu": 1.0}, {})
