"""Tables of runs: last values, one row for the seeds of an arm."""

import numpy as np
import pytest

from gkd.report import runs
from gkd.report import tables


def _run(name, metrics=None, *, size=None, is_evaluation=False, **config):
  return runs.Run(
    name,
    name,
    metrics or {},
    config,
    "",
    {},
    [],
    num_parameters=size,
    is_evaluation=is_evaluation,
  )


def _scores(name, *, task="toy", is_evaluation=True, **values):
  metrics = {f"eval/{task}/{key}": ([0], [v]) for key, v in values.items()}
  return _run(name, metrics, is_evaluation=is_evaluation)


def _column(table, title):
  place = list(table.header).index(title)
  return [row[place].text for row in table.rows]


def test_runs_table_shows_last_values_and_the_sum_of_times():
  metrics = {
    "eval/toy/accuracy": ([10, 20], [5.0, 7.5]),
    "eval/toy/length": ([10, 20], [5.0, 7.5]),
    "train/loss": ([10, 20], [3.0, 2.5]),
    "time/update_seconds": ([10, 20], [1.0, 2.0]),
    "time/sample_seconds": ([10, 20], [4.0, 5.0]),
    "time/tokens_per_second": ([10, 20], [1e6, 1e6]),
  }
  table = tables.runs_table([_run("a", metrics)])
  assert table.header == [
    "run",
    "accuracy (%)",
    "training loss",
    "updates",
    "time",
  ]
  assert [c.text for c in table.rows[0]] == ["a", "7.5", "2.5", "20", "12 s"]


def _seed(number, accuracy):
  # Its interval over the prompts says less than the spread over the seeds.
  metrics = {
    "eval/toy/accuracy": ([10], [accuracy]),
    "eval/toy/accuracy_ci_low": ([10], [0.0]),
    "eval/toy/accuracy_ci_high": ([10], [99.0]),
  }
  return _run(f"seed_{number}/gkd_mixed", metrics, EVAL_SPLIT="'dev'")


def test_seeds_of_an_arm_are_one_row():
  values = [50.0, 51.0, 54.0]
  table = tables.runs_table([_seed(n, v) for n, v in enumerate(values)])
  (row,) = table.rows
  assert row[0].text == "Mixed GKD"
  (cell,) = _column(table, "accuracy (%)")
  mean, deviation = map(float, cell.split(" ± "))
  assert mean == pytest.approx(np.mean(values), abs=0.05)
  assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.05)
  assert "3 seeds" in table.note
  assert "on split dev" in table.note
  assert "bootstrap" not in table.note


@pytest.mark.parametrize("task", ["toy-test", "toy"])
def test_split_is_said_where_the_name_of_the_task_does_not(task):
  run = _run("a", {f"eval/{task}/accuracy": ([1], [2.0])}, EVAL_SPLIT="'test'")
  note = tables.runs_table([run]).note
  assert ("on split test" in note) is (task == "toy")


def test_score_of_a_single_run_has_its_interval():
  scored = _scores(
    "a", accuracy=51.26, accuracy_ci_low=49.0, accuracy_ci_high=53.111
  )
  table = tables.runs_table([scored, _scores("b", accuracy=40.0)])
  assert _column(table, "accuracy (%)") == ["51.3 [49.0, 53.1]", "40.0"]
  assert [row[1].best for row in table.rows] == [True, False]
  assert "95 % interval over the prompts (bootstrap)" in table.note
  # Evaluations alone have neither loss nor updates.
  assert table.header == ["run", "accuracy (%)"]


def test_teacher_that_all_runs_share_is_a_row_on_top():
  pair = [
    _scores(name, accuracy=5.0, teacher_accuracy=9.0, forward_kl=1.0)
    for name in "ab"
  ]
  table = tables.runs_table(pair)
  assert [row[0].text for row in table.rows] == [
    "Teacher, same examples",
    "a",
    "b",
  ]
  assert _column(table, "accuracy (%)") == ["9.0", "5.0", "5.0"]
  assert _column(table, "forward KL (nats a sequence)")[0] == "–"


def test_teachers_that_differ_are_a_column():
  pair = [
    _scores("a", accuracy=5.0, teacher_accuracy=9.0),
    _scores("b", accuracy=5.0, teacher_accuracy=8.0),
    _scores("c", accuracy=5.0),
  ]
  table = tables.runs_table(pair)
  assert _column(table, "teacher's accuracy (%)") == ["9.0", "8.0", "–"]
  assert len(table.rows) == 3


def test_several_tasks_are_tables_of_their_own():
  found = [
    _scores("a", task="gsm8k-test", accuracy=5.0),
    _scores("b", task="svamp-test", accuracy=6.0),
    _run("c", {"train/loss": ([4], [1.0])}),
  ]
  assert tables.runs_table(found).header == ["run", "training loss", "updates"]
  first, second = tables.score_tables(found)
  assert (first.title, _column(first, "run")) == ("gsm8k-test", ["a"])
  assert (second.title, _column(second, "run")) == ("svamp-test", ["b"])
  assert "Last values" not in first.note
  assert second.note == "Last values during training."
  assert tables.runs_table(found[:2]) is None
  assert tables.score_tables(found[:1]) == []


def test_size_of_the_model_is_a_column_only_where_it_differs():
  loss = {"train/loss": ([4], [1.0])}
  alike = [_run(name, loss, size=1234) for name in "ab"]
  table = tables.runs_table(alike)
  assert "parameters" not in table.header
  assert "The model has 1,234 parameters." in table.note
  table = tables.runs_table([*alike, _run("c", loss, size=99)])
  assert _column(table, "parameters") == ["1,234", "1,234", "99"]


def test_runs_that_are_not_done_show_how_far_they_are():
  loss = {"train/loss": ([4], [1.0])}
  seeds = [
    _run("seed_0/sft", loss, TRAIN_STEPS="4"),
    _run("seed_1/sft", loss, TRAIN_STEPS="8"),
  ]
  assert _column(tables.runs_table(seeds), "updates") == ["4 · 4 of 8"]
