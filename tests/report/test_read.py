"""Reading what runs left behind: complete, torn or missing."""

import json
import math
import os

import pytest

from gkd.errors import UserError
from gkd.report import read
from gkd.report.metric_info import Score
from tests.report.example_runs import ACCURACY
from tests.report.example_runs import BEAM
from tests.report.example_runs import KL
from tests.report.example_runs import kl
from tests.report.example_runs import score
from tests.report.example_runs import write

LINES = [{"step": 1, "train/loss": 1.0}]


def only_run(folder):
  (run,) = read.read([str(folder)]).runs
  return run


def test_metrics_are_curves_in_order_of_steps(tmp_path):
  lines = [
    {"step": 20, "train/loss": 2.0},
    {"step": 10, "train/loss": 1.0, "train/lambda": 0.5},
    {"step": 20, "eval/toy/accuracy": 50.0},
    {"step": 15, "eval/toy/accuracy": 40.0},  # a line of its own
    {"train/loss": 7.0},  # of no step
  ]
  write(tmp_path, lines, infos={"eval/toy/accuracy": ACCURACY})
  run = only_run(tmp_path)
  assert run.metrics == {
    score(): {15: 40.0, 20: 50.0},
    "train/lambda": {10: 0.5},
    "train/loss": {10: 1.0, 20: 2.0},
  }
  assert not run.is_evaluation


def test_null_reads_as_nan_and_damaged_lines_are_left_out_and_noted(tmp_path):
  path = tmp_path / "metrics.jsonl"
  # A whole last line without an end counts.
  path.write_text('{"step": 1, "a": 2}\n{"step": 3, "a": 4}', "utf-8")
  run = only_run(tmp_path)
  assert run.metrics["a"] == {1: 2.0, 3: 4.0}
  deep = "[" * 100_000
  path.write_text(
    f'{{"step": 1, "a": null}}\nx\n[1]\n{deep}\n{{"step": 2, "a": 1', "utf-8"
  )
  run = only_run(tmp_path)
  assert run.metrics["a"].keys() == {1}
  assert math.isnan(run.last("a"))
  assert run.notes == [
    "the last line of metrics.jsonl is torn and was left out",
    "3 lines of metrics.jsonl cannot be read and were left out",
    "run.json has no settings and config.gin is missing, so its settings are"
    " not shown",
  ]


def test_evaluation_is_the_single_values_of_step_0(tmp_path):
  values = {"eval/toy/accuracy": 50.0, "eval/toy/forward_kl": None, "step": 3}
  infos = {"eval/toy/accuracy": ACCURACY, "eval/toy/forward_kl": ACCURACY | KL}
  about = {"roles": {"teacher": {"content_sha256": "big", "path": "/m/big"}}}
  write(tmp_path, values=values, infos=infos, about=about)
  run = only_run(tmp_path)
  assert run.is_evaluation
  assert run.metrics.keys() == {score(), kl()}
  assert run.last(score()) == 50.0
  assert math.isnan(run.last(kl()))


def test_splits_are_told_apart_by_their_fields_with_beam_search_too(tmp_path):
  """One name meant validation in a run and test in its evaluation."""
  name = "eval/toy/accuracy_beam4"
  of_run, of_scores = (
    {name: ACCURACY | BEAM | {"split": split}}
    for split in ("validation", "test")
  )
  write(tmp_path / "run", [{"step": 1, name: 1.0}], infos=of_run)
  write(tmp_path / "scores", values={name: 2.0}, infos=of_scores)
  keys = [key for run in read.read([str(tmp_path)]).runs for key in run.metrics]
  assert [key.group for key in keys] == ["toy validation", "toy test"]
  assert [key.label for key in keys] == ["beam4", "beam4"]


def test_scores_of_an_earlier_version_keep_plain_names_and_it_is_said(tmp_path):
  write(tmp_path, values={"eval/toy/accuracy": 50.0}, config="A = 1\n")
  run = only_run(tmp_path)
  assert run.metrics.keys() == {Score(metric="eval/toy/accuracy")}
  (note,) = run.notes
  assert "metric_info.json does not describe its scores" in note


def test_teachers_are_told_apart_by_their_content_and_not_by_their_path(
  tmp_path,
):
  hashes = {"x": "1" * 64, "y": "1" * 64, "z": "2" * 64, "u": None}
  for name, sha256 in hashes.items():
    teacher = {"content_sha256": sha256, "path": f"{name}/t"}
    write(
      tmp_path / name,
      values={"eval/toy/forward_kl": 1.0},
      infos={"eval/toy/forward_kl": ACCURACY | KL},
      about={"roles": {"teacher": teacher}},
    )
  keys = [key for run in read.read([str(tmp_path)]).runs for key in run.metrics]
  # One without a hash is taken for a model of its own.
  models = [f"of {tmp_path / 'u'}", "1" * 8, "1" * 8, "2" * 8]
  assert [key.model for key in keys] == models


def test_set_of_runs_is_found_below_in_natural_order(tmp_path):
  for name in ("run_2/sft", "run_10/sft", "run_2/gkd"):
    write(tmp_path / name, LINES)
  write(tmp_path / "run_2" / "sft" / "checkpoints", LINES)
  (tmp_path / "notes").mkdir()
  write(tmp_path / ".hidden", LINES)
  runs = read.read([str(tmp_path)]).runs
  names = [run.name for run in runs]
  assert names == ["run_2/gkd", "run_2/sft", "run_10/sft"]
  again = read.read([str(tmp_path), str(tmp_path / "run_2")]).runs
  assert len(again) == 3


def test_evaluation_inside_a_run_is_called_after_it(tmp_path):
  for name in ("sft", "gkd"):
    write(tmp_path / name, LINES)
    write(tmp_path / name / "eval", values={"eval/toy/accuracy": 1.0})
  names = [run.name for run in read.read([str(tmp_path)]).runs]
  assert names == ["gkd", "gkd/eval", "sft", "sft/eval"]


def test_scores_in_the_folder_of_a_run_are_left_out_and_noted(tmp_path):
  write(tmp_path, LINES, values={"eval/toy/accuracy": 5.0}, config="A = 1")
  run = only_run(tmp_path)
  assert run.metrics.keys() == {"train/loss"}
  assert "evaluate into a folder of its own" in run.notes[0]


def test_texts_are_those_of_the_last_step(tmp_path):
  write(tmp_path, LINES)
  for step in ("900", "1000", "00000050"):
    path = tmp_path / "predictions" / f"toy-test-greedy-{step}.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"row": 0, "text": step}) + "\n")
  run = only_run(tmp_path)
  assert run.predictions == {"toy-test-greedy": [{"row": 0, "text": "1000"}]}


def test_run_has_what_its_folder_says_of_it(tmp_path):
  about = {"settings": {"train_steps": 5, "optimizer": {"rate": 0.1}}}
  write(tmp_path, LINES, about=about, config="TRAIN_STEPS = 5\n")
  text = "Variable a  size 3\nTotal number of parameters: 14984\n"
  (tmp_path / "model-info.txt").write_text(text)
  run = only_run(tmp_path)
  assert run.settings == {"train_steps": 5, "optimizer.rate": 0.1}
  assert run.config_text == "TRAIN_STEPS = 5\n"
  assert run.num_parameters == 14984
  assert run.notes == []


def test_run_without_metrics_is_left_out_and_named(tmp_path):
  write(tmp_path / "a", LINES)
  for name in "bc":
    write(tmp_path / name, config="A = 1\n")
  (tmp_path / "c" / "metrics.jsonl").write_text("")
  found = read.read([str(tmp_path)])
  assert [run.name for run in found.runs] == ["a"]
  assert found.empty == ["b", "c"]


def test_results_of_several_directories_join(tmp_path):
  for number in (1, 2):
    path = write(tmp_path / str(number)) / "results.json"
    row = {"method": "sft", "seed": number}
    path.write_text(json.dumps({"rows": [row], "meta": {"cores": 2}}))
  found = read.read([str(tmp_path / "1"), str(tmp_path / "2")])
  assert [row["seed"] for row in found.results.rows] == [1, 2]
  assert found.results.meta == {"cores": 2}
  assert found.runs == []


def test_labels_of_an_experiment_are_of_the_runs_below_it(tmp_path):
  write(tmp_path / "set" / "student", LINES)
  write(tmp_path / "student", LINES)
  content = {"rows": [{"method": "x"}], "labels": {"student": "The start"}}
  (tmp_path / "set" / "results.json").write_text(json.dumps(content))
  found = read.read([str(tmp_path / "set"), str(tmp_path / "student")])
  names = [run.arm.rpartition("/")[2] for run in found.runs]
  assert sorted(names) == ["The start", "student"]


@pytest.mark.parametrize(
  ("folders", "message"),
  [
    ([], "no directory was given"),
    (["nowhere"], "nowhere is not a directory; expected the MODEL_DIR"),
    (["notes/notes.txt"], "notes.txt is not a directory; expected"),
    (["notes"], r"has no metrics.jsonl, no metrics.json and no"),
    (["started"], r"is a run that has reported no numbers"),
  ],
)
def test_nothing_to_report_is_refused(tmp_path, folders, message):
  (write(tmp_path / "notes") / "notes.txt").write_text("nothing")
  (write(tmp_path / "started") / "metrics.jsonl").write_text("")
  with pytest.raises(UserError, match=message):
    read.read([str(tmp_path / folder) for folder in folders])


@pytest.mark.parametrize(
  "text", ["[]", '{"rows": 3}', '{"table": []}', '{"rows": [], "meta": [1]}']
)
def test_results_of_another_format_are_refused(tmp_path, text):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(UserError, match=r"results.json.*make it again or move"):
    read.read([str(tmp_path)])


@pytest.mark.parametrize(
  "name", ["results.json", "metrics.json", "run.json", "metric_info.json"]
)
def test_damaged_file_is_refused_by_its_name(tmp_path, name):
  """See tests/test_files.py for all that JSON can be damaged by."""
  write(tmp_path, LINES)
  (tmp_path / name).write_text('{"rows"')
  message = rf"/{name} is not JSON \(.*make it again or move it away"
  with pytest.raises(UserError, match=message):
    read.read([str(tmp_path)])


def test_a_field_of_another_type_is_refused(tmp_path):
  write(tmp_path, LINES, about={"num_rows": "20"})
  with pytest.raises(UserError, match=r"run.json has num_rows '20'; expected"):
    read.read([str(tmp_path)])


def test_file_that_cannot_be_opened_is_refused(tmp_path):
  write(tmp_path, LINES)
  (tmp_path / "config.gin").mkdir()
  with pytest.raises(UserError, match=r"config.gin cannot be read \(Is a dir"):
    read.read([str(tmp_path)])
  (tmp_path / "metrics.jsonl").unlink()
  os.mkfifo(tmp_path / "metrics.jsonl")
  with pytest.raises(UserError, match=r"\(it is no regular file\); make it"):
    read.read([str(tmp_path)])
