"""Bars of where runs ended."""

import math

from gkd.report import ends
from gkd.report.runs import Run

NAME = "eval/toy/accuracy"


def _run(name, steps=(0,), is_evaluation=True, **metrics):
  curves = {
    f"eval/toy/{key}": (list(steps), list(values))
    for key, values in metrics.items()
  }
  return Run(name, name, curves, {}, "", {}, [], is_evaluation=is_evaluation)


def _chart(runs):
  return ends.scores(runs, NAME, "Accuracy", "Per cent.")


def test_evaluations_are_bars_with_their_intervals_and_the_teacher():
  runs = [
    _run(
      "a",
      accuracy=[5.0],
      accuracy_ci_low=[4.0],
      accuracy_ci_high=[7.0],
      teacher_accuracy=[9.0],
    ),
    _run("b", accuracy=[6.0]),
    _run("c", accuracy=[math.nan]),
  ]
  chart = _chart(runs)
  bars, teacher = chart.series
  assert chart.groups == ["a", "b"]
  assert chart.title == "Accuracy at the end"
  assert bars.ys == [5.0, 6.0]
  assert (bars.low[0], bars.high[0]) == (4.0, 7.0)
  assert math.isnan(bars.low[1])
  assert teacher.is_reference
  assert teacher.ys[0] == 9.0
  assert math.isnan(teacher.ys[1])
  assert chart.note == "Per cent. Lines: 95 % interval over the prompts."


def test_seeds_are_a_mean_and_dots_without_an_interval():
  runs = [
    _run(
      f"seed_{n}/{arm}",
      accuracy=[value + n],
      accuracy_ci_low=[0.0],
      accuracy_ci_high=[9.0],
    )
    for n in range(2)
    for arm, value in (("sft", 1.0), ("seqkd", 3.0))
  ]
  (bars,) = _chart(runs).series
  assert bars.ys == [1.5, 3.5]
  assert bars.points == [[1.0, 2.0], [3.0, 4.0]]
  assert all(map(math.isnan, bars.low))


def test_bars_are_drawn_only_where_curves_do_not_show_all_ends():
  trained = [
    _run(name, (10, 20), is_evaluation=False, accuracy=[1.0, 2.0])
    for name in "ab"
  ]
  scores = _run("c", accuracy=[3.0])
  assert _chart(trained) is None
  assert _chart([scores]) is None
  assert _chart([*trained, scores]).groups == ["a", "b", "c"]


def test_time_of_an_arm_is_the_mean_of_its_runs():
  def run(name, seconds):
    steps = list(range(len(seconds)))
    metrics = {"time/update_seconds": (steps, seconds)}
    return Run(name, name, metrics, {}, "", {}, [])

  runs = [run("seed_0/sft", [1.0, 2.0]), run("seed_1/sft", [1.0])]
  chart = ends.time_split(runs)
  assert chart.groups == ["Student after SFT · 2 s"]
  assert [list(s.ys) for s in chart.series] == [[2.0]]
  assert ends.time_split([_run("scores", accuracy=[1.0])]) is None
