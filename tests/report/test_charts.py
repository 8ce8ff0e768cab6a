"""Charts of results show each row once and mix no two kinds of labels."""

from gkd.report import charts
from gkd.report.runs import Results


def _row(fraction, labels, accuracy, divergence="ForwardKL", seed=0, **more):
  return {
    "method": "gkd_mixed",
    "lambda": fraction,
    "labels": labels,
    "divergence": divergence,
    "accuracy_greedy": accuracy,
    "seed": seed,
    **more,
  }


def _lines(rows):
  found = charts.from_results(Results(rows, {}))
  chart = next((c for c in found if c.slug == "lambda_dependence"), None)
  return {} if chart is None else {s.name: s for s in chart.series}


def test_labels_of_two_kinds_are_two_lines_that_end_where_none_are_used():
  rows = [
    _row(0.0, "teacher text", 45.0),
    _row(0.0, "2,000 solutions", 49.5),
    _row(0.5, "teacher text", 55.0),
    _row(1.0, "none", 62.0),
    _row(1.0, "none", 30.0, "ReverseKL"),
  ]
  lines = _lines(rows)
  points = {
    name: list(zip(s.xs, s.ys, strict=True)) for name, s in lines.items()
  }
  assert points == {
    "forward KL, teacher text": [(0.0, 45.0), (0.5, 55.0), (1.0, 62.0)],
    "forward KL, 2,000 solutions": [(0.0, 49.5), (1.0, 62.0)],
  }


def test_line_is_the_mean_over_seeds_in_a_band_of_all():
  rows = [
    _row(x, "text", x * 10 + s, seed=s) for x in (0.0, 1.0) for s in (1, 2, 6)
  ]
  (line,) = _lines(rows).values()
  assert list(line.ys) == [3.0, 13.0]
  assert list(line.low) == [1.0, 11.0]
  assert list(line.high) == [6.0, 16.0]


def test_groups_that_differ_in_something_else_are_not_joined_by_a_line():
  rows = [
    _row(0.0, "text", 40.0, run="cold"),
    _row(0.0, "text", 50.0, run="hot"),
    _row(1.0, "none", 60.0),
  ]
  assert _lines(rows) == {}


def test_bars_are_means_with_the_seeds_as_points():
  rows = [
    _row(0.5, "text", value, seed=s) for s, value in enumerate((1.0, 4.0))
  ]
  chart, *_ = charts.from_results(Results(rows, {}))
  assert chart.slug == "accuracy"
  (series,) = chart.series
  assert series.ys == [2.5]
  assert series.points == [[1.0, 4.0]]
