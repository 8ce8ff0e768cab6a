"""The table of results and its charts: spread over seeds, best, arms apart."""

import datetime
from pathlib import Path
import runpy

import numpy as np
import pytest

from gkd.report import read
from gkd.report import results
from gkd.report.results import Results

COLUMNS = {
  "accuracy": {
    "title": "accuracy, greedy",
    "unit": "%",
    "direction": "max",
    "chart": "Accuracy",
  },
  "kl": {
    "title": "forward KL",
    "unit": "nats per sequence",
    "direction": "min",
    "chart": "Distance",
  },
  "seconds": {"title": "training", "unit": "s"},
}


def row(method, seed=0, **values):
  return {"method": method, "seed": seed, **values}


def table(rows, **more):
  return results.table(Results(rows, columns=COLUMNS, **more))


def cells(found, title):
  """Text, and whether it is the best, of each cell of a column."""
  place = list(found.header).index(title)
  return [(row[place].text, row[place].is_best) for row in found.rows]


def labels(*args, **fields):
  return [arm.name for arm in results.groups(Results(*args, **fields))]


def test_seeds_become_mean_and_sample_standard_deviation():
  values = [51.0, 52.5, 54.3]
  found = table([row("seqkd", i, accuracy=v) for i, v in enumerate(values)])
  mean, deviation = np.mean(values), np.std(values, ddof=1)
  text = f"{mean:.1f} ± {deviation:.1f}"
  assert cells(found, "accuracy, greedy (%)") == [(text, False)]
  assert "3 seeds" in found.note
  single = table([row("sft", accuracy=51.25)])
  assert cells(single, "accuracy, greedy (%)") == [("51.2", False)]
  assert "One seed" in single.note


def test_best_student_is_marked_and_never_the_teacher():
  found = table(
    [
      row("teacher", accuracy=90.0, kl=0.0, seconds=1.0),
      row("sft", accuracy=20.0, kl=1.5, seconds=2.0),
      row("gkd", accuracy=50.0, kl=2.0, seconds=3.0),
    ]
  )
  for title, best in (
    ("accuracy, greedy (%)", [False, False, True]),
    ("forward KL (nats per sequence)", [False, True, False]),
    ("training (s)", [False, False, False]),  # has no direction
  ):
    assert [is_best for _, is_best in cells(found, title)] == best
  equal = table([row("sft", accuracy=0.0), row("gkd", accuracy=0.0)])
  assert cells(equal, "accuracy, greedy (%)") == [("0.0", False)] * 2
  assert "bold" not in equal.note


def test_column_that_is_not_described_is_shown_by_its_plain_name():
  found = results.table(
    Results([row("sft", eval_kl=1.5), row("gkd", eval_kl=2.5)])
  )
  assert cells(found, "eval KL") == [("1.5", False), ("2.5", False)]


def test_missing_values_show_as_dash():
  found = table([row("sft", kl=None, accuracy=1.0), row("seqkd", kl=3.0)])
  texts = [text for text, _ in cells(found, "forward KL (nats per sequence)")]
  assert texts == ["–", "3.00"]


@pytest.mark.parametrize(
  ("task", "scores", "charts"),
  [
    ("gsm8k", ["accuracy (%)", "with calculator (%)"], ["Accuracy"]),
    ("tatoeba_ende", ["BLEU"], ["BLEU"]),
    ("scitldr", ["ROUGE-1", "ROUGE-2", "ROUGE-L"], ["ROUGE"]),
  ],
)
def test_results_of_real_tasks_describe_their_columns(task, scores, charts):
  root = Path(__file__).parents[2]
  found = read.read([str(root / "results" / task)]).results
  head = list(results.table(found).header)
  assert head[: len(scores) + 1] == ["method", *scores]
  assert head[len(scores) + 1 :] == [
    "length (tokens)",
    "truncation rate",
    "training (s)",
    "test (s)",
    "labels",
  ]
  drawn = [chart.title for chart in results.charts(found)]
  assert drawn == [*charts, "Training time"]
  assert labels(*found) == list(found.labels.values())
  # The script that makes the files says the same.
  script = runpy.run_path(str(root / "launch" / "real_tasks_table.py"))
  date = datetime.date.fromisoformat(found.meta["date"])
  hardware = found.meta["hardware"]
  made = script["description"](task, found.rows, hardware, date)
  assert made == {n: getattr(found, n) for n in ("meta", "columns", "labels")}


def test_rows_of_other_settings_are_not_averaged():
  rows = [
    row("gkd", **{"lambda": fraction}, divergence="JSD", accuracy=accuracy)
    for fraction, accuracy in ((0.25, 1.0), (0.5, 3.0))
  ]
  arms = results.groups(Results(rows))
  assert [(arm.name, arm.values("accuracy")) for arm in arms] == [
    ("gkd, λ 0.25", [1.0]),
    ("gkd, λ 0.5", [3.0]),
  ]


def test_labels_are_those_of_the_experiment():
  rows = [
    row("sft", run="student", labels="1,000: the start"),
    row("sft", run="sft_continued", labels="1,000"),
  ]
  given = {"student": "Student after SFT (start)"}
  assert labels(rows, labels=given) == [given["student"], "sft continued"]
  # Without a run the settings have to tell rows of one method apart.
  for entry in rows:
    del entry["run"]
  assert labels(rows) == ["sft, 1,000: the start", "sft, 1,000"]


def mixed(fraction, labels, accuracy, divergence="forward KL", **more):
  values = {"lambda": fraction, "labels": labels, "divergence": divergence}
  return row("gkd", accuracy=accuracy, **values, **more)


def lambda_lines(rows):
  charts = results.charts(Results(rows, columns=COLUMNS))
  chart = next((c for c in charts if c.slug == "lambda_dependence"), None)
  return {} if chart is None else {s.name: s for s in chart.series}


def test_labels_of_two_kinds_are_two_lines_that_end_where_none_are_used():
  lines = lambda_lines(
    [
      mixed(0.0, "teacher text", 45.0),
      mixed(0.0, "2,000 solutions", 49.5),
      mixed(0.5, "teacher text", 55.0),
      mixed(1.0, "none", 62.0),
      mixed(1.0, "none", 30.0, "reverse KL"),
    ]
  )
  points = {n: dict(zip(s.xs, s.ys, strict=True)) for n, s in lines.items()}
  assert points == {
    "forward KL, teacher text": {0.0: 45.0, 0.5: 55.0, 1.0: 62.0},
    "forward KL, 2,000 solutions": {0.0: 49.5, 1.0: 62.0},
  }


def test_line_is_the_mean_over_seeds_in_a_band_of_all():
  (line,) = lambda_lines(
    [
      mixed(x, "text", x * 10 + s, seed=s)
      for x in (0.0, 1.0)
      for s in (1, 2, 6)
    ]
  ).values()
  assert list(line.ys) == [3.0, 13.0]
  assert list(line.low) == [1.0, 11.0]
  assert list(line.high) == [6.0, 16.0]


def test_groups_that_differ_in_something_else_are_not_joined_by_a_line():
  rows = [
    mixed(0.0, "text", 40.0, run="cold"),
    mixed(0.0, "text", 50.0, run="hot"),
    mixed(1.0, "none", 60.0),
  ]
  assert lambda_lines(rows) == {}


def test_columns_of_one_chart_are_bars_with_the_seeds_as_points():
  rows = [row("sft", s, accuracy=v) for s, v in enumerate((1.0, 4.0))]
  (chart,) = results.charts(Results(rows, columns=COLUMNS))
  assert (chart.slug, chart.title) == ("accuracy", "Accuracy")
  assert chart.note.startswith("Per cent.")
  (series,) = chart.series
  assert series.ys == [2.5]
  assert series.points == [[1.0, 4.0]]
