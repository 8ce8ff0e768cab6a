"""Folders of runs and evaluations, and the numbers in them."""

import json
import math

from gkd.report import directories


def _write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def _scores(path, **values):
  path.mkdir(parents=True)
  (path / "metrics.json").write_text(json.dumps(values))


def _found(directory):
  return {
    path.removeprefix(str(directory)).lstrip("/"): numbers
    for path, numbers in directories.find(str(directory)).items()
  }


def test_metrics_are_curves_by_name_in_order_of_steps(tmp_path):
  _write(
    tmp_path / "metrics.jsonl",
    [
      {"step": 20, "train/loss": 2.0},
      {"step": 10, "train/loss": 1.0, "train/lambda": 0.5},
      {"step": 20, "eval/toy/accuracy": 50.0},
      {"step": 15, "eval/toy/accuracy": 40.0},  # a line of its own
      {"train/loss": 7.0},  # of no step
    ],
  )
  numbers = directories.read(str(tmp_path))
  assert numbers.curves == {
    "eval/toy/accuracy": ([15, 20], [40.0, 50.0]),
    "train/lambda": ([10], [0.5]),
    "train/loss": ([10, 20], [1.0, 2.0]),
  }
  assert not numbers.is_evaluation
  assert numbers.damage == []


def test_null_reads_as_nan_and_a_torn_line_is_skipped_and_said(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "a": null}\nx\n{"step": 2, "a": 1', "utf-8")
  numbers = directories.read(str(tmp_path))
  steps, values = numbers.curves["a"]
  assert steps == [1]
  assert math.isnan(values[0])
  assert numbers.damage == [
    "the last line of metrics.jsonl is torn and was left out",
    "1 lines of metrics.jsonl cannot be read and were left out",
  ]


def test_evaluation_is_the_single_numbers_of_step_0(tmp_path):
  values = {"eval/toy/accuracy": 50.0, "eval/toy/forward_kl": None, "step": 3}
  _scores(tmp_path / "scores", **values)
  ((_, numbers),) = _found(tmp_path).items()
  assert numbers.is_evaluation
  assert set(numbers.curves) == {"eval/toy/accuracy", "eval/toy/forward_kl"}
  assert numbers.curves["eval/toy/accuracy"] == ([0], [50.0])


def test_evaluation_below_a_run_is_found_but_nothing_in_its_own_folders(
  tmp_path,
):
  _write(tmp_path / "sft" / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  _scores(tmp_path / "sft" / "eval", **{"eval/toy/accuracy": 5.0})
  _scores(tmp_path / "sft" / "checkpoints", **{"eval/toy/accuracy": 6.0})
  found = _found(tmp_path)
  assert list(found) == ["sft", "sft/eval"]
  assert found["sft/eval"].is_evaluation


def test_run_without_numbers_is_found_and_other_folders_are_not(tmp_path):
  (tmp_path / "started").mkdir()
  (tmp_path / "started" / "config.gin").write_text("A = 1\n")
  (tmp_path / "notes").mkdir()
  (tmp_path / ".hidden").mkdir()
  (tmp_path / ".hidden" / "config.gin").write_text("A = 1\n")
  found = _found(tmp_path)
  assert list(found) == ["started"]
  assert found["started"].curves == {}


def test_scores_in_the_folder_of_a_run_are_left_out_and_said(tmp_path):
  _scores(tmp_path / "run", **{"eval/toy/accuracy": 5.0})
  _write(tmp_path / "run" / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  (numbers,) = _found(tmp_path).values()
  assert set(numbers.curves) == {"a"}
  assert "evaluate into a folder of its own" in numbers.damage[0]
