"""Rewards are the metrics of each text by itself, from 0 to 1."""

import numpy as np
import pytest
import sacrebleu

from gkd.rewards import reward as rewards
from gkd.rewards import text
from gkd.text import metrics
from gkd.types import UserError

REFERENCES = ["The cat sat down.", ["a dog ran", "the dog ran up"], "4"]
COMPLETIONS = ["The cat sat up.", "the dog ran up", "x 4"]


@pytest.mark.parametrize(
  ("reward", "metric", "name"),
  [
    (text.ExactAnswer(), metrics.accuracy, "accuracy"),
    (text.ExactAnswer("answer_accuracy"), metrics.answer_accuracy, "accuracy"),
    (text.Rouge(), metrics.rouge, "rouge2"),
    (text.Rouge("rougeLsum"), metrics.rouge_lsum, "rougeLsum"),
  ],
)
def test_a_reward_is_the_metric_of_one_text(reward, metric, name):
  found = rewards.compute(reward, [""] * 3, COMPLETIONS, REFERENCES)
  pairs = zip(REFERENCES, COMPLETIONS, strict=True)
  expected = [metric([r], [c])[name] / 100 for r, c in pairs]
  np.testing.assert_allclose(found, expected)
  assert 0 < found.sum() < 3


def test_bleu_is_that_of_sentences_with_effective_order():
  found = rewards.compute(text.Bleu(), [""] * 3, COMPLETIONS, REFERENCES)
  np.testing.assert_allclose(found[1], 1)
  for place in (0, 2):
    score = sacrebleu.sentence_bleu(COMPLETIONS[place], [REFERENCES[place]])
    assert 0 < found[place] == score.score / 100 < 1


def test_length_counts_words_beyond_the_most():
  found = rewards.compute(text.Length(2), [""] * 3, COMPLETIONS, [None] * 3)
  np.testing.assert_allclose(found, [-1, -1, 0])


@pytest.mark.parametrize("wrong", [[1.0], [1.0, np.nan, 0.0], [[1.0]] * 3])
def test_other_than_a_finite_number_for_each_text_is_refused(wrong):
  def own(prompts, completions, references):
    return wrong

  with pytest.raises(UserError, match=r"REWARD own gave \[.* for 3 completion"):
    rewards.compute(own, [""] * 3, COMPLETIONS, REFERENCES)


def test_a_missing_reference_is_said():
  with pytest.raises(UserError, match="REWARD compares with references, but"):
    rewards.compute(text.Rouge(), [""], ["a"], [None])
