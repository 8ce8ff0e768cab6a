"""Tables of runs: last values, one row for the seeds of an arm."""

import numpy as np
import pytest

from gkd.report import tables
from tests.report.example_runs import bounds
from tests.report.example_runs import kl
from tests.report.example_runs import run
from tests.report.example_runs import score
from tests.report.example_runs import teacher


def scored(name, metrics, **fields):
  return run(name, {k: [v] for k, v in metrics.items()}, is_evaluation=True)


def column(table, title):
  place = list(table.header).index(title)
  return [row[place].text for row in table.rows]


def test_runs_table_shows_last_values_and_the_sum_of_times():
  metrics = {
    score(): ([10, 20], [5.0, 7.5]),
    score(metric="length", unit="tokens"): ([10, 20], [5.0, 7.5]),
    "train/loss": ([10, 20], [3.0, 2.5]),
    "time/update_seconds": ([10, 20], [1.0, 2.0]),
    "time/sample_seconds": ([10, 20], [4.0, 5.0]),
    "time/tokens_per_second": ([10, 20], [1e6, 1e6]),
  }
  table = tables.runs_table([run("a", metrics)])
  assert table.header == [
    "run",
    "accuracy (%)",
    "training loss",
    "updates",
    "time",
  ]
  assert [c.text for c in table.rows[0]] == ["a", "7.5", "2.5", "20", "12 s"]
  assert "Last values during training on split test." in table.note


def test_seeds_of_an_arm_are_one_row():
  values = [50.0, 51.0, 54.0]
  # The interval over the prompts does not include the spread over the seeds.
  seeds = [
    run(
      f"seed_{n}/kd",
      {score(): [value], **bounds(score(), [0.0], [99.0])},
      arm="kd",
    )
    for n, value in enumerate(values)
  ]
  table = tables.runs_table(seeds)
  (row,) = table.rows
  assert row[0].text == "kd"
  (cell,) = column(table, "accuracy (%)")
  mean, deviation = map(float, cell.split(" ± "))
  assert mean == pytest.approx(np.mean(values), abs=0.05)
  assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.05)
  assert "3 seeds" in table.note
  assert "bootstrap" not in table.note


def test_score_of_a_single_run_has_its_interval():
  first = {score(): 51.26, **bounds(score(), 49.0, 53.111)}
  table = tables.runs_table([scored("a", first), scored("b", {score(): 40.0})])
  assert column(table, "accuracy (%)") == ["51.3 [49.0, 53.1]", "40.0"]
  assert [row[1].is_best for row in table.rows] == [True, False]
  assert "95 % interval over the prompts (bootstrap)" in table.note
  # Evaluations alone have neither loss nor updates.
  assert table.header == ["run", "accuracy (%)"]


def test_less_is_better_where_the_direction_says_so():
  found = [scored(name, {kl(): value}) for name, value in (("a", 2), ("b", 1))]
  table = tables.runs_table(found)
  assert [row[1].is_best for row in table.rows] == [False, True]


def test_teacher_of_all_runs_is_a_row_on_top():
  pair = [
    scored(name, {score(): 5.0, teacher(): 9.0, kl(): 1.0}) for name in "ab"
  ]
  table = tables.runs_table(pair)
  assert column(table, "run") == ["Teacher, same examples", "a", "b"]
  assert column(table, "accuracy (%)") == ["9.0", "5.0", "5.0"]
  assert column(table, "forward KL (nats per sequence)")[0] == "–"


def test_teachers_are_told_apart_by_their_hash_and_not_by_their_scores():
  pair = [
    scored("a", {score(): 5.0, teacher("x"): 9.0}),
    scored("b", {score(): 5.0, teacher("y"): 9.0}),
  ]
  table = tables.runs_table(pair)
  assert column(table, "run") == [
    "Teacher x, same examples",
    "Teacher y, same examples",
    "a",
    "b",
  ]


def test_distances_to_different_teachers_share_no_table():
  found = [
    scored(name, {score(): value, kl(model): value})
    for name, model, value in (("a", "x", 1.0), ("b", "y", 2.0), ("c", "y", 3))
  ]
  accuracy, first, second = tables.score_tables(found)
  assert column(accuracy, "run") == ["a", "b", "c"]
  assert first.title == "toy test: distance to the teacher x"
  assert column(first, "run") == ["a"]
  assert column(second, "run") == ["b", "c"]
  assert [row[1].is_best for row in second.rows] == [True, False]
  assert tables.runs_table(found) is None


def test_several_tasks_are_tables_of_their_own():
  found = [
    scored("a", {score(task="gsm8k"): 5.0}),
    scored("b", {score(task="svamp"): 6.0}),
    run("c", {"train/loss": ([4], [1.0])}),
  ]
  assert tables.runs_table(found).header == ["run", "training loss", "updates"]
  first, second = tables.score_tables(found)
  assert (first.title, column(first, "run")) == ("gsm8k test", ["a"])
  assert (second.title, column(second, "run")) == ("svamp test", ["b"])
  assert first.note == ""
  assert second.note == "Last values during training on split test."
  assert tables.runs_table(found[:2]) is None
  assert tables.score_tables(found[:1]) == []


def test_size_of_the_model_is_a_column_only_where_it_differs():
  loss = {"train/loss": ([4], [1.0])}
  alike = [run(name, loss, num_parameters=1234) for name in "ab"]
  table = tables.runs_table(alike)
  assert "parameters" not in table.header
  assert "The model has 1,234 parameters." in table.note
  table = tables.runs_table([*alike, run("c", loss, num_parameters=99)])
  assert column(table, "parameters") == ["1,234", "1,234", "99"]


def test_runs_that_are_not_done_show_how_far_they_are():
  loss = {"train/loss": ([4], [1.0])}
  seeds = [
    run(f"seed_{n}", loss, settings={"train_steps": steps}, arm="sft")
    for n, steps in enumerate((4, 8))
  ]
  assert column(tables.runs_table(seeds), "updates") == ["4 · 4 of 8"]
