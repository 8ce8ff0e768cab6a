"""Pictures are in the page's colours, small, and the same each time."""

import dataclasses
import re
import xml.etree.ElementTree as ET

from matplotlib.backends.backend_agg import FigureCanvasAgg
import pytest

from gkd.report import pictures
from gkd.report.charts import Chart
from gkd.report.charts import Series

NAN = float("nan")


def lines(series, note="", **fields):
  return Chart("loss", "Loss", note, "lines", series, **fields)


LINES = lines(
  [
    Series("a", 0, [3.0, 0.0001, 2e-4], [1, 2, 3]),
    Series("b", 9, [1.0], [3], is_broken=True),
    Series("teacher", None, [0.5, 0.5], [1, 3], is_reference=True),
  ]
)
BARS = Chart(
  "bars",
  "Bars",
  "",
  "bars",
  [
    Series("greedy", 0, [50.0, NAN], points=[[49.0, 51.0], []]),
    Series("sampled", 1, [40.0, 30.0], low=[NAN, 28.0], high=[NAN, 33.0]),
    Series("teacher", None, [60.0, NAN], is_reference=True),
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


@pytest.mark.parametrize("chart", [LINES, BARS, STACKED])
def test_svg_has_the_colours_of_the_page_and_leaves_its_size_to_it(chart):
  svg = pictures.to_svg(chart)
  assert svg == pictures.to_svg(chart)  # the same each time
  root = ET.fromstring(svg)  # well-formed
  assert "viewBox" in root.attrib
  assert not {"width", "height"} & root.attrib.keys()
  colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
  assert {c for c in colours if not c.startswith("var(")} <= {"none"}
  assert {"var(--s0)", "var(--ink)"} <= colours
  for path in re.findall(r' d="([^"]*)"', svg):
    numbers = re.findall(r"-?\d+(?:\.\d+)?", path)
    assert len(numbers) % 2 == 0, path  # none has run into the next


def test_ids_differ_between_charts_and_references_resolve():
  known = set()
  for svg in map(pictures.to_svg, (LINES, BARS, STACKED)):
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    assert used
    assert used == ids  # and no id that nothing refers to
    assert not ids & known
    known |= ids


def test_words_keep_their_digits_and_places_have_few():
  svg = pictures.to_svg(lines([Series("a", 0, [0.0012345, 0.0012346], [1, 2])]))
  assert "0.00123" in "".join(re.findall(r">([^<]+)</text>", svg))
  assert not re.search(r"\d\.\d{3}", re.sub(r">[^<]*<", "><", svg))


@pytest.mark.parametrize("length", [14, 15, 26, 27, 50])
def test_words_of_a_png_lie_inside_the_picture(length):
  names = [f"{n} ".ljust(length, "a") for n in range(7)]
  series = [Series(name, n, [1.0, 2.0], [1, 2]) for n, name in enumerate(names)]
  note = "Nats a sequence; less is closer. " * 4
  figure = pictures.with_words(lines(series, note))
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  (legend,) = figure.legends
  for words in (legend, *figure.axes[0].texts, figure.axes[0]._left_title):
    box = words.get_window_extent(canvas.get_renderer())
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_notes_say_what_the_drawing_adds():
  (note,) = pictures.drawing_notes(lines([], is_downsampled=True))
  assert "more than 400 points" in note
  assert "lowest to its highest" in note
  (note,) = pictures.drawing_notes(LINES)
  assert note == "× marks where the next value was not finite."
  assert pictures.drawing_notes(BARS) == []


def test_a_run_may_be_called_like_a_formula(tmp_path):
  chart = dataclasses.replace(BARS, groups=["a$^$b", "$"], title="$^$")
  assert "a$^$b" in pictures.to_svg(chart)
  pictures.write_png(chart, str(tmp_path))
