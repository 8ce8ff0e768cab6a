"""Writes one self-contained report.html from the files that runs left behind.

The page loads nothing from outside and can be mailed or attached as it is.

  write_report(["runs/sft", "runs/gkd"], "report.html")
"""

from collections.abc import Sequence
import os
from typing import Any

from gkd.report import charts
from gkd.report import curves
from gkd.report import elements
from gkd.report import formats
from gkd.report import plots
from gkd.report import runs
from gkd.report import settings
from gkd.report import tables
from gkd.report import texts
from gkd.report.results import results_table
from gkd.report.style import style_sheet

_FACTS = {"seconds": "time"}


def write_report(dirs: Sequence[str], output: str) -> str:
  """Writes the report of some runs.

  Args:
    dirs: directories of runs, of sets of runs, or with a results.json.
    output: path of the page, or a directory that gets a report.html.

  Returns:
    Path of the page.

  Raises:
    UserError: a directory does not exist or has nothing to report.
  """
  text = page(runs.read(dirs))
  if os.path.isdir(output):
    output = os.path.join(output, "report.html")
  os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
  with open(f"{output}.tmp", "w", encoding="utf-8") as file:
    file.write(text)
  os.replace(f"{output}.tmp", output)
  return output


def write_plots(dirs: Sequence[str], directory: str) -> list[str]:
  """Writes the report's charts as PNG files; returns their paths."""
  collection = runs.read(dirs)
  wanted = []
  if collection.results is not None:
    wanted += charts.from_results(collection.results)
  sections = curves.from_runs(collection.runs)
  for section in ("Evaluation", "Training", "Time and memory"):
    wanted += sections.get(section, [])
  return [plots.write_png(chart, directory) for chart in wanted]


def page(collection: runs.Collection) -> str:
  """The whole document."""
  parts = [_header(collection)]
  if collection.results is not None:
    parts.append(_results(collection.results))
  if collection.runs:
    parts += [
      _runs(collection.runs),
      _differences(collection.runs),
      texts.predictions(collection.runs),
      texts.samples(collection.runs),
      texts.configurations(collection.runs),
    ]
  body = "\n".join(part for part in parts if part)
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Distillation report</title>
<style>{style_sheet()}</style>
</head>
<body>
{body}
<footer>Made by <code>gkd report</code> from the files of the runs; no model
was run.</footer>
</body>
</html>
"""


def _header(collection: runs.Collection) -> str:
  meta = collection.results.meta if collection.results is not None else {}
  title = meta.get("title") or "Distillation report"
  count = len(collection.runs)
  parts = [f"{count} run{'s' * (count != 1)}"] if count else []
  if collection.results is not None:
    count = len(collection.results.rows)
    parts.append(f"{count} row{'s' * (count != 1)} of results")
  items = "".join(
    f"<dt>{elements.escape(_FACTS.get(key, key.replace('_', ' ')))}</dt>"
    f"<dd>{elements.escape(_fact(key, value))}</dd>"
    for key, value in meta.items()
    if key != "title"
  )
  facts = f'<dl class="meta">{items}</dl>' if items else ""
  return (
    f"<header><h1>{elements.escape(title)}</h1>"
    f'<p class="soft">{" · ".join(parts)}</p>{facts}</header>'
  )


def _fact(key: str, value: Any) -> str:
  is_time = key == "seconds" and formats.is_number(value)
  return formats.duration(value) if is_time else elements.short(value)


def _results(found: runs.Results) -> str:
  figures = "".join(map(elements.figure, charts.from_results(found)))
  return (
    f"<section><h2>Results</h2>{elements.table(results_table(found))}"
    f'<div class="charts packed">{figures}</div></section>'
  )


def _runs(found: Sequence[runs.Run]) -> str:
  parts = ["<section><h2>Runs</h2>", elements.table(tables.runs_table(found))]
  legend = elements.legend(curves.legend(found))
  if len(found) > len(runs.by_arm(found)):
    parts.append(
      '<p class="note">Lines below are means over the seeds; the band reaches'
      " from the lowest seed to the highest.</p>"
    )
  parts.append(f'</section><div class="runs">{legend}</div>')
  for section, drawn in curves.from_runs(found).items():
    figures = "".join(
      elements.figure(chart, with_legend=chart.kind != "lines")
      for chart in drawn
    )
    # A bar chart is as tall as it has bars: pack the others beside it.
    packed = " packed" * any(chart.kind != "lines" for chart in drawn)
    figures = f'<div class="charts{packed}">{figures}</div>'
    if section == "More":
      figures = (
        f"<details><summary>{len(drawn)} more curves</summary>{figures}"
        "</details>"
      )
      parts.append(f"<section>{figures}</section>")
    else:
      parts.append(f"<section><h2>{section}</h2>{figures}</section>")
  return f'<div class="all-runs">{"".join(parts)}</div>'


def _differences(found: Sequence[runs.Run]) -> str:
  parts = []
  table = settings.main_table(found)
  if table is not None:
    parts.append(elements.table(table, "settings narrow"))
  table = settings.other_table(found)
  if table is not None:
    parts.append(
      f"<details><summary>{len(table.rows)} more differences</summary>"
      f"{elements.table(table, 'settings narrow')}</details>"
    )
  if not parts:
    return ""
  return (
    f"<section><h2>What differs between the runs</h2>{''.join(parts)}</section>"
  )
