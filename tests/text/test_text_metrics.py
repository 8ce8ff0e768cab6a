"""Metrics against hand counts and the libraries' own corpus functions."""

import sys

import numpy as np
import pytest
from rouge_score import rouge_scorer
import sacrebleu

from gkd.data import task_functions
from gkd.text import metrics
from gkd.text import postprocess
from gkd.text import solutions
from gkd.types import UserError


def test_accuracy_counts_equal_and_never_empty():
  assert metrics.accuracy(["1", "2", "", "4"], ["1", "3", "", "4"]) == {
    "accuracy": 50.0
  }
  assert metrics.accuracy([["a", "b"]], ["b"]) == {"accuracy": 100.0}


def test_exact_match_ignores_blanks_only():
  found = metrics.exact_match(["a  b", "a b"], [" a b ", "A b"])
  assert found == {"exact_match": 50.0}


def test_answer_accuracy_compares_numbers_not_spellings():
  targets = ["The answer is 1,200.", "The answer is 5."]
  predictions = ["2*$600 = $1200. The answer is $1200.00.", "The answer is"]
  assert metrics.answer_accuracy(targets, predictions) == {"accuracy": 50.0}


def test_choice_accuracy_compares_letters():
  targets = ["So 2. The answer is (b).", "(A)", ["(c)", "D"]]
  predictions = ["ANS:B", "no", "d)"]
  found = metrics.choice_accuracy(targets, predictions)
  assert found == {"accuracy": pytest.approx(200 / 3)}


def test_every_task_of_a_benchmark_counts_the_same():
  answers = ["a", "a", "a  b", "c"]
  targets = [
    {"task": task, "answer": answer}
    for task, answer in zip("xxxy", answers, strict=True)
  ]
  statistics = metrics.exact_match_over_tasks.statistics(
    targets, ["a", "b", "a b", "c"]
  )
  assert statistics.compute() == {
    "exact_match": pytest.approx(100 * (2 / 3 + 1) / 2)
  }
  # A resample may leave the rows of a task out.
  counts = np.array([[1.0, 3, 0, 0], [0, 0, 0, 4]])
  found = statistics.resampled(counts)["exact_match"]
  assert found.tolist() == [25, 100]
  exact = metrics.exact_match(targets, ["a", "b", "a b", "c"])
  assert exact == {"exact_match": 75}
  empty = [{"task": "x", "answer": ""}]
  assert metrics.exact_match_over_tasks(empty, [" "]) == {"exact_match": 0}


def test_an_answer_may_have_its_unit_in_the_reference():  # as in ASDiv
  found = metrics.answer_accuracy(["9 (apples)"], ["7+2 = 9. The answer is 9."])
  assert found == {"accuracy": 100}


def test_calculator_repairs_an_answer():
  targets = ["The answer is 24."]
  predictions = ["48/2 = 25. The answer is 25."]
  assert metrics.answer_accuracy(targets, predictions)["accuracy"] == 0.0
  found = metrics.answer_accuracy_with_calculator(targets, predictions)
  assert found == {"accuracy_with_calculator": 100.0}


def test_shares_are_in_per_cent_and_overlaps_have_no_unit():
  for name in ["accuracy", "exact_match", "answer_accuracy"]:
    assert getattr(metrics, name).unit == "%"
  assert metrics.answer_accuracy_with_calculator.unit == "%"
  assert metrics.bleu.unit == metrics.rouge.unit == ""


def test_bleu_is_sacrebleu_with_uneven_references():
  predictions = ["Tom wohnt hier .", "Ich habe gestern einen Hund gesehen."]
  targets = [["Tom lebt hier.", "Tom wohnt hier."], predictions[1]]
  streams = [["Tom lebt hier.", targets[1]], ["Tom wohnt hier.", None]]
  expected = sacrebleu.BLEU().corpus_score(predictions, streams).score
  assert metrics.bleu(targets, predictions)["bleu"] == pytest.approx(expected)
  assert expected > metrics.bleu(streams[0], predictions)["bleu"]


def test_international_bleu_is_t5s_call():
  predictions = ["„Das kostet 5€“, sagt er zu mir."]
  targets = ["„Das kostet 5 €“, sagte er zu mir."]
  expected = sacrebleu.corpus_bleu(
    predictions, [targets], smooth_method="exp", tokenize="intl"
  ).score
  found = metrics.bleu_international(targets, predictions)
  assert found["bleu_international"] == pytest.approx(expected)
  assert expected != pytest.approx(metrics.bleu(targets, predictions)["bleu"])


@pytest.mark.parametrize(
  ("target", "prediction", "expected"),
  [
    # 3 of 4 unigrams on each side, 2 of 3 bigrams, longest common sequence 3.
    ("the cat sat down", "the cat sat up", (75, 200 / 3, 75)),
    (["nothing shared", "a b c"], "a b c", (100, 100, 100)),
  ],
)
def test_rouge_is_the_f1_of_ngrams_shared_with_the_best_reference(
  target, prediction, expected
):
  found = metrics.rouge([target], [prediction])
  names = ("rouge1", "rouge2", "rougeL")
  assert found == pytest.approx(dict(zip(names, expected, strict=True)))


CHINESE, THAI = "我今天去了学校。", "ฉันไปโรงเรียน"
CYRILLIC = "Я иду в школу."


@pytest.mark.parametrize(
  ("name", "texts"),
  [
    ("bleu_zh", [CHINESE, CYRILLIC]),
    ("bleu_char", [CHINESE, THAI, CYRILLIC]),
    ("rouge_zh", [CHINESE, CYRILLIC]),
    ("rouge_char", [CHINESE, THAI, CYRILLIC]),
    ("rouge_intl", [CYRILLIC]),
  ],
)
def test_a_tokenizer_of_sacrebleu_is_chosen_by_the_name(name, texts):
  metric = task_functions.resolve(f"gkd.text.metrics:{name}", "a test", None)
  for text in texts:
    values = metric([text], [text])
    assert list(values.values()) == pytest.approx([100] * len(values))
    assert metric.keeps(text)
  family, _, tokenizer = name.partition("_")
  assert f"|tok:{tokenizer}|" in metric.signature([CHINESE])
  plain = getattr(metrics, family)
  assert plain.keeps("A word.")
  assert [plain.keeps(text) for text in (CHINESE, THAI, "!")] == [False] * 3
  assert metric.__name__ == name
  if family == "bleu":
    target, text = CHINESE * 2, CHINESE * 2 + "去"
    expected = sacrebleu.corpus_bleu([text], [[target]], tokenize=tokenizer)
    assert metric([target], [text]) == {name: pytest.approx(expected.score)}


def test_a_tokenizer_that_is_not_there_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "MeCab", None)
  with pytest.raises(AttributeError, match="rouge_TOKENIZER of 13a, char, fl"):
    metrics.bleu_klingon  # noqa: B018
  with pytest.raises(UserError, match=r"'ja-mecab' cannot be used here .*pip"):
    metrics.bleu_ja_mecab([CHINESE], [CHINESE])


def test_signatures_say_how_many_references_there_are():
  expected = sacrebleu.BLEU()
  expected.corpus_score(["a"], [["a"], ["b"]])
  assert metrics.bleu.signature([["a", "b"]]) == str(expected.get_signature())
  signature = metrics.rouge.signature(["a", ["b", "c"]])
  assert signature.startswith("nrefs:var|tok:rouge_score|stem:no|rouge_score:")


def test_rouge_lsum_is_t5s_over_sentences():
  target, text = "the cat sat . the dog ran .", "the dog ran . the cat sat ."
  scorer = rouge_scorer.RougeScorer(["rougeLsum"])
  lines = [x.replace(" . ", " .\n") for x in (target, text)]
  expected = 100 * scorer.score(*lines)["rougeLsum"].fmeasure
  found = metrics.rouge_lsum([target], [text])
  assert found == {"rougeLsum": pytest.approx(expected)}
  assert metrics.rouge([target], [text])["rougeL"] < expected


@pytest.mark.parametrize(
  "metric",
  [metrics.accuracy, metrics.bleu, metrics.rouge, metrics.answer_accuracy],
)
def test_unequal_numbers_of_rows_are_refused(metric):
  with pytest.raises(UserError, match="2 targets and 1 predictions"):
    metric(["a", "b"], ["a"])
  with pytest.raises(UserError, match="0 targets"):
    metric([], [])


def test_references_come_from_the_example_as_seqio_gives_it():
  example = {"references": np.array(["Größe ".encode(), b"b"], object)}
  assert postprocess.references("x", example, is_target=True) == ["Größe", "b"]
  assert postprocess.references(" x ", example, is_target=False) == "x"
  assert postprocess.references(" x ", {}, is_target=True) == ["x"]


def test_answer_of_a_chain_is_empty_when_there_is_none():
  assert postprocess.chain_answer("1+2=3;A3") == "3"
  assert postprocess.chain_answer("1+2=3;") == ""


def test_gsm8k_solution_becomes_one_plain_line():
  text = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May\n"
    "That is <<24+48=72>>72, 24 < 72 × ½.\n#### 1,072"
  )
  assert solutions.rewrite_solution(text) == (
    "Natalia sold 48/2 = 24 clips in May. That is 24+48 = 72, 24 is less than "
    "72 * 1/2. The answer is 1072."
  )
