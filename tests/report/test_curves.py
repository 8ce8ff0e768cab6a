"""Curves: one line and colour per arm, whatever the number of seeds."""

import math

import pytest

from gkd.report import curves
from gkd.report.runs import Run


def _run(name, values, steps=(10, 20)):
  metrics = {"eval/toy/accuracy": (list(steps), values)}
  metrics["time/update_seconds"] = (list(steps), [1.0] * len(steps))
  return Run(name, name, metrics, {}, "", {}, [])


def _accuracy(runs):
  (chart,) = curves.from_runs(runs)["Evaluation"]
  assert chart.title == "Accuracy"
  assert chart.note == "Per cent."
  return chart.series


def test_seeds_of_an_arm_are_one_line_in_a_band():
  runs = [
    _run(f"seed_{seed}/{arm}", [start + seed, start + 5.0 * seed])
    for seed in range(3)
    for arm, start in (("seqkd", 30.0), ("gkd_mixed", 50.0))
  ]
  first, second = _accuracy(runs)
  assert (first.name, second.name) == ("SeqKD", "Mixed GKD")
  assert first.colour != second.colour
  assert list(second.xs) == [10, 20]
  assert list(second.ys) == pytest.approx([51.0, 55.0])
  assert list(second.low) == [50.0, 50.0]
  assert list(second.high) == [52.0, 60.0]
  assert [name for name, _ in curves.legend(runs)] == ["SeqKD", "Mixed GKD"]


def test_mean_is_taken_where_every_seed_has_a_finite_value():
  runs = [
    _run("seed_0/sft", [1.0, 2.0, 3.0, 4.0], (10, 20, 30, 40)),
    _run("seed_1/sft", [3.0, math.nan, 5.0], (10, 20, 30)),
  ]
  (line,) = _accuracy(runs)
  assert list(line.xs) == [10, 30]
  assert list(line.ys) == [2.0, 4.0]


def test_time_of_an_arm_is_the_mean_of_its_runs():
  runs = [_run("seed_0/sft", [1.0, 2.0]), _run("seed_1/sft", [1.0], (10,))]
  chart = curves.from_runs(runs)["Time and memory"][0]
  assert chart.groups == ["Student after SFT · 1.5 s"]
  assert [list(s.ys) for s in chart.series] == [[1.5]]
