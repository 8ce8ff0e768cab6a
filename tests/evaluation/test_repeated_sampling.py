"""pass@k against all choices of k answers, Self-BLEU against sacreBLEU."""

import itertools

import numpy as np
import pytest
import sacrebleu

from gkd.evaluation import repeated_sampling
from gkd.text import metrics


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_pass_at_k_is_the_share_of_choices_with_a_right_answer(number):
  rng = np.random.default_rng(number)
  targets = ["1"] * 20
  draws = [
    list(rng.choice(["1", "2"], 20, p=[0.3, 0.7])) for _ in range(number)
  ]
  each = [metrics.accuracy.statistics(targets, texts) for texts in draws]
  found = repeated_sampling.pass_at_k(each).compute()
  is_right = np.array(draws) == "1"  # [n, N]
  expected = {}
  for k in {2, 4, number} & set(range(number + 1)):
    chosen = itertools.combinations(range(number), k)
    passed = [is_right[list(one)].any(axis=0).mean() for one in chosen]
    expected[f"pass_at_{k}_accuracy"] = pytest.approx(100 * np.mean(passed))
  assert found == expected
  shares = [100 * is_right.mean(), *found.values()]
  assert shares == sorted(shares)


def test_self_bleu_is_sacrebleus_of_each_answer_against_the_others():
  draws = [
    ["the cat sat on the mat", "a dog", ""],
    ["the cat sat on a mat", "a dog", ""],
    ["a bird flew over the house", "a dog", ""],
  ]
  found = repeated_sampling.self_bleu(draws)
  cats = [texts[0] for texts in draws]
  expected = [
    sacrebleu.sentence_bleu(text, cats[:place] + cats[place + 1 :]).score
    for place, text in enumerate(cats)
  ]
  assert found.of_sums(found.values)["self_bleu"] == pytest.approx(
    [np.mean(expected), 100, 100]
  )
  assert 10 < np.mean(expected) < 90
