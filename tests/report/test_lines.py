"""Charts of curves: one line per arm, its band, and the teacher."""

import math

import numpy as np
import pytest

from gkd.report import lines
from gkd.report.runs import Run

NAME = "eval/toy/accuracy"


def _run(name, steps, is_evaluation=False, **metrics):
  """`accuracy=…, teacher_accuracy=…` become metrics of one task."""
  curves = {
    f"eval/toy/{key}": (list(steps), list(values))
    for key, values in metrics.items()
  }
  return Run(name, name, curves, {}, "", {}, [], is_evaluation=is_evaluation)


def _chart(runs, name=NAME):
  return lines.chart(runs, name, "Title", "Note.")


def test_interval_of_a_single_run_is_the_band_around_its_line():
  run = _run(
    "a",
    [1, 2, 3],
    accuracy=[5.0, 6.0, 7.0],
    accuracy_ci_low=[4.0, 5.5, math.nan],
    accuracy_ci_high=[8.0, 6.5, math.nan],
  )
  chart = _chart([run])
  (line,) = chart.series
  assert list(line.low) == [4.0, 5.5, 7.0]
  assert list(line.high) == [8.0, 6.5, 7.0]
  assert chart.note == "Note. Band: 95 % interval over the prompts."


def test_values_that_no_axis_holds_are_left_out():
  run = _run("a", [1, 2, 3, 4], accuracy=[5.0, 1.7e308, -1.7e308, 7.0])
  (line,) = _chart([run]).series
  assert (list(line.xs), list(line.ys)) == ([1, 4], [5.0, 7.0])


def test_band_of_several_seeds_is_the_seeds_and_not_their_intervals():
  runs = [
    _run(
      f"seed_{n}/sft",
      [1, 2],
      accuracy=[5.0 + n, 6.0 + n],
      accuracy_ci_low=[0.0, 0.0],
      accuracy_ci_high=[9.0, 9.0],
    )
    for n in range(2)
  ]
  chart = _chart(runs)
  (line,) = chart.series
  assert (list(line.low), list(line.high)) == ([5.0, 6.0], [6.0, 7.0])
  assert chart.note == "Note."


def test_one_teacher_is_one_line_whatever_the_number_of_runs():
  runs = [
    _run("a", [1, 2], accuracy=[1.0, 2.0], teacher_accuracy=[9.0, 9.0]),
    _run("b", [1, 4], accuracy=[2.0, 3.0], teacher_accuracy=[9.0, 9.0]),
    _run("c", [1, 4], accuracy=[2.0, 3.0]),
  ]
  *_, teacher = _chart(runs).series
  assert [one.is_reference for one in _chart(runs).series] == [False] * 3 + [
    True
  ]
  assert (teacher.name, teacher.colour) == ("teacher, same examples", None)
  assert set(teacher.ys) == {9.0}


def test_other_teachers_are_lines_in_the_colours_of_their_runs():
  runs = [
    _run("a", [1, 2], accuracy=[1.0, 2.0], teacher_accuracy=[8.0, 8.0]),
    _run("b", [1, 2], accuracy=[2.0, 3.0], teacher_accuracy=[9.0, 9.0]),
  ]
  teachers = [s for s in _chart(runs).series if s.is_reference]
  assert [(s.name, s.colour, s.ys[0]) for s in teachers] == [
    ("teacher of a", 0, 8.0),
    ("teacher of b", 1, 9.0),
  ]


def test_evaluation_of_a_checkpoint_is_no_point_of_a_curve():
  runs = [
    _run("a", [10, 20], accuracy=[1.0, 2.0]),
    _run("scores", [0], is_evaluation=True, accuracy=[5.0]),
    _run("b", [10, 20], accuracy=[1.0, 2.0]),
  ]
  assert [(s.name, s.colour, list(s.xs)) for s in _chart(runs).series] == [
    ("a", 0, [10, 20]),
    ("b", 2, [10, 20]),  # of the colour that it has in other charts
  ]
  assert _chart(runs[1:2]) is None


def test_mean_is_taken_where_every_seed_has_a_finite_value():
  runs = [
    _run("seed_0/sft", (10, 20, 30, 40), accuracy=[1.0, 2.0, 3.0, 4.0]),
    _run("seed_1/sft", (10, 20, 30), accuracy=[3.0, math.nan, 5.0]),
  ]
  (line,) = _chart(runs).series
  assert list(line.xs) == [10, 30]
  assert list(line.ys) == [2.0, 4.0]


def test_run_that_ended_in_nan_has_a_cross_in_its_training_curves():
  losses = ([1, 2, 3], [2.0, 5.0, math.nan])
  lengths = ([1, 2, 3], [7.0, 7.0, 7.0])
  metrics = {"train/loss": losses, "train/sampled_length": lengths}
  run = Run("a", "a", metrics, {}, "", {}, [])
  (line,) = _chart([run], "train/loss").series
  assert line.is_broken
  assert list(line.xs) == [1, 2]
  (line,) = _chart([run], "train/sampled_length").series
  assert not line.is_broken


@pytest.mark.parametrize(
  ("steps", "expected"),
  [
    ([2**n for n in range(11)], True),
    ([0, 1, 3, 10, 30, 100, 300, 1000], True),
    (range(0, 1001, 100), False),
    ([1, 10, 100], False),  # too few to be a plan
    ([*range(1, 10), 1000], True),
  ],
)
def test_log_axis_is_taken_where_steps_would_be_crowded(steps, expected):
  assert lines.is_log_spaced(list(steps)) is expected
  run = _run("a", steps, accuracy=[1.0 + n for n in range(len(steps))])
  assert _chart([run]).x_scale == ("log" if expected else "linear")


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    ([1.0, 1.1, 1.2, 500.0], True),
    ([1.0, 2.0, 3.0, 4.0], False),
    ([0.0, 1.0, 1.0, 500.0], False),  # has no place on a log axis
    ([-1.0, 1.0, 1.0, 500.0], False),
  ],
)
def test_outlier_among_positive_values_makes_the_axis_logarithmic(
  values, expected
):
  chart = _chart([_run("a", range(1, 5), accuracy=values)])
  assert chart.y_scale == ("log" if expected else "linear")
  assert ("Logarithmic vertical axis." in chart.note) is expected


def test_long_run_is_drawn_in_stretches_and_says_so():
  values = np.random.default_rng(0).normal(size=20_000)
  values[1234] = 50.0
  chart = _chart([_run("a", range(20_000), accuracy=values)])
  (line,) = chart.series
  assert chart.is_thinned
  assert len(line.xs) == 200
  assert max(line.high) == 50.0
  assert min(line.low) == values.min()


def test_memory_is_in_mebibytes():
  metrics = {"memory/peak_bytes": ([1, 2], [2.0**20, 2.0**21])}
  run = Run("a", "a", metrics, {}, "", {}, [])
  (line,) = _chart([run], "memory/peak_bytes").series
  assert list(line.ys) == [1.0, 2.0]
