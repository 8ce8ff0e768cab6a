"""Metrics from sums: the value of a resample is that of the resampled texts."""

import numpy as np
import pytest

from gkd.text import metrics
from gkd.text import statistics

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "down", "up", "it", ".", ","]
ANSWERS = ["The answer is 4.", "2+2 = 5. The answer is 5.", "no", "", "x 4"]
METRICS = {
  metrics.accuracy: ["4", "5", "", "no"],
  metrics.exact_match: ["a  b", "a b", " c", ""],
  metrics.answer_accuracy: ANSWERS,
  metrics.answer_accuracy_with_calculator: ANSWERS,
  metrics.bleu: None,
  metrics.bleu_international: None,
  metrics.rouge: None,
}


def _texts(generator, choices, number=30):
  """Targets of one to three references, and predictions half of them right."""

  def text():
    if choices:
      return str(generator.choice(choices))
    return " ".join(generator.choice(WORDS, generator.integers(3, 12)))

  targets, predictions = [], []
  for _ in range(number):
    target = [text() for _ in range(generator.integers(1, 4))]
    predictions.append(text() if generator.random() < 0.5 else target[-1])
    targets.append(target)
  return targets, predictions


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.__name__)
def test_a_resample_is_the_metric_of_the_resampled_texts(metric):
  generator = np.random.default_rng(0)
  targets, predictions = _texts(generator, METRICS[metric])
  found = metric.statistics(targets, predictions)
  # Exactly, not nearly: the table and the interval are about the same number.
  assert found.compute() == metric(targets, predictions)
  places = generator.integers(len(targets), size=(5, len(targets)))
  counts = np.stack([np.bincount(row, minlength=30) for row in places])
  resampled = found.resampled(counts.astype(float))
  assert resampled.keys() == metric(targets, predictions).keys()
  for number, row in enumerate(places):
    expected = metric([targets[i] for i in row], [predictions[i] for i in row])
    for name, value in expected.items():
      assert resampled[name][number] == pytest.approx(value, rel=1e-12)


def test_bleu_without_any_match_is_zero():
  assert metrics.bleu(["a b c d"], ["x y z w"]) == {"bleu": 0.0}
  assert metrics.bleu(["a b c d"], [""]) == {"bleu": 0.0}


def test_means_have_their_scale_and_names():
  found = statistics.means({"a": [1, 0, 0, 0], "b": [2, 4, 6, 8]}, scale=10)
  assert found.compute() == {"a": 2.5, "b": 50.0}
  # The last takes only two examples.
  counts = np.array([[0.0, 4, 0, 0], [2, 0, 0, 2], [1, 1, 0, 0]])
  resampled = found.resampled(counts)
  np.testing.assert_array_equal(resampled["a"], [0.0, 5.0, 5.0])
  np.testing.assert_array_equal(resampled["b"], [40.0, 50.0, 30.0])


def test_votes_are_counted_by_the_answer():
  assert metrics.accuracy.answer("4") == "4"
  text = "48/2 = 25. The answer is 25."
  assert metrics.answer_accuracy.answer(text) == "25"
  assert metrics.answer_accuracy_with_calculator.answer(text) == "24"
  assert metrics.answer_accuracy.answer("no number") == ""
