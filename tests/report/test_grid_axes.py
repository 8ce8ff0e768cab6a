"""Scores against an axis of a grid."""

import dataclasses

from gkd.report import grid_axes
from gkd.report import pictures
from tests.report.example_runs import kl
from tests.report.example_runs import run
from tests.report.example_runs import score

OWN = dataclasses.replace(kl(compared_with="oracle"), role="teacher")


def job(prompts, values, source="offline", seed=0, **metrics):
  axes = {"stage": "distil", "prompts": prompts, "source": source}
  curves = {kl(compared_with="oracle"): values, OWN: [1.25], **metrics}
  return run(f"{source}-{prompts}-{seed}", curves, axes=axes)


def lines(runs):
  (chart,) = grid_axes.sections(runs)["Evaluation: against prompts"]
  assert "<svg" in pictures.to_svg(chart)
  return chart, {line.name: line for line in chart.series}


def test_an_axis_of_numbers_has_ends_and_lowest_values_over_the_seeds():
  runs = [
    job(500, [3.0, 1.0, 2.0]),
    job(500, [3.0, 2.0, 4.0], seed=1),
    job(100, [3.0, 5.0]),
    job(100, [3.0, 2.0], source="online"),
    job(500, [3.0, 1.0], source="online"),
  ]
  chart, found = lines(runs)
  assert list(chart.x_ticks) == ["100", "500"]
  assert list(found) == [
    "offline",
    "offline, lowest",
    "online",
    "online, lowest",
    "Teacher, same examples",
  ]
  assert list(found["offline"].xs) == [0, 1]
  assert found["offline"].ys == [5.0, 3.0]
  assert (found["offline"].low, found["offline"].high) == ([5, 2], [5, 4])
  assert found["offline, lowest"].ys == [3.0, 1.5]
  assert found["offline"].colour == found["offline, lowest"].colour
  assert set(found["Teacher, same examples"].ys) == {1.25}


def test_names_and_single_values_make_no_chart():
  runs = [job(500, [1.0]), job(500, [2.0], source="online")]
  assert not any(map(any, grid_axes.sections(runs).values()))


def test_names_that_begin_with_a_number_stay_in_their_order():
  runs = [job(x, [1.0]) for x in ("400x1", "400x4", "1600x1")]
  chart, found = lines([*runs, job("400x4", [2.0], source="online")])
  assert list(chart.x_ticks) == ["400x1", "400x4", "1600x1"]
  assert list(found["online"].xs) == [1]


def test_the_best_of_a_score_without_direction_is_not_drawn():
  plain = score(direction="")
  runs = [run(f"{x}", {plain: [x]}, axes={"k": x}) for x in (4, 1)]
  ((chart,),) = grid_axes.sections(runs).values()
  (line,) = chart.series
  assert (line.name, list(line.ys)) == ("at the end", [1, 4])
