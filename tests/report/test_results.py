"""The table of results: spread over seeds, best of a column, arms apart."""

import numpy as np
import pytest

from gkd.report import results
from gkd.report import runs


def _row(method, seed=0, **values):
  return {"method": method, "seed": seed, **values}


def _column(table, title):
  place = list(table.header).index(title)
  return [row[place] for row in table.rows]


def test_seeds_become_mean_and_sample_standard_deviation():
  values = [51.0, 52.5, 54.3]
  rows = [_row("seqkd", i, accuracy_greedy=v) for i, v in enumerate(values)]
  table = results.results_table(runs.Results(rows, {}))
  (cell,) = _column(table, "accuracy, greedy (%)")
  mean, deviation = (float(part) for part in cell.text.split(" ± "))
  assert mean == pytest.approx(np.mean(values), abs=0.05)
  assert deviation == pytest.approx(np.std(values, ddof=1), abs=0.05)
  assert "3 seeds" in table.note


def test_one_seed_is_shown_without_a_spread_and_says_so():
  rows = [_row("sft", accuracy_greedy=51.25)]
  table = results.results_table(runs.Results(rows, {}))
  assert _column(table, "accuracy, greedy (%)")[0].text == "51.2"
  assert "One seed" in table.note


def test_best_student_is_marked_and_never_the_teacher():
  rows = [
    _row("gkd_on_policy", accuracy_greedy=50.0, forward_kl=2.0),
    _row("teacher", accuracy_greedy=90.0, forward_kl=0.0),
    _row("sft", accuracy_greedy=20.0, forward_kl=1.5),
  ]
  table = results.results_table(runs.Results(rows, {}))
  assert [row[0].text for row in table.rows] == [
    "Teacher",
    "Student after SFT",
    "On-policy GKD",
  ]
  best = [cell.best for cell in _column(table, "accuracy, greedy (%)")]
  assert best == [False, False, True]
  best = [cell.best for cell in _column(table, "forward KL (nats a sequence)")]
  assert best == [False, True, False]  # less is better


def test_time_has_no_best():
  rows = [_row("sft", train_seconds=1.0), _row("seqkd", train_seconds=2.0)]
  table = results.results_table(runs.Results(rows, {}))
  assert not any(cell.best for cell in _column(table, "training (s)"))


def test_rows_of_other_settings_are_not_averaged():
  rows = [
    _row(
      "gkd_mixed", **{"lambda": 0.25}, divergence="JSD", accuracy_greedy=1.0
    ),
    _row("gkd_mixed", **{"lambda": 0.5}, divergence="JSD", accuracy_greedy=3.0),
  ]
  groups = results.groups(runs.Results(rows, {}))
  assert [group.label for group in groups] == [
    "Mixed GKD, λ 0.25",
    "Mixed GKD, λ 0.5",
  ]
  assert [group.values("accuracy_greedy") for group in groups] == [[1.0], [3.0]]


def test_missing_and_infinite_values_show_as_dash():
  rows = [_row("sft", forward_kl=None, accuracy_greedy=1.0)]
  rows.append(_row("seqkd", forward_kl=3.0))
  table = results.results_table(runs.Results(rows, {}))
  assert [c.text for c in _column(table, "forward KL (nats a sequence)")] == [
    "–",
    "3.00",
  ]


def test_equal_values_have_no_best():
  rows = [_row("sft", accuracy_greedy=0.0), _row("seqkd", accuracy_greedy=0.0)]
  table = results.results_table(runs.Results(rows, {}))
  assert not any(cell.best for cell in _column(table, "accuracy, greedy (%)"))


def test_rows_are_named_by_their_run_where_they_have_one():
  rows = [
    _row("sft", run="student", labels="1,000: the start"),
    _row("sft", run="sft_continued", labels="1,000"),
    _row("supervised_kd", run="supervised_kd", labels="teacher text"),
    _row("supervised_kd", run="supervised_kd_labels", labels="2,000"),
    _row("sft", run="my_run"),
  ]
  groups = results.groups(runs.Results(rows[::-1], {}))
  assert [group.label for group in groups] == [
    "Student after SFT (start)",
    "SFT continued",
    "Supervised KD",
    "Supervised KD on solutions",
    "my_run",
  ]
  # Without a run the settings have to tell rows of one method apart.
  for row in rows[:2]:
    del row["run"]
  groups = results.groups(runs.Results(rows[:2], {}))
  assert [group.label for group in groups] == [
    "Student after SFT, 1,000: the start",
    "Student after SFT, 1,000",
  ]


def test_number_that_all_students_share_is_said_once():
  rows = [_row("teacher", updates=None), _row("sft", updates=1000)]
  rows.append(_row("seqkd", updates=1000))
  table = results.results_table(runs.Results(rows, {}))
  assert "updates" not in table.header
  assert "All students: 1,000 updates." in table.note
  rows.append(_row("gkd_mixed", updates=500))
  table = results.results_table(runs.Results(rows, {}))
  assert [c.text for c in _column(table, "updates")] == [
    "–",
    "1,000",
    "1,000",
    "500",
  ]
