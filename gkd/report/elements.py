"""Pieces of the page: tables, figures, legends, escaped text."""

from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import html
import math
import re
from typing import Any

from gkd.report import formats
from gkd.report import pictures
from gkd.report import plots
from gkd.report import tables

_MAX_CHARACTERS = 1200
# A column of such names would be squeezed to a word a line.
_LONG_NAME = 24
_PALETTE = len(plots.LIGHT)


def table(content: tables.Table, kind: str = "") -> str:
  """A table that scrolls sideways by itself where the page is narrow."""
  classes = ["number" if numeric else "" for numeric in content.numeric]
  head = "".join(
    f'<th scope="col" class="{kind}">{escape(title)}</th>'
    for title, kind in zip(content.header, classes, strict=True)
  )
  body = "".join(f"<tr>{_row(row, classes)}</tr>" for row in content.rows)
  title = escape(content.title or content.header[0])
  if max((len(row[0].text) for row in content.rows), default=0) > _LONG_NAME:
    kind = f"{kind} long-names".strip()
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
    f'<table class="{kind}"><caption class="unseen">{title}</caption>'
    f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    f"{note(content.note)}"
  )


def _row(cells: Sequence[tables.Cell], classes: Sequence[str]) -> str:
  first, *rest = cells
  parts = [f'<th scope="row">{breakable(first.text)}</th>']
  for cell, kind in zip(rest, classes[1:], strict=True):
    kind = f"{kind} best" if cell.best else kind
    text = _number(cell.text) if "number" in kind else escape(cell.text)
    parts.append(f'<td class="{kind.strip()}">{text}</td>')
  return "".join(parts)


def _number(text: str) -> str:
  """A number; a narrow column breaks before its interval, nowhere else."""
  value, bracket, ends = text.partition(" [")
  found = escape(value).replace(" ", "&nbsp;")
  return f'{found} <span class="range">[{ends}</span>' if bracket else found


def figure(chart: plots.Chart, with_legend: bool = True) -> str:
  """A chart with its words; a log axis of steps also comes linear.

  Args:
    chart: what is drawn.
    with_legend: name the series; without, only what is dashed, as the page
      names the arms once for all charts.
  """
  own = [series for series in chart.series if not series.is_reference]
  # A single one is what the title says.
  named = own if with_legend and len(own) > 1 else []
  named += [series for series in chart.series if series.is_reference]
  names_of_series = legend(named, box=chart.kind != "lines") if named else ""
  linear = ""
  if chart.x_scale == "log":
    other = dataclasses.replace(
      chart, x_scale="linear", slug=f"{chart.slug}_linear"
    )
    linear = (
      "<details><summary>on a linear axis of updates</summary>"
      f"{_svg(other)}</details>"
    )
  return (
    f"<figure><figcaption><h3>{escape(chart.title)}</h3>{note(chart.note)}"
    f"{names_of_series}</figcaption>{_svg(chart)}{linear}</figure>"
  )


def _svg(chart: plots.Chart) -> str:
  words = escape(description(chart))
  return pictures.to_svg(chart).replace(
    "<svg", f'<svg role="img" aria-label="{words}"', 1
  )


def description(chart: plots.Chart) -> str:
  """A chart in words, for who cannot see it: where each series ends."""
  parts = [chart.title.rstrip(".") + "."]
  for series in chart.series:
    if chart.kind == "lines":
      start, end = (formats.number(series.ys[place]) for place in (0, -1))
      steps = f"{series.xs[0]:,} to {series.xs[-1]:,}"
      parts.append(f"{series.name}: from {start} to {end}, {steps}.")
    else:
      values = ", ".join(
        f"{group} {formats.number(value)}"
        for group, value in zip(chart.groups, series.ys, strict=True)
        if math.isfinite(value)
      )
      parts.append(f"{series.name}: {values}.")
  return " ".join(parts)


def legend(series: Iterable[plots.Series], box: bool = False) -> str:
  """Names beside their colours, with the dashes that lines have."""
  items = "".join(
    f"<li>{_swatch(one, box)}<span>{breakable(one.name)}</span></li>"
    for one in series
  )
  return f'<ul class="legend">{items}</ul>'


def _swatch(series: plots.Series, box: bool) -> str:
  colour = "--ink"
  if series.colour is not None:
    colour = f"--s{series.colour % _PALETTE}"
  if box and not series.is_reference:
    return f'<span class="box" style="background:var({colour})"></span>'
  pattern, width = (4, 2.5), 1.5
  if not series.is_reference:
    pattern, width = plots.dashes(series.colour), 2.5
  dashes = " ".join(f"{length * width:g}" for length in pattern)
  return (
    '<svg class="swatch" viewBox="0 0 30 4" aria-hidden="true">'
    f'<path d="M0 2H30" style="stroke:var({colour});stroke-width:{width}'
    + (f";stroke-dasharray:{dashes}" if dashes else "")
    + '"/></svg>'
  )


def with_contents(body: str) -> tuple[str, str]:
  """The body with a name at each heading, and a list that leads to them."""
  titles: list[str] = []

  def named(match: re.Match) -> str:
    titles.append(match.group(1))
    return f'<h2 id="section-{len(titles)}">{match.group(1)}</h2>'

  body = re.sub(r"<h2>(.*?)</h2>", named, body)
  items = "".join(
    f'<li><a href="#section-{place}">{title}</a></li>'
    for place, title in enumerate(titles, start=1)
  )
  few = len(titles) < 3
  return body, "" if few else (
    f'<nav class="contents" aria-label="Contents"><ul>{items}</ul></nav>'
  )


def note(text: str) -> str:
  return f'<p class="note">{escape(text)}</p>' if text else ""


def short(value: Any) -> str:
  """Text of a value, cut where it becomes unreadable."""
  if isinstance(value, float):
    return formats.number(value)
  if isinstance(value, (list, tuple)):
    value = "\n".join(map(str, value))
  text = str(value)
  if len(text) > _MAX_CHARACTERS:
    return text[:_MAX_CHARACTERS] + " …"
  return text


def breakable(name: str) -> str:
  """A name, escaped, that may break after _ and dots; a long one also at - /"""
  marks = r"_./\-" if len(name) > _LONG_NAME else "_."
  return re.sub(rf"([{marks}])(?=\w)", r"\1<wbr>", escape(name))


def escape(text: Any) -> str:
  return html.escape(str(text))
