"""Reading what runs left behind, whole or torn."""

import json
import math

import pytest

from gkd.errors import UserError
from gkd.report import runs


def _write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


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


def test_run_has_what_its_folder_says_of_it(tmp_path):
  _write(tmp_path / "metrics.jsonl", [{"step": 1, "train/loss": 1.0}])
  (tmp_path / "config.gin").write_text("TRAIN_STEPS = 5\n")
  (tmp_path / "run.json").write_text('{"model": {"emb_dim": 8}}')
  text = "Variable a  size 3\nTotal number of parameters: 14984\n"
  (tmp_path / "model-info.txt").write_text(text)
  (run,) = runs.read([str(tmp_path)]).runs
  assert run.config == {"TRAIN_STEPS": "5"}
  assert run.identity == {"model": {"emb_dim": 8}}
  assert run.num_parameters == 14984
  assert not run.is_evaluation
  assert run.notes == []


def test_bare_folder_is_a_run_that_says_what_is_missing(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "a": 2}\n{"st')
  (run,) = runs.read([str(tmp_path)]).runs
  assert run.num_parameters is None
  assert run.identity == {}
  assert run.notes == [
    "the last line of metrics.jsonl is torn and was left out",
    "config.gin is missing, so its settings are not compared",
  ]


def test_evaluation_of_a_checkpoint_is_one_point(tmp_path):
  values = {"eval/toy/accuracy": 50.0, "eval/toy/forward_kl": None}
  (tmp_path / "metrics.json").write_text(json.dumps(values, indent=2))
  (run,) = runs.read([str(tmp_path)]).runs
  assert run.is_evaluation
  assert run.last("eval/toy/accuracy") == 50.0
  assert math.isnan(run.last("eval/toy/forward_kl"))


def test_evaluation_inside_a_run_is_called_after_it(tmp_path):
  for name in ("sft", "gkd"):
    _write(tmp_path / name / "metrics.jsonl", [{"step": 1, "a": 1.0}])
    path = tmp_path / name / "eval" / "metrics.json"
    path.parent.mkdir()
    path.write_text('{"eval/toy/accuracy": 1.0}')
  found = runs.read([str(tmp_path)]).runs
  assert [run.name for run in found] == ["sft", "sft/eval", "gkd", "gkd/eval"]


def test_run_that_has_just_begun_is_left_out_and_named(tmp_path):
  _write(tmp_path / "a" / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  for name in ("b", "c"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.gin").write_text("A = 1\n")
  (tmp_path / "c" / "metrics.jsonl").write_text("")
  found = runs.read([str(tmp_path)])
  assert [run.name for run in found.runs] == ["a"]
  assert found.silent == ["b", "c"]
  found = runs.read([str(tmp_path / "a"), str(tmp_path / "b")])
  assert found.silent == ["b"]


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


def test_directory_without_anything_to_report_is_refused(tmp_path):
  (tmp_path / "notes.txt").write_text("nothing")
  with pytest.raises(UserError, match=r"has no metrics.jsonl, no metrics.json"):
    runs.read([str(tmp_path)])


def test_runs_without_numbers_alone_are_refused(tmp_path):
  (tmp_path / "metrics.jsonl").write_text("")
  with pytest.raises(UserError, match=r"is a run that has reported no numbers"):
    runs.read([str(tmp_path)])


@pytest.mark.parametrize(
  "text", ["[]", '{"rows": 3}', '{"table": []}', '{"rows": [], "meta": [1]}']
)
def test_results_of_another_format_are_refused(tmp_path, text):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(UserError, match=r"results.json cannot be read"):
    runs.read([str(tmp_path)])


@pytest.mark.parametrize("name", ["results.json", "metrics.json", "run.json"])
def test_damaged_file_is_refused_by_its_name(tmp_path, name):
  _write(tmp_path / "metrics.jsonl", [{"step": 1, "a": 1.0}])
  (tmp_path / name).write_text('{"rows"')
  with pytest.raises(UserError, match=rf"/{name} cannot be read as JSON"):
    runs.read([str(tmp_path)])
