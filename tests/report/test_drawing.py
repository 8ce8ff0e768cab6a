"""What is in a drawing is what is in the chart."""

import pytest

from gkd.report.charts import LIGHT
from gkd.report.charts import Chart
from gkd.report.charts import Series
from gkd.report.drawing import draw

INK = "#000001"


def _axes(series, kind="lines", **chart):
  chart = Chart("x", "X", "", kind, series, **chart)
  return draw(chart, LIGHT, INK, "#eeeeee").axes[0]


def _points(line):
  return list(zip(*map(list, line.get_data()), strict=True))


def test_stacked_bars_start_where_the_one_before_ends():
  series = [
    Series("data", 0, [1.0, 2.0]),
    Series("sample", 1, [3.0, float("nan")]),
  ]
  axes = _axes(series, "stacked", groups=["one", "two"])
  starts = [(bar.get_x(), bar.get_width()) for bar in axes.patches]
  assert starts == [(0.0, 1.0), (0.0, 2.0), (1.0, 3.0), (2.0, 0.0)]


def test_band_is_drawn_from_the_lowest_to_the_highest():
  axes = _axes([Series("a", 0, [2.0, 3.0], [1, 2], [1.0, 2.5], [4.0, 3.5])])
  (band,) = axes.collections
  corners = {tuple(point) for point in band.get_paths()[0].vertices}
  assert corners == {(1, 1), (1, 4), (2, 2.5), (2, 3.5)}


def test_bands_of_many_lines_would_hide_each_other():
  series = [
    Series("a", n, [2.0, 3.0], [1, 2], [1, 2], [3, 4]) for n in range(7)
  ]
  assert not _axes(series).collections
  assert len(_axes(series[:6]).collections) == 6


def test_log_axis_of_less_than_a_decade_has_several_ticks():
  for top in (1.1, 7.0):
    axes = _axes([Series("a", 0, [0.75, top], [1, 2])], y_scale="log")
    bottom, top = axes.get_ylim()
    assert sum(bottom <= y <= top for y in axes.get_yticks()) >= 3


def test_level_of_the_teacher_goes_across_the_chart_and_a_curve_does_not():
  run = Series("a", 0, [1.0, 2.0], [10, 20])
  for ys, points in (
    ([5.0, 5.0], [(0, 5.0), (1, 5.0)]),  # in widths of the chart
    ([5.0, 6.0], [(12, 5.0), (15, 6.0)]),
  ):
    teacher = Series("teacher", None, ys, [12, 15], is_reference=True)
    _, line = _axes([run, teacher]).lines
    assert _points(line) == points
    assert line.get_color() == INK
    assert line.is_dashed()


def test_cross_stands_at_the_last_finite_value():
  broken = Series("a", 0, [1.0, 2.0], [10, 20], is_broken=True)
  _, cross = _axes([broken]).lines
  assert _points(cross) == [(20, 2.0)]
  assert cross.get_marker() == "x"


def test_interval_is_a_line_and_seeds_are_dots():
  series = Series(
    "a",
    0,
    [5.0, 7.0],
    points=[[5.0], [6.0, 8.0]],
    low=[4.0, float("nan")],
    high=[6.5, float("nan")],
  )
  axes = _axes([series], "bars", groups=["one", "three seeds"])
  interval, dots = axes.lines
  assert [x for x, _ in _points(interval)] == [4.0, 6.5]
  assert [x for x, _ in _points(dots)] == [6.0, 8.0]
  # A value beside its bar does not lie upon what is drawn there.
  assert [value.xy[0] for value in axes.texts[:2]] == [6.5, 8.0]


def test_bars_of_negative_values_are_inside_the_chart():
  axes = _axes([Series("a", 0, [-3.0, 1.0])], "bars", groups=["one", "two"])
  low, high = axes.get_xlim()
  assert low <= -3.0
  assert high > 1.0


def test_bars_of_nothing_but_zeros_begin_at_the_left():
  axes = _axes([Series("a", 0, [0.0, 0.0])], "bars", groups=["one", "two"])
  assert axes.get_xlim() == (0.0, 1.0)


@pytest.mark.parametrize(("first", "scale"), [(1, "log"), (0, "symlog")])
def test_log_axis_of_steps_has_a_place_for_step_0(first, scale):
  steps = [first, 2, 4, 8, 16, 32, 64, 128]
  axes = _axes([Series("a", 0, [1.0] * 8, steps)], x_scale="log")
  assert axes.get_xscale() == scale
  left, _ = axes.get_xlim()
  places = axes.transAxes.inverted().transform(
    axes.transData.transform([(step, 1.0) for step in steps])
  )[:, 0]
  assert left <= first
  assert (places[1:] - places[:-1]).min() > 0.05


def test_no_tick_of_a_log_axis_is_upon_that_of_step_0():
  epochs = [0.0, 0.02, 0.05, 0.3, 2.0]
  axes = _axes([Series("a", 0, [1.0] * 5, epochs)], x_scale="log")
  zero, tick, *_ = [x for x in axes.get_xticks() if x >= 0]
  assert (zero, tick) == (0, 0.1)


def test_places_of_an_axis_have_names_and_a_line_in_grey_has_none():
  lines = [
    Series("a", 0, [1.0, 2.0], [0, 1], is_context=True),
    Series("law", 0, [1.0, 2.0], [0, 1], is_reference=True, marked=1),
    Series("best", 0, [1.0], [1], is_reference=True),
  ]
  axes = _axes(lines, x_ticks=["100", "3,000"])
  assert [x.get_text() for x in axes.get_xticklabels()] == ["100", "3,000"]
  grey, law, best = axes.lines
  assert grey.get_color() == INK
  assert (law.get_marker(), law.get_markevery()) == ("o", [1])
  assert (best.get_marker(), [*best.get_xdata()]) == ("o", [1])  # no line
  assert axes.get_legend_handles_labels()[1] == ["law", "best"]


@pytest.mark.parametrize(("name", "angle"), [("64x1", 0), ("51,200", 30)])
def test_names_of_places_that_would_meet_are_slanted(name, angle):
  line = Series("a", 0, [1.0] * 6, range(6))
  axes = _axes([line], x_ticks=[name] * 6)
  assert {x.get_rotation() for x in axes.get_xticklabels()} == {angle}


def test_lines_at_one_level_do_not_get_an_axis_of_tiny_differences():
  low, high = _axes([Series("a", 0, [0.05, 0.05], [1, 2])]).get_ylim()
  assert high - low > 0.04
  low, high = _axes([Series("a", 0, [0.0, 0.0], [1, 2])]).get_ylim()
  assert low > -0.1
  assert high >= 1.0


def test_long_name_of_a_group_keeps_its_end():
  axes = _axes([Series("a", 0, [1.0])], "bars", groups=["x" * 60 + "_lr_1e-4"])
  name = axes.texts[-1].get_text()
  assert len(name) <= 48
  assert name.endswith("_lr_1e-4")
