"""Pieces of the page: tables, figures, legends, escaped text."""

from collections.abc import Iterable
from collections.abc import Sequence
import html
import re
from typing import Any

from gkd.report import formats
from gkd.report import plots
from gkd.report import tables

_MAX_CHARACTERS = 1200
_PALETTE = len(plots.LIGHT)


def table(content: tables.Table, kind: str = "") -> str:
  classes = ["number" if numeric else "" for numeric in content.numeric]
  head = "".join(
    f'<th scope="col" class="{kind}">{escape(title)}</th>'
    for title, kind in zip(content.header, classes, strict=True)
  )
  body = "".join(f"<tr>{_row(row, classes)}</tr>" for row in content.rows)
  note = f'<p class="note">{escape(content.note)}</p>' if content.note else ""
  return (
    f'<div class="scroll" tabindex="0"><table class="{kind}">'
    f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
  )


def _row(cells: Sequence[tables.Cell], classes: Sequence[str]) -> str:
  first, *rest = cells
  # A long name of a setting may break after _ and dots, nowhere else.
  name = re.sub(r"([_.])(?=\w)", r"\1<wbr>", escape(first.text))
  parts = [f'<th scope="row">{name}</th>']
  for cell, kind in zip(rest, classes[1:], strict=True):
    kind = f"{kind} best" if cell.best else kind
    parts.append(f'<td class="{kind.strip()}">{escape(cell.text)}</td>')
  return "".join(parts)


def figure(chart: plots.Chart, with_legend: bool = True) -> str:
  note = f'<p class="note">{escape(chart.note)}</p>' if chart.note else ""
  names_of_series = ""
  if with_legend and len(chart.series) > 1:
    names = [(series.name, series.colour) for series in chart.series]
    names_of_series = legend(names, box=chart.kind != "lines")
  svg = plots.to_svg(chart).replace(
    "<svg", f'<svg role="img" aria-label="{escape(chart.title)}"', 1
  )
  return (
    f"<figure><figcaption><h3>{escape(chart.title)}</h3>{note}{names_of_series}"
    f"</figcaption>{svg}</figure>"
  )


def legend(names: Iterable[tuple[str, int]], box: bool = False) -> str:
  items = "".join(
    f'<li><span class="swatch{" box" * box}" style="background:'
    f'var(--s{colour % _PALETTE})"></span>{escape(name)}</li>'
    for name, colour in names
  )
  return f'<ul class="legend">{items}</ul>'


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


def escape(text: Any) -> str:
  return html.escape(str(text))
