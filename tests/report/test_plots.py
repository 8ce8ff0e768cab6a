"""Charts draw in the page's colours and lose no last point."""

import re
import xml.etree.ElementTree as ET

from matplotlib.backends.backend_agg import FigureCanvasAgg
import pytest

from gkd.report import plots
from gkd.report.plots import Chart
from gkd.report.plots import Series

NAN = float("nan")
LINES = Chart(
  "loss",
  "Loss",
  "",
  "lines",
  [Series("a", 0, [3.0, 2.0, NAN], [1, 2, 3]), Series("b", 9, [1.0], [3])],
)
BARS = Chart(
  "bars",
  "Bars",
  "",
  "bars",
  [
    Series("greedy", 0, [50.0, NAN], points=[[49.0, 51.0], []]),
    Series("sampled", 1, [40.0, 30.0], points=[[40.0], [30.0]]),
  ],
  groups=["Mixed <λ>", "SFT"],
)
STACKED = Chart(
  "time",
  "Time",
  "",
  "stacked",
  [Series("data", 0, [1.0, 2.0]), Series("sample", 1, [3.0, NAN])],
  groups=["one", "two"],
)
ALL = pytest.mark.parametrize("chart", [LINES, BARS, STACKED])


@ALL
def test_svg_has_only_colours_of_the_page(chart):
  svg = plots.to_svg(chart)
  ET.fromstring(svg)  # well-formed
  colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
  plain = {c for c in colours if not c.startswith("var(")} - {"none"}
  assert not plain
  assert "var(--s0)" in svg
  assert "var(--ink)" in svg


@ALL
def test_svg_loads_nothing_and_leaves_its_size_to_the_page(chart):
  svg = plots.to_svg(chart)
  links = set(re.findall(r'https?://[^"\s]+', svg))
  assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
  root = ET.fromstring(svg)
  assert "viewBox" in root.attrib
  assert not {"width", "height"} & root.attrib.keys()


def test_ids_differ_between_charts_and_references_resolve():
  svgs = [plots.to_svg(chart) for chart in (LINES, BARS, STACKED)]
  ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in svgs]
  assert not ids[0] & ids[1]
  assert not ids[1] & ids[2]
  for svg, known in zip(svgs, ids, strict=True):
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used
    assert used <= known


def test_same_chart_gives_the_same_svg():
  assert plots.to_svg(LINES) == plots.to_svg(LINES)


def test_long_curve_is_thinned_out_but_keeps_its_last_point():
  length = 5001
  chart = Chart(
    "long",
    "Long",
    "",
    "lines",
    [Series("a", 0, [0.0] * (length - 1) + [1.0], list(range(length)))],
  )
  figure = plots._draw(chart, plots.LIGHT, "#000000", "#000000")
  (line,) = figure.axes[0].lines
  xs, ys = line.get_data()
  assert len(xs) <= 400
  assert (xs[0], ys[0]) == (5000, 1.0)


def test_stacked_bars_start_where_the_one_before_ends():
  figure = plots._draw(STACKED, plots.LIGHT, "#000000", "#000000")
  starts = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
  assert starts == [(0.0, 1.0), (1.0, 3.0), (0.0, 2.0), (2.0, 0.0)]


@ALL
def test_png_is_an_image_of_the_charts_name(chart, tmp_path):
  path = plots.write_png(chart, str(tmp_path / "plots"))
  assert path.endswith(f"plots/{chart.slug}.png")
  with open(path, "rb") as file:
    assert file.read(8) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("length", [14, 15, 26, 27, 50])
def test_words_of_a_png_lie_inside_the_picture(length):
  names = [f"{n} ".ljust(length, "a") for n in range(7)]
  series = [Series(name, n, [1.0, 2.0], [1, 2]) for n, name in enumerate(names)]
  note = "Nats a sequence; less is closer. " * 4
  figure = plots._with_words(Chart("wide", "Wide", note, "lines", series))
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  (legend,) = figure.legends
  for words in (legend, *figure.axes[0].texts, figure.axes[0]._left_title):
    box = words.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_band_is_drawn_from_the_lowest_to_the_highest():
  series = Series("a", 0, [2.0, 3.0], [1, 2], [1.0, 2.5], [4.0, 3.5])
  chart = Chart("band", "Band", "", "lines", [series])
  axes = plots._draw(chart, plots.LIGHT, "#000000", "#000000").axes[0]
  (band,) = axes.collections
  corners = {tuple(point) for point in band.get_paths()[0].vertices}
  assert corners == {(1, 1), (1, 4), (2, 2.5), (2, 3.5)}
  assert "fill: var(--s0)" in plots.to_svg(chart)
