"""Curves: which charts there are, their bands, scales and references."""

import math

import numpy as np
import pytest

from gkd.report import curves
from gkd.report import sections
from tests.report.example_runs import bounds
from tests.report.example_runs import kl
from tests.report.example_runs import run
from tests.report.example_runs import score
from tests.report.example_runs import teacher


def chart(runs, metric=None):
  return curves.chart(runs, metric or score(), "Title", "Note.")


def points(line):
  return dict(zip(line.xs, line.ys, strict=True))


def band(line):
  return list(zip(line.low, line.high, strict=True))


def titles(runs):
  return {
    section: [chart.title for chart in charts]
    for section, charts in sections.sections(runs).items()
  }


def test_sections_come_in_reading_order_whatever_the_runs_report():
  metrics = [
    "memory/peak_bytes",
    "time/update_seconds",
    "train/odd",
    "train/lambda",
    "train/loss",
    score(),
    *score().bounds,
    teacher(),
    kl(),
    score(metric="length"),
    "train/learning_rate",
  ]
  found = titles([run("a", {m: {10: 11.0, 20: 21.0} for m in metrics})])
  assert list(found.items()) == [
    ("Evaluation", ["Accuracy", "Forward KL"]),
    ("Training", ["Training loss"]),
    ("Student-generated data", ["λ as realised"]),
    ("Optimizer", ["Learning rate"]),
    ("Time and memory", ["Peak memory", "Where the time went"]),
    ("More", ["Evaluation: length", "train/odd"]),
  ]


def test_each_task_and_split_has_a_section():
  metrics = [
    score(task=task, metric=metric)
    for task in ("svamp", "gsm8k")
    for metric in ("accuracy", "length")
  ]
  assert titles([run("a", {key: [1.0, 2.0] for key in metrics})]) == {
    "Evaluation: gsm8k test": ["Accuracy"],
    "Evaluation: svamp test": ["Accuracy"],
    "More": ["Evaluation: gsm8k test length", "Evaluation: svamp test length"],
  }


def test_of_many_arms_one_distance_and_the_training_are_above_the_fold():
  metrics = [kl(), kl(metric="jsd"), "train/loss", "train/grad_norm", "odd"]
  runs = [run(f"{n}", {m: [2.0, 1.0] for m in metrics}) for n in range(7)]

  def folded(runs):
    drawn = sections.sections(runs).values()
    return [c.title for charts in drawn for c in charts if c.is_folded]

  assert folded(runs) == ["JSD", "Gradient norm", "odd"]
  assert folded(runs[:6]) == ["odd"]


def test_distances_to_different_teachers_share_no_chart():
  runs = [run(name, {kl(name): [1.0, 2.0]}) for name in "xy"]
  (section,) = sections.sections(runs).values()
  assert [(c.title, [s.name for s in c.series]) for c in section] == [
    ("Forward KL to the teacher x", ["x"]),
    ("Forward KL to the teacher y", ["y"]),
  ]
  assert len({c.slug for c in section}) == 2


def test_charts_of_a_page_have_names_of_their_own():
  first = run("a", {m: [1.0, 2.0] for m in (score(), "train/loss")})
  runs = [first, run("b", {score(): [1.0]}, is_evaluation=True)]
  slugs = [c.slug for found in sections.sections(runs).values() for c in found]
  assert slugs == [
    "eval_toy_test_accuracy",
    "eval_toy_test_accuracy_end",
    "train_loss",
  ]


def test_evaluation_of_a_checkpoint_is_no_point_of_a_curve():
  runs = [
    run("a", {score(): {10: 1.0, 20: 2.0}}),
    run("scores", {score(): [5.0]}, is_evaluation=True),
    run("b", {score(): {10: 1.0, 20: 2.0}}),
  ]
  assert [(s.name, s.colour, list(s.xs)) for s in chart(runs).series] == [
    ("a", 0, [10, 20]),
    ("b", 2, [10, 20]),  # of the colour that it has in other charts
  ]
  assert chart(runs[1:2]) is None
  assert [(s.name, s.colour) for s in curves.legend(runs)] == [
    ("a", 0),
    ("b", 2),
  ]


def test_interval_of_a_single_run_is_the_band_around_its_line():
  ends = bounds(score(), [4.0, 5.5, math.nan], [8.0, 6.5, math.nan])
  found = chart([run("a", {score(): [5.0, 6.0, 7.0], **ends})])
  (line,) = found.series
  assert band(line) == [(4.0, 8.0), (5.5, 6.5), (7.0, 7.0)]
  assert found.note == "Note. Band: 95 % interval over the prompts."


def test_band_of_several_seeds_is_the_seeds_and_not_their_intervals():
  ends = bounds(score(), [0.0, 0.0], [9.0, 9.0])
  runs = [
    run(f"{n}", {score(): [5.0 + n, 6.0 + n], **ends}, arm="sft")
    for n in range(2)
  ]
  found = chart(runs)
  (line,) = found.series
  assert band(line) == [(5.0, 6.0), (6.0, 7.0)]
  assert found.note == "Note."


def test_mean_is_taken_where_every_seed_has_a_finite_value():
  runs = [
    run("0", {score(): {10: 1.0, 20: 2, 30: 3, 40: 4}}, arm="sft"),
    run("1", {score(): {10: 3.0, 20: math.nan, 30: 5.0}}, arm="sft"),
  ]
  (line,) = chart(runs).series
  assert points(line) == {10: 2.0, 30: 4.0}


def test_values_that_no_axis_holds_are_left_out():
  values = [5.0, 1.7e308, -1.7e308, 7.0]
  (line,) = chart([run("a", {score(): values})]).series
  assert points(line) == {0: 5.0, 3: 7.0}


def test_teachers_are_one_line_each_by_their_hash():
  def with_teacher(name, model):
    return run(name, {score(): [1.0, 2.0], teacher(model): [9.0, 9.0]})

  runs = [with_teacher("a", "x"), with_teacher("b", "x")]
  runs.append(run("c", {score(): [2.0, 3.0]}))
  (reference,) = [s for s in chart(runs).series if s.is_reference]
  assert (reference.name, reference.colour) == ("Teacher, same examples", None)
  assert set(reference.ys) == {9.0}
  runs.append(with_teacher("d", "y"))
  references = [s for s in chart(runs).series if s.is_reference]
  assert [(s.name, s.colour) for s in references] == [
    ("Teacher x, same examples", 0),
    ("Teacher y, same examples", 3),
  ]


def test_run_that_ended_in_nan_has_a_cross_in_its_training_curves():
  metrics = {
    "train/loss": {1: 2.0, 2: 5.0, 3: math.nan},
    "train/sampled_length": {1: 7.0, 2: 7.0, 3: 7.0},
  }
  broken, whole = (chart([run("a", metrics)], m).series[0] for m in metrics)
  assert broken.is_broken
  assert list(broken.xs) == [1, 2]
  assert not whole.is_broken


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
  values = {step: 1.0 + n for n, step in enumerate(steps)}
  found = chart([run("a", {score(): values})])
  assert found.x_scale == ("log" if expected else "linear")


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
  found = chart([run("a", {score(): values})])
  assert found.y_scale == ("log" if expected else "linear")
  assert ("Logarithmic vertical axis." in found.note) is expected


@pytest.mark.parametrize("count", [400, 401, 999, 20_000])
def test_long_curve_is_means_in_a_band_of_its_extremes_and_says_so(count):
  values = np.random.default_rng(0).normal(size=count)
  values[count // 3], values[-2] = 1e6, -1e6  # spikes of a single step
  found = chart([run("a", {score(): values})])
  (line,) = found.series
  assert found.is_downsampled is (count > 400)
  if count == 400:
    assert points(line) == dict(enumerate(values))
    return
  assert len(line.xs) == 200
  assert line.xs[-1] == count - 1
  # All points count once.
  start = 0
  for place, end in enumerate(line.xs):
    part = values[start : end + 1]
    assert 1 <= len(part) <= -(-count // 200)
    np.testing.assert_allclose(line.ys[place], part.mean(), rtol=1e-9)
    assert (line.low[place], line.high[place]) == (part.min(), part.max())
    start = end + 1


def test_memory_is_in_mebibytes():
  memory = run("a", {"memory/peak_bytes": [2.0**20, 2.0**21]})
  (line,) = chart([memory], "memory/peak_bytes").series
  assert list(line.ys) == [1.0, 2.0]
