"""Tables of runs: last values, one row for the seeds of an arm, status."""

import math

import numpy as np
import pytest

from gkd.report import tables
from gkd.report.metric_info import Score
from tests.report.example_runs import bounds
from tests.report.example_runs import kl
from tests.report.example_runs import run
from tests.report.example_runs import score
from tests.report.example_runs import teacher

LOSS = {"train/loss": {4: 1.0}}
TEACHER_ROW = "Teacher, same examples"


def scored(name, metrics):
  return run(name, {k: [v] for k, v in metrics.items()}, is_evaluation=True)


def of_runs(runs):
  """The table of runs where it is the only one."""
  table, others = tables.run_tables(runs)
  assert others == []
  return table


def column(table, title):
  place = list(table.header).index(title)
  return [row[place].text for row in table.rows]


def best(table):
  """Which rows have the best value of the first column."""
  return [row[1].is_best for row in table.rows]


def test_last_values_and_the_sum_of_times_are_shown():
  metrics = {
    score(): {10: 5.0, 20: 7.5},
    score(metric="length", unit="tokens"): {10: 5.0, 20: 7.5},
    "train/loss": {10: 3.0, 20: 2.5},
    "time/update_seconds": {10: 1.0, 20: 2.0},
    "time/sample_seconds": {10: 4.0, 20: 5.0},
    "time/tokens_per_second": {10: 1e6, 20: 1e6},
  }
  table = of_runs([run("a", metrics)])
  shown = dict(zip(table.header, table.rows[0], strict=True))
  assert {title: cell.text for title, cell in shown.items()} == {
    "run": "a",
    "accuracy (%)": "7.5",
    "training loss": "2.5",
    "updates": "20",
    "time": "12 s",
  }
  assert "Last values during training on split test." in table.note


def test_seeds_of_an_arm_are_one_row():
  values = [50.0, 51.0, 54.0]
  # The interval over the prompts does not include the spread over the seeds.
  ends = bounds(score(), [0.0], [99.0])
  table = of_runs(
    [
      run(f"seed_{n}/kd", {score(): [value], **ends}, arm="kd")
      for n, value in enumerate(values)
    ]
  )
  assert column(table, "run") == ["kd"]
  text = f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
  assert column(table, "accuracy (%)") == [text]
  assert "3 seeds" in table.note
  assert "bootstrap" not in table.note


def test_score_of_a_single_run_has_its_interval():
  first = {score(): 51.26, **bounds(score(), 49.0, 53.111)}
  table = of_runs([scored("a", first), scored("b", {score(): 40.0})])
  assert column(table, "accuracy (%)") == ["51.3 [49.0, 53.1]", "40.0"]
  assert best(table) == [True, False]
  assert "95 % interval over the prompts (bootstrap)" in table.note
  # Evaluations alone have neither loss nor updates.
  assert table.header == ["run", "accuracy (%)"]


def test_less_is_better_where_the_direction_says_so():
  runs = [scored(name, {kl(): value}) for name, value in (("a", 2), ("b", 1))]
  assert best(of_runs(runs)) == [False, True]


def test_teacher_of_all_runs_is_a_row_on_top():
  values = {score(): 5.0, teacher(): 9.0, kl(): 1.0}
  table = of_runs([scored(name, values) for name in "ab"])
  assert column(table, "run") == [TEACHER_ROW, "a", "b"]
  assert column(table, "accuracy (%)") == ["9.0", "5.0", "5.0"]
  assert column(table, "forward KL (nats per sequence)")[0] == "–"


def test_teachers_are_told_apart_by_their_hash_and_not_by_their_scores():
  runs = [scored(n, {score(): 5.0, teacher(f"of {n}"): 9.0}) for n in "ab"]
  rows = [f"Teacher of {n}, same examples" for n in "ab"]
  assert column(of_runs(runs), "run") == [*rows, "a", "b"]


def test_distances_to_different_teachers_share_no_table():
  runs = [
    scored(name, {score(): value, kl(model): value})
    for name, model, value in (("a", "x", 1.0), ("b", "y", 2.0), ("c", "y", 3))
  ]
  table, (accuracy, first, second) = tables.run_tables(runs)
  assert column(accuracy, "run") == ["a", "b", "c"]
  assert first.title == "toy test: distance to the teacher x"
  assert column(first, "run") == ["a"]
  assert column(second, "run") == ["b", "c"]
  assert best(second) == [True, False]
  assert table is None


def test_several_tasks_are_tables_of_their_own():
  runs = [
    scored("a", {score(task="gsm8k"): 5.0}),
    scored("b", {score(task="svamp"): 6.0}),
    run("c", LOSS),
  ]
  table, (first, second) = tables.run_tables(runs)
  assert table.header == ["run", "training loss", "updates"]
  assert (first.title, column(first, "run")) == ("gsm8k test", ["a"])
  assert (second.title, column(second, "run")) == ("svamp test", ["b"])
  assert first.note == ""
  assert second.note == "Last values during training on split test."
  assert tables.run_tables(runs[:2])[0] is None
  undescribed = run("d", {Score(metric="eval/toy/bleu_t1"): [1.0]})
  assert of_runs([undescribed]).note == "Last values during training."


def test_size_of_the_model_is_a_column_only_where_it_differs():
  runs = [run(name, LOSS, num_parameters=1234) for name in "ab"]
  table = of_runs(runs)
  assert "parameters" not in table.header
  assert "The model has 1,234 parameters." in table.note
  table = of_runs([*runs, run("c", LOSS, num_parameters=99)])
  assert column(table, "parameters") == ["1,234", "1,234", "99"]


def trained(name="a", step=1000, planned=None, loss=1.0, **fields):
  settings = {"train_steps": planned} if planned else None
  return run(name, {"train/loss": {step: loss}}, settings=settings, **fields)


@pytest.mark.parametrize(
  ("runs", "updates"),
  [
    ([trained(planned=1000)], "1,000"),
    ([trained(planned=2000)], "1,000 of 2,000"),
    ([trained(planned=500)], "1,000"),
    ([trained()], "1,000"),
    ([trained(is_evaluation=True), trained("b")], "–"),
    (
      [trained(planned=p, arm="sft") for p in (4000, 9)],
      "1,000 of 4,000 · 1,000",
    ),
  ],
)
def test_updates_are_those_done_of_those_planned(runs, updates):
  runs = [run("c", {score(): [1.0]}), *runs]
  assert column(of_runs(runs), "updates")[1] == updates


def test_notes_say_which_runs_are_not_complete():
  runs = [
    trained("whole", planned=1000),
    trained("evaluation", is_evaluation=True, planned=9999),
    trained("sft", 10, planned=40, title="SFT, seed 2"),
    trained("b", 20, planned=40, loss=math.nan),
    trained("c", planned=10, notes=["config.gin is missing"]),
  ]
  assert list(tables.status_notes(runs, ["new"])) == [
    (
      "SFT, seed 2",
      "reported 10 of 40 updates (25 %) so far: it was stopped or is still"
      " running",
    ),
    ("b", "stopped at update 20: loss, gradient or parameters not finite"),
    ("c", "config.gin is missing"),
    ("new", "has reported no numbers yet and is left out"),
  ]
