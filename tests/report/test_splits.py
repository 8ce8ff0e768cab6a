"""Scores on different rows never stand under one name."""

import pytest

from gkd.report import splits
from gkd.report.runs import Run


def _run(name, *tasks, predictions=(), **config):
  metrics = {f"eval/{task}/accuracy_ci_low": ([1], [2.0]) for task in tasks}
  metrics["train/loss"] = ([1], [3.0])
  texts = {key: [] for key in predictions}
  config = {macro: repr(value) for macro, value in config.items()}
  return Run(name, name, metrics, config, "", texts, [])


def _tasks(runs):
  return [
    sorted({n.split("/")[1] for n in run.metrics if n.startswith("eval/")})
    for run in splits.told_apart(runs)
  ]


def test_validation_of_a_run_and_test_of_an_evaluation_are_two_tasks():
  trained = _run("a", "toy", EVAL_TASK="toy", EVAL_SPLIT="validation")
  scored = _run("b", "toy", MIXTURE_OR_TASK_NAME="toy", EVAL_SPLIT="test")
  runs = [trained, scored]
  assert _tasks(runs) == [["toy-validation"], ["toy-test"]]
  assert _tasks(runs[:1]) == [["toy"]]
  first, _ = splits.told_apart(runs)
  assert first.metrics["eval/toy-validation/accuracy_ci_low"] == ([1], [2.0])
  assert first.metrics["train/loss"] == ([1], [3.0])


def test_run_of_one_split_joins_those_that_name_theirs():
  runs = [
    _run("a", "toy", EVAL_TASK="toy", EVAL_SPLIT="validation"),
    _run("b", "toy-validation", "toy-test", predictions=["toy-validation-t1"]),
  ]
  assert _tasks(runs) == [["toy-validation"], ["toy-test", "toy-validation"]]


def test_one_split_for_all_keeps_the_short_name():
  runs = [
    _run(name, "toy", EVAL_TASK="toy", EVAL_SPLIT="test") for name in "ab"
  ]
  assert _tasks(runs) == [["toy"], ["toy"]]


@pytest.mark.parametrize(
  ("predictions", "config", "split"),
  [
    (["toy-test", "toy-test-t0.7", "toy-test-t1"], {}, "test"),
    (["toy-test"], {"EVAL_TASK": "toy", "EVAL_SPLIT": "other"}, "test"),
    (["toy-a", "toy-b"], {}, ""),
    (["other-a"], {"EVAL_TASK": "toy", "EVAL_SPLIT": "dev"}, "dev"),
    ([], {"EVAL_TASK": "another", "EVAL_SPLIT": "dev"}, ""),
    ([], {}, ""),
  ],
)
def test_split_is_found_in_what_the_run_has_left(predictions, config, split):
  run = _run("a", "toy", predictions=predictions, **config)
  assert splits.split_of(run, "toy") == split


def test_macro_that_refers_to_another_is_not_taken_for_a_name():
  run = _run("a", "toy", MIXTURE_OR_TASK_NAME="toy", EVAL_SPLIT="dev")
  run.config["EVAL_TASK"] = "%MIXTURE_OR_TASK_NAME"
  assert splits.split_of(run, "toy") == "dev"


def test_run_whose_split_is_not_known_keeps_its_name():
  runs = [
    _run("a", "toy", EVAL_TASK="toy", EVAL_SPLIT="validation"),
    _run("b", "toy", EVAL_TASK="toy", EVAL_SPLIT="test"),
    _run("c", "toy"),
  ]
  assert _tasks(runs) == [["toy-validation"], ["toy-test"], ["toy"]]
