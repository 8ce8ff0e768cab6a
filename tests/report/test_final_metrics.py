"""Bars of where runs ended."""

import math

from gkd.report import final_metrics
from tests.report.example_runs import bounds
from tests.report.example_runs import run
from tests.report.example_runs import score
from tests.report.example_runs import teacher


def bars(runs):
  return final_metrics.scores(runs, score(), "Accuracy", "Per cent.")


def test_evaluations_are_bars_with_their_intervals_and_the_teacher():
  first = {score(): [5.0], teacher(): [9.0], **bounds(score(), [4.0], [7.0])}
  chart = bars(
    [
      run("a", first),
      run("b", {score(): [6.0]}),
      run("c", {score(): [math.nan]}),
    ]
  )
  own, reference = chart.series
  assert chart.groups == ["a", "b"]
  assert chart.title == "Accuracy at the end"
  assert own.ys == [5.0, 6.0]
  assert (own.low[0], own.high[0]) == (4.0, 7.0)
  assert math.isnan(own.low[1])
  assert reference.is_reference
  assert reference.ys[0] == 9.0
  assert math.isnan(reference.ys[1])
  assert chart.note == "Per cent. Lines: 95 % interval over the prompts."


def test_seeds_are_a_mean_and_dots_without_an_interval():
  ends = bounds(score(), [0.0], [9.0])
  runs = [
    run(f"{n}/{arm}", {score(): [value + n], **ends}, arm=arm)
    for n in range(2)
    for arm, value in (("sft", 1.0), ("seqkd", 3.0))
  ]
  (own,) = bars(runs).series
  assert own.ys == [1.5, 3.5]
  assert own.points == [[1.0, 2.0], [3.0, 4.0]]
  assert all(map(math.isnan, own.low))


def test_bars_are_drawn_only_where_curves_do_not_show_all_ends():
  trained = [run(name, {score(): [1.0, 2.0]}) for name in "ab"]
  scores = run("c", {score(): [3.0]})
  assert bars(trained) is None
  assert bars([scores]) is None
  assert bars([*trained, scores]).groups == ["a", "b", "c"]


def test_time_of_an_arm_is_the_mean_of_its_runs():
  runs = [
    run(str(n), {"time/update_seconds": seconds}, arm="sft")
    for n, seconds in enumerate(([1.0, 2.0], [1.0]))
  ]
  chart = final_metrics.time_split(runs)
  assert chart.groups == ["sft · 2 s"]
  assert [list(s.ys) for s in chart.series] == [[2.0]]
  assert final_metrics.time_split([run("a", {score(): [1.0]})]) is None
