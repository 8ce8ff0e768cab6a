"""Reading what runs left behind, whole or torn."""

import json
import math

import pytest

from gkd.report import runs
from gkd.types import UserError


def _write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def test_metrics_are_curves_by_name_in_order_of_steps(tmp_path):
  path = tmp_path / "metrics.jsonl"
  _write(
    path,
    [
      {"step": 20, "train/loss": 2.0},
      {"step": 10, "train/loss": 1.0, "train/lambda": 0.5},
      {"step": 20, "eval/toy/accuracy": 50.0},
    ],
  )
  assert runs.read_metrics(str(path)) == {
    "eval/toy/accuracy": ([20], [50.0]),
    "train/lambda": ([10], [0.5]),
    "train/loss": ([10, 20], [1.0, 2.0]),
  }


def test_null_reads_as_nan_and_a_torn_line_is_skipped(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1, "a": null}\n{"step": 2, "a": 1', "utf-8")
  steps, values = runs.read_metrics(str(path))["a"]
  assert steps == [1]
  assert math.isnan(values[0])


def test_set_of_runs_is_found_below_and_named_apart(tmp_path):
  for name in ("seed_2/sft", "seed_10/sft", "seed_2/gkd_on_policy"):
    _write(tmp_path / name / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  found = runs.read([str(tmp_path)])
  assert [run.name for run in found.runs] == [
    "seed_2/sft",
    "seed_2/gkd_on_policy",
    "seed_10/sft",
  ]
  assert found.results is None


def test_same_directory_twice_is_one_run(tmp_path):
  _write(tmp_path / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  assert len(runs.read([str(tmp_path), str(tmp_path)]).runs) == 1


def test_predictions_are_those_of_the_last_step(tmp_path):
  _write(tmp_path / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  for step in ("900", "1000", "00000050"):
    path = tmp_path / "predictions" / f"toy-test-greedy-{step}.jsonl"
    _write(path, [{"row": 0, "text": step}])
  (run,) = runs.read([str(tmp_path)]).runs
  assert run.predictions == {
    "toy-test-greedy": [{"row": 0, "text": "1000"}],
  }


def test_evaluation_of_a_checkpoint_is_one_point(tmp_path):
  values = {"eval/toy/accuracy": 50.0, "eval/toy/forward_kl": None}
  (tmp_path / "metrics.json").write_text(json.dumps(values, indent=2))
  (run,) = runs.read([str(tmp_path)]).runs
  assert run.metrics == {"eval/toy/accuracy": ([0], [50.0])}


def test_results_of_several_directories_join(tmp_path):
  for number in (1, 2):
    path = tmp_path / str(number) / "results.json"
    path.parent.mkdir()
    row = {"method": "sft", "seed": number}
    path.write_text(json.dumps({"rows": [row], "meta": {"cores": 2}}))
  found = runs.read([str(tmp_path / "1"), str(tmp_path / "2")])
  assert [row["seed"] for row in found.results.rows] == [1, 2]
  assert found.results.meta == {"cores": 2}
  assert found.runs == []


def test_directory_that_does_not_exist_is_refused(tmp_path):
  with pytest.raises(UserError, match="nowhere is not a directory; expected"):
    runs.read([str(tmp_path / "nowhere")])
  with pytest.raises(UserError, match="no directory was given"):
    runs.read([])


def test_directory_without_numbers_is_refused(tmp_path):
  (tmp_path / "metrics.jsonl").write_text("")
  with pytest.raises(UserError, match=r"no metrics.jsonl with numbers and no"):
    runs.read([str(tmp_path)])


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": 3}', '{"table": []}'])
def test_results_of_another_format_are_refused(tmp_path, text):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(UserError, match=r"results.json cannot be read"):
    runs.read([str(tmp_path)])
