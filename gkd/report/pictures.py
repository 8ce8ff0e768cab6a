"""Pictures of charts: SVG in the page's colours, or PNG on white.

In an SVG every colour is a CSS variable, so that one drawing serves a light and
a dark page. Title and legend are left to the page, where they wrap on a phone.
"""

import io
import os
import re
import textwrap

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from gkd.report import charts
from gkd.report.charts import Chart
from gkd.report.drawing import draw

# Stand-ins that no chart uses otherwise; `to_svg` puts CSS variables there.
_INK, _GRID = "#010203", "#020304"
_SERIES = tuple(f"#0a0b{number:02x}" for number in range(len(charts.LIGHT)))

# In each PNG, so that `gkd report` knows one that it may replace.
MARK = b"gkd report"
# A run called a$^$b is no formula.
_PLAIN_TEXT = {"text.parse_math": False}


def to_svg(chart: Chart) -> str:
  """An <svg> element whose colours are var(--ink), --grid, --s0, --s1, …"""
  # The salt keeps the ids of a page's charts apart.
  settings = {"svg.fonttype": "none", "svg.hashsalt": chart.slug}
  with matplotlib.rc_context({**_PLAIN_TEXT, **settings}):
    figure = draw(chart, _SERIES, _INK, _GRID)
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
  svg = _slim(buffer.getvalue())
  svg = svg.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
  for number, stand_in in enumerate(_SERIES):
    svg = svg.replace(stand_in, f"var(--s{number})")
  return svg


def write_png(chart: Chart, directory: str) -> str:
  """Writes `<slug>.png` on white, with title and legend; returns its path."""
  os.makedirs(directory, exist_ok=True)
  path = png_file(chart, directory)
  figure = with_words(chart)
  FigureCanvasAgg(figure)
  made_by = {"Software": MARK.decode()}
  figure.savefig(path, dpi=160, facecolor="white", metadata=made_by)
  return path


def png_file(chart: Chart, directory: str) -> str:
  return os.path.join(directory, f"{chart.slug}.png")


@matplotlib.rc_context(_PLAIN_TEXT)
def with_words(chart: Chart) -> Figure:
  """The drawing with what the page writes around it: title, note, legend."""
  figure = draw(chart, charts.LIGHT, "#222222", "#dddddd")
  title = textwrap.wrap(chart.title, 48)
  figure.suptitle("\n".join(title), fontsize=11, color="#222222")
  extra = 0.2 * (len(title) - 1)  # inches
  note = " ".join(filter(None, (chart.note, *drawing_notes(chart))))
  if note:
    lines = textwrap.wrap(note, 58)
    text = "\n".join(lines)
    figure.axes[0].set_title(text, fontsize=8, color="#5d646e", loc="left")
    extra += 0.16 * len(lines)
  if len(chart.series) > 1:
    handles, names = figure.axes[0].get_legend_handles_labels()
    # What fits beside each other in this size and width.
    longest = max(map(len, names))
    columns = 3 if longest <= 14 else 2 if longest <= 26 else 1
    figure.legend(
      handles,
      names,
      loc="outside lower center",
      ncols=columns,
      frameon=False,
      fontsize=7.5,
      handlelength=1.4,
      columnspacing=1.0,
    )
    extra += 0.2 * -(-len(names) // columns) + 0.1
  figure.set_figheight(figure.get_figheight() + extra)
  return figure


def drawing_notes(chart: Chart) -> list[str]:
  """How to read what the drawing adds; a page says it once for all charts."""
  notes = []
  if chart.is_downsampled:
    notes.append(
      f"Curves of more than {charts.MAX_POINTS} points are drawn in"
      f" {charts.NUM_BINS} bins: the line is the mean of each, the band reaches"
      " from its lowest to its highest value."
    )
  if any(series.is_broken for series in chart.series):
    notes.append("× marks where the next value was not finite.")
  return notes


def _slim(svg: str) -> str:
  """The <svg> element without what a page does not need: a third is left."""
  svg = svg[svg.index("<svg") :]
  # The page sets the size, and its style sheet the fonts and line joins.
  svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)
  for unused in (
    r"<metadata>.*?</metadata>",
    r"<!--.*?-->",
    r'<path d="[^"]*" style="fill: none"/>',
    r"<defs>\s*<style.*?</style>\s*</defs>",
    r"; font-family: [^;\"]*|font-family: [^;\"]*; ",
    r' transform="rotate\(-0 [^"]*\)"',
  ):
    svg = re.sub(unused, "", svg, flags=re.DOTALL)
  # A tenth of a point is less than can be seen.
  svg = re.sub(
    r' (?:d|x|y|width|height|transform)="[^"]*"',
    lambda place: re.sub(
      r"-?\d+\.\d{2,}", lambda x: f"{float(x.group()):.1f}", place.group()
    ),
    svg,
  )
  svg = re.sub(
    r' d="[^"]*"',
    lambda path: re.sub(r"\s*([MLCQz])\s*|\s+(?=-)", r"\1", path.group()),
    svg,
  )
  used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
  svg = re.sub(
    r' id="([^"]+)"', lambda m: m.group() * (m.group(1) in used), svg
  )
  # A group of one element without attributes is that element.
  element = r"<text[^>]*>[^<]*</text>|<path[^>]*/>"
  svg = re.sub(rf"<g>\s*({element})?\s*</g>|<g/>", r"\1", svg)
  return re.sub(r"\s*\n\s*", "\n", svg)
