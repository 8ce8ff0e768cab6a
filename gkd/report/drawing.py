"""Draws a chart with matplotlib: lines, bars, axes, in colours it is given."""

from collections.abc import Sequence
import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.ticker import MaxNLocator
from matplotlib.ticker import NullLocator
from matplotlib.ticker import StrMethodFormatter
from matplotlib.ticker import SymmetricalLogLocator

from gkd.report import arms
from gkd.report.charts import Chart
from gkd.report.charts import Series

_WIDTH = 4.2  # inches, about the width of a phone
_HEIGHT = 2.6
_TICKS = "{x:,.6g}"  # 0.25, 20,000, 1e-05
_LABEL, _SMALL = 11, 9.5  # font sizes
_NAME, _BAR, _GAP = 0.34, 0.2, 0.09  # of a group of bars
_LONGEST = 48  # letters of the name of a group
_LINE = 32  # letters that fit below an axis


def draw(chart: Chart, colours: Sequence[str], ink: str, grid: str) -> Figure:
  """The chart without title and legend.

  Args:
    chart: what to draw.
    colours: of the series, taken in turn.
    ink: of text and references.
    grid: of lines that are read past.
  """
  are_lines = chart.kind == "lines"
  bars = sum(not series.is_reference for series in chart.series)
  pitch = _NAME + _BAR * (1 if chart.kind == "stacked" else bars)
  height = _HEIGHT if are_lines else 0.35 + len(chart.groups) * pitch
  figure = Figure(figsize=(_WIDTH, height), layout="constrained")
  axes = figure.add_subplot()
  across = "both" if chart.is_path else "y" if are_lines else "x"
  axes.grid(axis=across, color=grid, linewidth=0.8)
  axes.xaxis.set_major_locator(
    MaxNLocator(5, integer=chart.x_label == "updates")
  )
  axes.yaxis.set_major_locator(MaxNLocator(5))
  if are_lines:
    _draw_lines(axes, chart, colours, ink)
    axes.set_xlabel(chart.x_label, color=ink, fontsize=_LABEL)
  else:
    _draw_bars(axes, chart, pitch, colours, ink)
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_formatter(StrMethodFormatter(_TICKS))
  if chart.x_ticks:
    letters = len(chart.x_ticks) * (1 + max(map(len, chart.x_ticks)))
    slant = {"rotation": 30, "ha": "right"} if letters > _LINE else {}
    axes.set_xticks(range(len(chart.x_ticks)), chart.x_ticks, **slant)
  axes.set_axisbelow(True)
  axes.tick_params(which="both", colors=ink, length=0, labelsize=_LABEL)
  for side, spine in axes.spines.items():
    spine.set_visible(side == ("bottom" if are_lines else "left"))
    spine.set_color(grid)
  return figure


def _draw_lines(
  axes: Axes, chart: Chart, colours: Sequence[str], ink: str
) -> None:
  few, is_path = len(chart.series) <= 6, chart.is_path
  own = [
    one for one in chart.series if not (one.is_context or one.is_reference)
  ]
  for series in chart.series:
    colour = ink
    if series.colour is not None:
      colour = colours[series.colour % len(colours)]
    style = {"color": colour, "label": series.name}
    if series.dashes:
      style["dashes"] = series.dashes
    if series.is_context:
      axes.plot(series.xs, series.ys, linewidth=1, color=ink, alpha=0.2)
      continue
    if series.is_reference and len(set(series.ys)) == 1 and not chart.x_ticks:
      axes.axhline(series.ys[0], linewidth=1.1, **style)
      continue
    if series.is_reference:
      marked = 0 if len(series.xs) == 1 else series.marked
      if marked is not None:
        style |= {"marker": "o", "markevery": [marked]}
      axes.plot(series.xs, series.ys, linewidth=1.1, **style)
      continue
    # More bands than these hide each other.
    if series.low and len(own) <= arms.MAX_TOGETHER:
      band = {"alpha": 0.16 if few else 0.09, "linewidth": 0}
      axes.fill_between(
        series.xs, series.low, series.high, color=colour, **band
      )
    axes.plot(
      series.xs,
      series.ys,
      linewidth=1.8 if few else 1.5,
      marker="o" if is_path or len(series.xs) <= 12 else None,
      markevery=[-1] if is_path else None,
      markersize=6 if is_path else 3.5,
      **style,
    )
    if series.is_broken:
      cross = {"marker": "x", "markersize": 8, "markeredgewidth": 2}
      end = series.xs[-1:], series.ys[-1:]
      axes.plot(*end, color=colour, clip_on=False, **cross)
  _scale_axes(axes, chart)


def _scale_axes(axes: Axes, chart: Chart) -> None:
  # Names of places are wider than the numbers of an axis.
  axes.margins(x=0.08 if chart.x_ticks else 0.02, y=0.08)
  if chart.x_scale == "log":
    xs = [x for series in chart.series for x in series.xs]
    if min(xs) > 0:
      axes.set_xscale("log")
      axes.xaxis.set_major_locator(LogLocator(numticks=7))
    else:  # step 0 has a place left of the first step
      first = min(x for x in xs if x > 0)
      # A power of ten, below which there are no ticks.
      first = 10.0 ** math.ceil(math.log10(first))
      axes.set_xscale("symlog", linthresh=first, linscale=0.4)
      locator = SymmetricalLogLocator(base=10, linthresh=first)
      axes.xaxis.set_major_locator(locator)
      axes.set_xlim(0, max(xs) * 1.1)
    axes.xaxis.set_minor_locator(NullLocator())
  levels = {y for one in chart.series for y in (*one.ys, *one.low, *one.high)}
  if chart.y_scale == "log":
    axes.set_yscale("log")
    # Less than a decade has at most one power of ten; a third of it, no other.
    decade = max(levels) / min(levels) / 10
    subs = (1.0, 2.0, 3.0, 5.0) if decade < 1 else (1.0,)
    ticks = LogLocator(subs=subs, numticks=6)
    axes.yaxis.set_major_locator(MaxNLocator(4) if decade < 0.3 else ticks)
    axes.yaxis.set_minor_locator(NullLocator())
  elif len(levels) == 1:
    # No axis of tiny differences.
    (level,) = levels
    room = 0.5 * abs(level) or 1.0
    axes.set_ylim(level - (room if level else 0.05), level + room)


def _draw_bars(
  axes: Axes, chart: Chart, pitch: float, colours: Sequence[str], ink: str
) -> None:
  """Horizontal bars, the name of a group above its bars, values at the end."""
  stacked = chart.kind == "stacked"
  tops = [group * pitch for group in range(len(chart.groups))]
  lefts = [0.0] * len(tops)
  for place, series in enumerate(chart.series):
    if series.is_reference:
      ends = [top + 0.19 for top in tops], [top + pitch - 0.02 for top in tops]
      dashes = {"linewidth": 1.1, "linestyles": [(0, (2, 1.2))]}
      axes.vlines(series.ys, *ends, color=ink, label=series.name, **dashes)
      continue
    values = [y if math.isfinite(y) else 0.0 for y in series.ys]
    middles = [top + 0.3 + (0 if stacked else place * _BAR) for top in tops]
    axes.barh(
      middles,
      values,
      left=lefts if stacked else 0.0,
      height=_BAR * 0.86,
      color=colours[series.colour % len(colours)],
      label=series.name,
    )
    if stacked:
      lefts = [left + value for left, value in zip(lefts, values, strict=True)]
      continue
    for group, middle in enumerate(middles):
      _draw_value(axes, series, group, middle, ink)
  for top, name in zip(tops, chart.groups, strict=True):
    # A bar chart has room for so many letters; the end tells runs apart.
    name = name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}"
    place = {"transform": axes.get_yaxis_transform(), "va": "center"}
    axes.text(0.0, top + _GAP, name, color=ink, fontsize=10.5, **place)
  axes.set_yticks([])
  axes.margins(x=0.14)
  if not any(abs(y) > 0 for series in chart.series for y in series.ys):
    axes.set_xlim(0, 1)
  axes.set_ylim(len(tops) * pitch - 0.02, -0.06)


def _draw_value(
  axes: Axes, series: Series, group: int, middle: float, ink: str
) -> None:
  """Single values as dots or an interval as a line, and the number behind."""
  value = series.ys[group]
  style = {"linewidth": 1.2, "marker": "|", "markersize": 5}
  points = series.points[group] if series.points else ()
  if len(points) > 1:
    style = {"linewidth": 0, "marker": "o", "markersize": 2.6}
  else:
    points = [series.low[group], series.high[group]] if series.low else []
    points = points if all(map(math.isfinite, points)) else []
  if points:
    axes.plot(points, [middle] * len(points), color=ink, **style)
  if math.isfinite(value):
    # 5.70, 34.0, 1,234: numbers of one chart with digits alike.
    text = f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
    behind = (max(value, 0.0, *points), middle)
    place = {"textcoords": "offset points", "va": "center"}
    text = text if value else "0"
    axes.annotate(text, behind, (4, 0), color=ink, fontsize=_SMALL, **place)
