"""Paths of one distance against another."""

import dataclasses

import pytest

from gkd.report import distances
from gkd.report import pictures
from gkd.report.charts import Chart
from gkd.report.charts import Series
from tests.report.example_runs import kl
from tests.report.example_runs import run

NEAR, FAR = kl(), kl("truth", compared_with="oracle")


def test_a_path_goes_over_the_updates_that_both_distances_have():
  (chart,) = distances.charts(
    [
      run("a", {NEAR: {1: 3.0, 5: 2.0, 9: 1.0}, FAR: {1: 4.0, 9: 5.0}}),
      run("b", {NEAR: [1.0, 2.0]}),
      run("c", {FAR: [1.0, 2.0], NEAR: [0.5, 0.25]}),
    ]
  )
  found = [(line.name, line.colour, line.xs, line.ys) for line in chart.series]
  assert found == [
    ("a", 0, (3.0, 1.0), (4.0, 5.0)),
    ("c", 2, (0.5, 0.25), (1.0, 2.0)),
  ]
  assert chart.title == "Forward KL to the oracle against that to the teacher"
  assert chart.x_label == "distance to the teacher (nats per sequence)"
  assert "<svg" in pictures.to_svg(chart)


def test_the_teachers_own_distance_is_a_line():
  own = dataclasses.replace(FAR, role="teacher")
  (chart,) = distances.charts(
    [run("a", {NEAR: [2.0, 1.0], FAR: [3.0, 4.0], own: [2.5, 2.5]})]
  )
  line = chart.series[-1]
  assert line.is_reference
  assert set(line.ys) == {2.5}


@pytest.mark.parametrize(
  "other",
  [
    {"metric": "reverse_kl"},
    {"split": "train"},
    {"direction": "max"},  # an agreement
    {"compared_with": "teacher", "model": "other"},
  ],
)
def test_only_the_same_distance_to_another_model_is_set_against_it(other):
  fields = {"compared_with": "oracle", **other}
  beside = dataclasses.replace(NEAR, **fields)
  assert not list(distances.charts([run("a", {NEAR: [1, 2], beside: [1, 2]})]))


def test_many_paths_are_divided_by_an_axis_with_the_others_in_grey():
  runs = [
    run(
      f"{source}-{size}",
      {NEAR: [2.0, 1.0], FAR: [3.0, size]},
      axes={"stage": "distil", "source": source, "size": size},
    )
    for size in (1, 2, 5, 9)
    for source in ("offline", "online")
  ]
  found = list(distances.charts(runs))
  assert [chart.title[-6:] for chart in found] == [
    f"size {n}" for n in (1, 2, 5, 9)
  ]
  shown = [one.name for one in found[2].series if not one.is_context]
  assert shown == ["offline-5", "online-5"]
  assert len(found[2].series) == len(runs)
  assert found[2].has_own_lines  # the many arms are not named
  (whole,) = distances.charts(runs[:6])
  assert not any(one.is_context for one in whole.series)
  (*_, last) = distances.charts([*runs, run("b", {NEAR: [2, 1], FAR: [3, 2]})])
  assert last.title.endswith(", without size")


def test_a_line_of_one_point_has_no_chart_of_its_own():
  lines = [Series(f"{n}", n, [1.0, 2.0], [1, 2]) for n in range(8)]
  lines.append(Series("point", 8, [1.0], [1]))
  axes = {line.name: {"size": line.colour // 4} for line in lines}
  drawn = list(distances.by_axis(Chart("a", "A", "", "lines", lines), axes))
  assert [chart.title for chart in drawn] == ["A, size 0", "A, size 1"]
  assert all(len(chart.series) == 8 for chart in drawn)


def test_paths_of_several_teachers_have_titles_of_their_own():
  runs = [run(x, {kl(x): [2.0, 1.0], FAR: [3.0, 4.0]}) for x in ("a", "b")]
  assert [chart.title[-10:] for chart in distances.charts(runs)] == [
    " teacher a",
    " teacher b",
  ]
