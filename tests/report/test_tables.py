"""Tables: spread over seeds, best of a column, differences of settings."""

import numpy as np
import pytest

from gkd.report import runs
from gkd.report import tables


def _row(method, seed=0, **values):
  return {"method": method, "seed": seed, **values}


def _run(name, metrics=None, **config):
  return runs.Run(name, name, metrics or {}, config, "", {}, [])


def _column(table, title):
  place = list(table.header).index(title)
  return [row[place] for row in table.rows]


def test_seeds_become_mean_and_sample_standard_deviation():
  values = [51.0, 52.5, 54.3]
  rows = [_row("seqkd", i, accuracy_greedy=v) for i, v in enumerate(values)]
  table = tables.results_table(runs.Results(rows, {}))
  (cell,) = _column(table, "accuracy, greedy")
  mean, deviation = (float(part) for part in cell.text.split(" ± "))
  assert mean == pytest.approx(np.mean(values), abs=0.05)
  assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.05)
  assert "3 seeds" in table.note


def test_one_seed_is_shown_without_a_spread_and_says_so():
  rows = [_row("sft", accuracy_greedy=51.25)]
  table = tables.results_table(runs.Results(rows, {}))
  assert _column(table, "accuracy, greedy")[0].text == "51.25"
  assert "One seed" in table.note


def test_best_student_is_marked_and_never_the_teacher():
  rows = [
    _row("gkd_on_policy", accuracy_greedy=50.0, forward_kl=2.0),
    _row("teacher", accuracy_greedy=90.0, forward_kl=0.0),
    _row("sft", accuracy_greedy=20.0, forward_kl=1.5),
  ]
  table = tables.results_table(runs.Results(rows, {}))
  assert [row[0].text for row in table.rows] == [
    "Teacher",
    "Student after SFT",
    "On-policy GKD",
  ]
  best = [cell.best for cell in _column(table, "accuracy, greedy")]
  assert best == [False, False, True]
  best = [cell.best for cell in _column(table, "forward KL")]
  assert best == [False, True, False]  # less is better


def test_time_has_no_best():
  rows = [_row("sft", train_seconds=1.0), _row("seqkd", train_seconds=2.0)]
  table = tables.results_table(runs.Results(rows, {}))
  assert not any(cell.best for cell in _column(table, "training, s"))


def test_rows_of_other_settings_are_not_averaged():
  rows = [
    _row(
      "gkd_mixed", **{"lambda": 0.25}, divergence="JSD", accuracy_greedy=1.0
    ),
    _row("gkd_mixed", **{"lambda": 0.5}, divergence="JSD", accuracy_greedy=3.0),
  ]
  groups = tables.groups(runs.Results(rows, {}))
  assert [group.label for group in groups] == [
    "Mixed GKD, λ 0.25",
    "Mixed GKD, λ 0.5",
  ]
  assert [group.values("accuracy_greedy") for group in groups] == [[1.0], [3.0]]


def test_missing_and_infinite_values_show_as_dash():
  rows = [_row("sft", forward_kl=None, accuracy_greedy=1.0)]
  rows.append(_row("seqkd", forward_kl=3.0))
  table = tables.results_table(runs.Results(rows, {}))
  assert [c.text for c in _column(table, "forward KL")] == ["–", "3"]
  assert tables.number(float("inf")) == "–"


def test_only_settings_that_differ_are_listed():
  pair = [
    _run("a", LEARNING_RATE="0.1", SEED="0", MODEL_DIR='"a"'),
    _run("b", LEARNING_RATE="0.2", SEED="0", MODEL_DIR='"b"', EXTRA="1"),
  ]
  table = tables.differences_table(pair)
  assert [[cell.text for cell in row] for row in table.rows] == [
    ["LEARNING_RATE", "0.1", "0.2"],
  ]
  table = tables.partial_table(pair)
  assert [[cell.text for cell in row] for row in table.rows] == [
    ["EXTRA", "–", "1"],
  ]
  assert tables.differences_table([_run("a", SEED="0")]) is None
  assert tables.partial_table([_run("a", SEED="0")]) is None


def test_reference_to_a_macro_is_no_difference_but_another_macro_is():
  first = _run("a", **{"x.Rate.value": "%RATE"}, MODEL="%SMALL")
  second = _run("b", MODEL="%LARGE")
  assert tables.partial_table([first, second]) is None
  (row,) = tables.differences_table([first, second]).rows
  assert [cell.text for cell in row] == ["MODEL", "%SMALL", "%LARGE"]


def test_equal_values_have_no_best():
  rows = [_row("sft", accuracy_greedy=0.0), _row("seqkd", accuracy_greedy=0.0)]
  table = tables.results_table(runs.Results(rows, {}))
  assert not any(cell.best for cell in _column(table, "accuracy, greedy"))


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
    "steps",
    "toy accuracy",
    "last train loss",
    "time",
  ]
  assert [c.text for c in table.rows[0]] == ["a", "20", "7.5", "2.5", "12 s"]


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (0, "0"),
    (1234567, "1,234,567"),
    (1234.6, "1,235"),
    (51.239, "51.24"),
    (0.00012345, "0.0001234"),
    (True, "–"),
  ],
)
def test_number_has_four_digits(value, text):
  assert tables.number(value) == text


@pytest.mark.parametrize(
  ("seconds", "text"),
  [(12.34, "12.3 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")],
)
def test_duration_reads_as_one_says_it(seconds, text):
  assert tables.duration(seconds) == text
