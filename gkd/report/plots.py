"""Draws charts: as SVG for the page, in the page's colours, or as PNG.

A chart is data (`Chart`); what to draw is decided in charts.py. In an SVG every
colour is a CSS variable, so that one drawing serves a light and a dark page.
Its legend is left to the page, where it can wrap on a phone.
"""

from collections.abc import Sequence
import dataclasses
import io
import math
import os
import re
import textwrap

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colours, which people who confuse red and green tell apart,
# lightened for a dark page where they need it.
LIGHT = (
  "#0072b2", "#d55e00", "#009e73", "#b0468c", "#b07d00", "#3f9bd1", "#6f4fb3",
  "#555555",
)  # fmt: skip
DARK = (
  "#5db4ee", "#ff8a4c", "#35cfa2", "#ee8fcb", "#e6b422", "#a3d8f7", "#b9a0f5",
  "#c4c4c4",
)  # fmt: skip
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
# Stand-ins that no chart uses otherwise; `to_svg` puts CSS variables there.
_INK, _GRID = "#010203", "#020304"
_SERIES = tuple(f"#0a0b{number:02x}" for number in range(len(LIGHT)))
_MAX_POINTS = 400
_WIDTH = 4.2  # inches, about the width of a phone


@dataclasses.dataclass(frozen=True)
class Series:
  """One line, or one bar of each group.

  Attributes:
    name: as it stands in the legend.
    colour: index into the palette.
    xs: steps of a line; unused in bars.
    ys: values; for bars one for each group.
    low: lower end of the band around a line; none if empty.
    high: upper end of the band.
    points: for bars, the single values behind each mean.
  """

  name: str
  colour: int
  ys: Sequence[float]
  xs: Sequence[float] = ()
  low: Sequence[float] = ()
  high: Sequence[float] = ()
  points: Sequence[Sequence[float]] = ()


@dataclasses.dataclass(frozen=True)
class Chart:
  """What to draw.

  Attributes:
    slug: file name of the PNG, without extension.
    title: what is shown.
    note: how to read it; may be empty.
    kind: "lines", "bars" (side by side) or "stacked" bars.
    series: lines or bars.
    x_label: name of the horizontal axis.
    groups: names of the groups of bars.
  """

  slug: str
  title: str
  note: str
  kind: str
  series: Sequence[Series]
  x_label: str = "updates"
  groups: Sequence[str] = ()


def to_svg(chart: Chart) -> str:
  """An <svg> element whose colours are var(--ink), --grid, --s0, --s1, …"""
  settings = {"svg.fonttype": "none", "svg.hashsalt": chart.slug}
  with matplotlib.rc_context(settings):
    figure = _draw(chart, _SERIES, _INK, _GRID)
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
  svg = buffer.getvalue()
  svg = svg[svg.index("<svg") :]
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  # Ids must differ between the charts of a page; the page sets the size.
  svg = re.sub(r'\bid="', f'id="{chart.slug}-', svg)
  svg = re.sub(r'(href="|url\()#', rf"\1#{chart.slug}-", svg)
  svg = re.sub(r'^<svg([^>]*?) height="[^"]*"', r"<svg\1", svg)
  svg = re.sub(r'^<svg([^>]*?) width="[^"]*"', r"<svg\1", svg)
  svg = svg.replace(_INK, "var(--ink)").replace(_GRID, "var(--grid)")
  for number, stand_in in enumerate(_SERIES):
    svg = svg.replace(stand_in, f"var(--s{number})")
  return svg


def write_png(chart: Chart, directory: str) -> str:
  """Writes `<slug>.png` on white, with title and legend; returns its path."""
  os.makedirs(directory, exist_ok=True)
  path = os.path.join(directory, f"{chart.slug}.png")
  figure = _with_words(chart)
  FigureCanvasAgg(figure)
  figure.savefig(path, dpi=160, facecolor="white")
  return path


def _with_words(chart: Chart) -> Figure:
  """The drawing with what the page writes around it: title, note, legend."""
  figure = _draw(chart, LIGHT, "#222222", "#dddddd")
  figure.suptitle(chart.title, fontsize=11, color="#222222")
  extra = 0.0  # inches
  if chart.note:
    lines = textwrap.wrap(chart.note, 58)
    words = "\n".join(lines)
    figure.axes[0].set_title(words, fontsize=8, color="#5d646e", loc="left")
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


def _draw(chart: Chart, colours: Sequence[str], ink: str, grid: str) -> Figure:
  if chart.kind == "lines":
    figure = Figure(figsize=(_WIDTH, 2.5), layout="constrained")
    axes = figure.add_subplot()
    _draw_lines(axes, chart, colours)
    axes.set_xlabel(chart.x_label, color=ink)
    axes.grid(axis="y", color=grid, linewidth=0.8)
  else:
    bars = 1 if chart.kind == "stacked" else len(chart.series)
    height = 0.35 + len(chart.groups) * (0.34 + 0.2 * bars)
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    _draw_bars(axes, chart, colours, ink)
    axes.grid(axis="x", color=grid, linewidth=0.8)
  axes.set_axisbelow(True)
  axes.tick_params(colors=ink, length=0, labelsize=10)
  for side, spine in axes.spines.items():
    spine.set_visible(side == ("bottom" if chart.kind == "lines" else "left"))
    spine.set_color(grid)
  return figure


def _draw_lines(axes: Axes, chart: Chart, colours: Sequence[str]) -> None:
  for series in chart.series:
    stride = -(-len(series.xs) // _MAX_POINTS)
    # The last point is where the run ended: thin out from the right.
    xs, ys, low, high = (
      values[::-1][::stride]
      for values in (series.xs, series.ys, series.low, series.high)
    )
    if low != high:
      axes.fill_between(
        xs,
        low,
        high,
        color=colours[series.colour % len(colours)],
        alpha=0.16,
        linewidth=0,
      )
    axes.plot(
      xs,
      ys,
      label=series.name,
      color=colours[series.colour % len(colours)],
      linestyle=_DASHES[series.colour // len(colours) % len(_DASHES)],
      linewidth=1.8,
      marker="o" if len(xs) <= 12 else None,
      markersize=3.5,
    )
  counts = chart.x_label == "updates"
  axes.xaxis.set_major_locator(MaxNLocator(5, integer=counts))
  axes.yaxis.set_major_locator(MaxNLocator(5))
  axes.margins(x=0.02, y=0.08)


def _draw_bars(
  axes: Axes, chart: Chart, colours: Sequence[str], ink: str
) -> None:
  """Horizontal bars, the name of a group above its bars, values at the end."""
  stacked = chart.kind == "stacked"
  thickness = 0.2
  pitch = 0.34 + thickness * (1 if stacked else len(chart.series))
  ends = [
    sum(_finite(s.ys[g]) for s in chart.series)
    if stacked
    else max(
      _finite(v) for s in chart.series for v in (s.ys[g], *_points(s, g))
    )
    for g in range(len(chart.groups))
  ]
  widest = max(ends, default=0.0) or 1.0
  for group, name in enumerate(chart.groups):
    top = group * pitch
    axes.text(0, top + 0.09, name, color=ink, fontsize=10, va="center")
    left = 0.0
    for place, series in enumerate(chart.series):
      value = _finite(series.ys[group])
      middle = top + 0.3 + (0 if stacked else place * thickness)
      axes.barh(
        middle,
        value,
        left=left,
        height=thickness * 0.86,
        color=colours[series.colour % len(colours)],
        label=series.name if group == 0 else None,
      )
      points = _points(series, group)
      if len(points) > 1:
        axes.plot(
          points, [middle] * len(points), "o", color=ink, markersize=2.6
        )
      if stacked:
        left += value
      elif math.isfinite(series.ys[group]):
        end = max([value, *points]) + 0.015 * widest
        text = _three_digits(series.ys[group])
        axes.text(end, middle, text, color=ink, fontsize=9, va="center")
  axes.set_yticks([])
  axes.set_xlim(0, widest * 1.14)
  axes.set_ylim(len(chart.groups) * pitch - 0.02, -0.06)
  axes.xaxis.set_major_locator(MaxNLocator(5))
  if chart.x_label:
    axes.set_xlabel(chart.x_label, color=ink)


def _points(series: Series, group: int) -> Sequence[float]:
  return series.points[group] if series.points else ()


def _finite(value: float) -> float:
  return value if math.isfinite(value) else 0.0


def _three_digits(value: float) -> str:
  """5.70, 34.0, 1,234: numbers of one chart with digits alike."""
  if value == 0:
    return "0"
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
