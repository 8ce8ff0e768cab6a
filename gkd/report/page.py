"""Writes one self-contained report.html from the files that runs left behind.

The page loads nothing from outside, needs no script, and can be mailed or
attached as it is. The same files give the same page. What it looks like stands
in page.html.j2 and style.css.

  write_report(["runs/sft", "runs/gkd"], "report.html")
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import math
import os
import re
from typing import Any

import jinja2
import markupsafe

from gkd import files
from gkd.errors import UserError
from gkd.report import charts
from gkd.report import curves
from gkd.report import fingerprints
from gkd.report import formats
from gkd.report import pictures
from gkd.report import read
from gkd.report import results
from gkd.report import run_status
from gkd.report import tables
from gkd.report.arms import Run
from gkd.report.arms import by_arm

_NUM_EXAMPLES = 6
_PNG_SECTIONS = ("Evaluation", "Training", "Time and memory")


def write_report(dirs: Sequence[str], output: str) -> str:
  """Writes the report of some runs atomically.

  Args:
    dirs: directories of runs, of sets of runs, or with a results.json.
    output: path of the page; its folder is made.

  Returns:
    Path of the page.

  Raises:
    UserError: a directory does not exist, has nothing to report, or holds a
      file that cannot be read; the page cannot be written.
  """
  text = render(read.read(dirs))
  with _one_line_errors(output, "file"):
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    files.write_text(output, text)
  return output


def write_plots(dirs: Sequence[str], directory: str) -> list[str]:
  """Writes the report's charts as PNG files; returns their paths."""
  collection = read.read(dirs)
  drawn = []
  if collection.results.rows:
    drawn += results.charts(collection.results)
  for section, found in curves.sections(collection.runs).items():
    if section.startswith(_PNG_SECTIONS):
      drawn += found
  with _one_line_errors(directory, "folder"):
    return [pictures.write_png(chart, directory) for chart in drawn]


@contextlib.contextmanager
def _one_line_errors(path: str, kind: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f"cannot write {path} ({error.strerror}); free some space or give another"
      f" {kind}"
    ) from error


def environment() -> jinja2.Environment:
  """Jinja with the filters of the page."""
  made = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  made.filters |= {
    "breakable": breakable,
    "cell_number": cell_number,
    "duration": formats.duration,
    "excerpt": formats.excerpt,
    "json": lambda x: json.dumps(x, indent=2, ensure_ascii=False),
    "svg": _described_svg,
    "swatch_dashes": charts.swatch_dashes,
  }
  made.globals |= {
    "palettes": {"light": charts.LIGHT, "dark": charts.DARK},
    "num_examples": _NUM_EXAMPLES,
  }
  return made


def render(collection: read.Collection) -> str:
  """The whole document."""
  runs = collection.runs
  table = collection.results
  counts = (
    (sum(not run.is_evaluation for run in runs), "run", "runs"),
    (sum(run.is_evaluation for run in runs), "evaluation", "evaluations"),
    (len(table.rows), "row of results", "rows of results"),
  )
  first_seeds = [members[0] for members in by_arm(runs).values()]
  template = environment().get_template("page.html.j2")
  return template.render(
    meta=table.meta,
    counts=[f"{n} {one if n == 1 else many}" for n, one, many in counts if n],
    results_table=table.rows and results.table(table),
    results_charts=results.charts(table),
    runs=runs,
    runs_table=tables.runs_table(runs),
    score_tables=tables.score_tables(runs),
    status_notes=run_status.notes(runs, collection.empty),
    curves=_curves(runs),
    differences=_differences(runs),
    written=fingerprints.written(runs),
    predictions=_predictions(first_seeds),
    first_seeds=first_seeds,
  ).lstrip()


def _curves(runs: Sequence[Run]) -> dict[str, Any]:
  """The sections of curves, their common legend, and how to read them."""
  sections = curves.sections(runs)
  lines = [c for found in sections.values() for c in found if c.kind == "lines"]
  legend = curves.legend(runs)
  notes = []
  if lines and len(runs) > len(by_arm(runs)):
    notes.append(
      "Lines are means over the seeds; the band reaches from the lowest seed to"
      " the highest."
    )
  notes += dict.fromkeys(
    n for line in lines for n in pictures.drawing_notes(line)
  )
  if len(legend) > charts.NUM_STYLES:
    notes.append(
      f"Colours and dashes repeat after {charts.NUM_STYLES} runs; report fewer"
      " at once to tell lines apart."
    )
  return {
    "sections": sections,
    "legend": legend,
    "has_lines": bool(lines),
    "note": " ".join(notes),
  }


def _differences(runs: Sequence[Run]) -> list[dict[str, Any]]:
  """Tables of training runs and of evaluations, each among themselves."""
  parts = []
  for is_evaluation in (False, True):
    chosen = [run for run in runs if run.is_evaluation == is_evaluation]
    shared, more = fingerprints.settings(chosen)
    found = fingerprints.facts(chosen)
    if shared or more or found:
      parts.append({"settings": shared, "more_settings": more, "facts": found})
  return parts


def _predictions(
  first_seeds: Sequence[Run],
) -> dict[str, list[list[tuple[str, Mapping]]]]:
  """{series: examples}, each the records of one prompt by arm."""
  found = {}
  for name in sorted({name for run in first_seeds for name in run.predictions}):
    answers = {
      run.arm: {r.get("row"): r for r in reversed(run.predictions[name])}
      for run in first_seeds
      if name in run.predictions
    }
    if rows := interesting(list(answers.values())):
      found[name] = [
        [(arm, records[row]) for arm, records in answers.items()]
        for row in rows
      ]
  return found


def interesting(answers: Sequence[Mapping[Any, Mapping]]) -> list[Any]:
  """Rows to show: those on which the runs disagree first, in their order."""
  common = [row for row in answers[0] if all(row in a for a in answers)]

  def agree(row) -> bool:
    return len({str(a[row].get("prediction")) for a in answers}) == 1

  chosen = sorted(common, key=agree)[:_NUM_EXAMPLES]
  return [row for row in common if row in chosen]


def breakable(name: str) -> markupsafe.Markup:
  """A name that may break after _ and dots; a long one also at - /"""
  marks = r"_./\-" if formats.is_long(name) else "_."
  text = str(markupsafe.escape(name))
  return markupsafe.Markup(re.sub(rf"([{marks}])(?=\w)", r"\1<wbr>", text))


def cell_number(text: str) -> markupsafe.Markup:
  """A number; a narrow column breaks before its interval, nowhere else."""
  value, bracket, ends = text.partition(" [")
  found = markupsafe.escape(value).replace(" ", markupsafe.Markup("&nbsp;"))
  if not bracket:
    return found
  span = markupsafe.Markup('{} <span class="range">[{}</span>')
  return span.format(found, ends)


def _described_svg(chart: charts.Chart) -> markupsafe.Markup:
  words = markupsafe.escape(description(chart))
  drawing = pictures.to_svg(chart)
  return markupsafe.Markup(
    drawing.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)
  )


def description(chart: charts.Chart) -> str:
  """A chart in words, for screen readers: where each series ends."""
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
