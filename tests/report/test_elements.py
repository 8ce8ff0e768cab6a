"""Pieces of the page say in words what they show in colours."""

import dataclasses
import re

from gkd.report import elements
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.tables import Cell
from gkd.report.tables import Table

LINES = Chart(
  "loss",
  "Training <loss>",
  "",
  "lines",
  [
    Series("a & b", 0, [3.0, 1.25], [10, 2000]),
    Series("c", 9, [2.0, 1.0], [10, 2000]),
    Series("teacher", None, [0.5, 0.5], [10, 2000], is_reference=True),
  ],
)


def test_figure_of_two_series_names_both_beside_their_colours():
  series = [Series("greedy & t0", 0, [1.0]), Series("sampled", 1, [2.0])]
  chart = Chart("bars", "Bars", "", "bars", series, groups=["SFT"])
  text = elements.figure(chart)
  legend = re.search(r'<ul class="legend">(.*?)</ul>', text).group(1)
  names = re.findall(r"var\(--s(\d)\)\"></span><span>([^<]+)", legend)
  assert names == [("0", "greedy &amp; t0"), ("1", "sampled")]
  assert "legend" not in elements.figure(chart, with_legend=False)
  # A single one is what the title says.
  alone = dataclasses.replace(chart, series=series[:1])
  assert "legend" not in elements.figure(alone)


def test_legend_of_lines_has_their_dashes():
  items = elements.legend(LINES.series).split("<li>")[1:]
  assert "stroke-dasharray" not in items[0]
  assert "var(--s1)" in items[1]
  assert "stroke-dasharray" in items[1]  # the 10th arm
  assert "var(--ink)" in items[2]
  assert "stroke-dasharray" in items[2]


def test_teacher_is_named_where_the_arms_are_not():
  text = elements.figure(LINES, with_legend=False)
  legend = re.search(r'<ul class="legend">(.*?)</ul>', text).group(1)
  assert re.findall(r"<span>([^<]+)", legend) == ["teacher"]


def test_chart_is_described_for_who_cannot_see_it():
  text = elements.figure(LINES)
  (label,) = re.findall(r'<svg role="img" aria-label="([^"]*)"', text)
  assert label == (
    "Training &lt;loss&gt;. a &amp; b: from 3 to 1.25, 10 to 2,000."
    " c: from 2 to 1, 10 to 2,000. teacher: from 0.5 to 0.5, 10 to 2,000."
  )


def test_log_axis_comes_with_a_linear_one():
  steps = [1, 10, 100]
  chart = Chart(
    "x", "X", "", "lines", [Series("a", 0, steps, steps)], x_scale="log"
  )
  text = elements.figure(chart)
  log, linear = re.findall(r"<svg role.*?</svg>", text, flags=re.DOTALL)
  places = [
    [float(x) for x in re.findall(r'<use[^>]* x="([\d.]+)"', svg)]
    for svg in (log, linear)
  ]
  for (first, second, third), share in zip(
    places, (1 / 2, 1 / 11), strict=True
  ):
    assert abs((second - first) / (third - first) - share) < 0.01
  assert "<summary>on a linear axis of updates</summary>" in text
  ids = re.findall(r'\bid="([^"]+)"', text)
  assert len(set(ids)) == len(ids)


def test_table_has_heads_for_rows_and_columns_and_a_name():
  rows = [[Cell("a_b"), Cell("5.0 [4.0, 6.0]", best=True)]]
  table = Table(["run", "<x>"], rows, "How to read.", [False, True], "Runs")
  text = elements.table(table)
  assert '<caption class="unseen">Runs</caption>' in text
  assert 'role="region" aria-label="Runs"' in text
  assert re.findall(r'<th scope="(\w+)"', text) == ["col", "col", "row"]
  assert "&lt;x&gt;" in text
  assert (
    '<td class="number best">5.0 <span class="range">[4.0, 6.0]</span></td>'
    in text
  )
  assert "How to read." in text


def test_long_names_may_break_and_get_room():
  name = "gkd_on_policy-with-a-rather-long-name"
  text = elements.table(Table(["run"], [[Cell(name)]], "", [False]))
  assert "gkd_<wbr>on_<wbr>policy-<wbr>with-<wbr>a" in text
  assert 'class="long-names"' in text
  text = elements.table(Table(["run"], [[Cell("On-policy")]], "", [False]))
  assert "On-policy" in text
  assert "long-names" not in text
