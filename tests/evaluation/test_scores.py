"""Scores of answers: values, majority, and metric functions of all kinds."""

import types

import numpy as np
import pytest

from gkd.evaluation import bootstrap
from gkd.evaluation import scores
from gkd.evaluation.bootstrap import Score
from gkd.text import metrics
from gkd.types import UserError


def _records(targets, texts, lengths=None):
  return [
    {
      "row": place,
      "reference": target,
      "prediction": text,
      "text": text,
      "length": 3 if lengths is None else lengths[place],
      "truncated": False,
    }
    for place, (target, text) in enumerate(zip(targets, texts, strict=True))
  ]


def _scores(answers, *metric_fns, resamples=0, with_target=None):
  """`with_target` are the rows that have one; None for all."""
  cache = types.SimpleNamespace(
    info={"has_targets": with_target is None},
    with_target=with_target,
    metric_fns=metric_fns,
  )
  measures = scores.measures(answers, cache)
  number = len(answers[0])
  return bootstrap.scores(measures, number, resamples=resamples, seed=0)


def test_values_are_exactly_those_of_the_metric_functions():
  targets = [["a cat sat", "the cat sat"], ["a dog ran"], ["it is up"]] * 5
  texts = ["the cat sat", "a dog", "up it is"] * 5
  functions = (metrics.rouge, metrics.bleu, metrics.exact_match)
  found = _scores([_records(targets, texts)], *functions, resamples=20)
  for function in functions:
    for name, value in function(targets, texts).items():
      assert found[name].value == value
      assert found[name].low <= value <= found[name].high


def test_objects_of_seqio_get_the_texts_as_the_model_wrote_them():
  def shortest(targets, texts):
    return {"shortest": min(map(len, texts))}

  draws = [
    [{**record, "text": text} for record in _records(["a", "b"], ["", ""])]
    for text in ("abc", "abcde")
  ]
  assert _scores(draws, shortest)["shortest"] == Score(4)


def test_the_second_argument_says_what_a_function_compares():
  def shortest(targets, predictions, scores=None, texts=None):
    return {"shortest": min(map(len, predictions))}

  assert _scores([_records(["a"], ["abc"])], shortest)["shortest"] == Score(3)


def test_two_metrics_of_one_name_are_refused():
  def own(targets, predictions):
    return {"accuracy": 1.0}

  cache = types.SimpleNamespace(
    with_target=[0],
    metric_fns=[metrics.accuracy, own],
    read=lambda places: [types.SimpleNamespace(reference="a")] * len(places),
    postprocess=lambda text, **kwargs: text,
  )
  message = "the task has 2 metrics of the name 'accuracy'; rename"
  with pytest.raises(UserError, match=message):
    scores.describe(cache, 1, 1)  # at start
  with pytest.raises(UserError, match=message):
    _scores([_records(["a"], ["a"])], metrics.accuracy, own)


def test_several_answers_are_scored_by_their_mean():
  targets = ["1", "2", "3", "4"]
  answers = [
    _records(targets, ["1", "2", "0", "0"], [1, 1, 1, 1]),
    _records(targets, ["1", "0", "0", "0"], [1, 2, 3, 4]),
  ]
  found = _scores(answers, metrics.accuracy)
  assert found["accuracy"] == Score(37.5)
  assert found["length"] == Score(1.75)


def test_majority_is_the_most_frequent_answer():
  targets = ["The answer is 4."] * 5
  columns = [
    ["is 4", "is 4.0", "is 5"],  # 4 and 4.0 are one answer
    ["is 5", "is 4", "is 5"],
    ["none", "none", "is 4"],  # what has no answer has no vote
    ["is 4", "is 5", "none"],  # a tie: the first drawn
    ["none", "none", "none"],
  ]
  answers = [
    _records(targets, list(texts)) for texts in zip(*columns, strict=True)
  ]
  found = _scores(answers, metrics.answer_accuracy, resamples=50)
  assert found["majority_accuracy"].value == 60.0
  assert found["accuracy"].value == pytest.approx(100 * 5 / 15)
  assert found["majority_accuracy"].low < 60.0 < found["majority_accuracy"].high


def test_one_answer_has_no_majority_and_texts_are_not_voted_on():
  one = _records(["1"], ["1"])
  assert "majority_accuracy" not in _scores([one], metrics.accuracy)
  assert not any("majority" in n for n in _scores([one, one], metrics.rouge))


def test_a_function_without_statistics_is_called_for_its_interval():
  calls = []

  def f1(targets, predictions):
    calls.append((targets, predictions))
    return {"f1": 100.0 * np.mean(np.equal(targets, predictions))}

  targets, texts = ["1"] * 20, ["1", "2"] * 10
  answers = [_records(targets, texts), _records(targets, texts[::-1])]
  found = _scores(answers, f1, resamples=1000)
  assert found["f1"].value == 50.0
  assert len(calls) == 2 * (1 + scores.CALLS)
  # The same resamples, taken by sums.
  reference = _scores(answers, metrics.accuracy, resamples=scores.CALLS)
  assert found["f1"] == pytest.approx(reference["accuracy"])


@pytest.mark.parametrize(
  ("allowed", "resamples", "num_calls", "score"),
  [
    (4, 1000, 5, Score(1.0, 1.0, 1.0)),
    (0, 1000, 1, Score(1.0)),
    (100, 2, 3, Score(1.0, 1.0, 1.0)),
  ],
)
def test_a_function_says_how_often_it_may_be_called(
  allowed, resamples, num_calls, score
):
  calls = []

  def dear(targets, predictions):
    calls.append(1)
    return {"dear": 1.0}

  dear.resamples = allowed
  records = [_records(["1"] * 3, ["1"] * 3)]
  assert _scores(records, dear, resamples=resamples)["dear"] == score
  assert len(calls) == num_calls


def test_long_resampling_says_which_function_takes_it(monkeypatch, capsys):
  monkeypatch.setattr(scores, "_QUIET_SECONDS", 0.0)

  def slow(targets, predictions):
    return {"slow": 1.0}

  _scores([_records(["1"], ["1"])], slow, resamples=3)
  assert "interval of slow, which has no statistics: 3/3" in (
    capsys.readouterr().err
  )


def test_metrics_and_intervals_are_of_the_rows_that_have_a_target():
  def f1(targets, predictions):
    return {"f1": 100.0 * np.mean(np.equal(targets, predictions))}

  kept = [row for row in range(40) if row % 4 != 1]
  targets = ["1" if row in kept else None for row in range(40)]
  lengths = [1 if row in kept else 9 for row in range(40)]
  draws = [_records(targets, x * 10, lengths) for x in (["1", "2"] * 2, "1221")]
  functions = (metrics.accuracy, f1)
  found = _scores(draws, *functions, resamples=50, with_target=kept)
  own = [[draw[row] for row in kept] for draw in draws]
  scored = _scores(own, *functions, resamples=50)
  assert 0 < found["accuracy"].low < found["accuracy"].high < 100
  for name in ("accuracy", "majority_accuracy", "f1"):
    assert found[name] == scored[name]
  assert found["length"].value == 3.0


def test_prompts_alone_have_lengths_only():
  records = [_records(["1"], ["1"])]
  found = _scores(records, metrics.accuracy, with_target=[])
  assert sorted(found) == ["length", "truncation_rate"]
