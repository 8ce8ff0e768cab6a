"""Writes one self-contained report.html from the files that runs left behind.

The page loads nothing from outside and can be mailed or attached as it is.

  write_report(["runs/sft", "runs/gkd"], "report.html")
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import os
from typing import Any

from gkd.report import charts
from gkd.report import elements
from gkd.report import plots
from gkd.report import runs
from gkd.report import tables
from gkd.report.style import style_sheet

_NUM_EXAMPLES = 6


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
  collection = runs.read(dirs)
  if os.path.isdir(output):
    output = os.path.join(output, "report.html")
  os.makedirs(os.path.dirname(output) or ".", exist_ok=True)
  with open(f"{output}.tmp", "w", encoding="utf-8") as file:
    file.write(page(collection))
  os.replace(f"{output}.tmp", output)
  return output


def write_plots(dirs: Sequence[str], directory: str) -> list[str]:
  """Writes the report's charts as PNG files; returns their paths."""
  collection = runs.read(dirs)
  wanted = []
  if collection.results is not None:
    wanted += charts.from_results(collection.results)
  sections = charts.from_runs(collection.runs)
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
      _predictions(collection.runs),
      _samples(collection.runs),
      _configurations(collection.runs),
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
    f"<dt>{elements.escape(key.replace('_', ' '))}</dt>"
    f"<dd>{elements.escape(elements.short(value))}</dd>"
    for key, value in meta.items()
    if key != "title"
  )
  facts = f'<dl class="meta">{items}</dl>' if items else ""
  return (
    f"<header><h1>{elements.escape(title)}</h1>"
    f'<p class="soft">{" · ".join(parts)}</p>{facts}</header>'
  )


def _results(results: runs.Results) -> str:
  figures = "".join(map(elements.figure, charts.from_results(results)))
  return (
    f"<section><h2>Results</h2>{elements.table(tables.results_table(results))}"
    f'<div class="charts">{figures}</div></section>'
  )


def _runs(found: Sequence[runs.Run]) -> str:
  parts = ["<section><h2>Runs</h2>", elements.table(tables.runs_table(found))]
  legend = elements.legend(charts.legend(found))
  parts.append(f'</section><div class="runs">{legend}</div>')
  for section, drawn in charts.from_runs(found).items():
    figures = "".join(
      elements.figure(chart, with_legend=chart.kind != "lines")
      for chart in drawn
    )
    figures = f'<div class="charts">{figures}</div>'
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
  table = tables.differences_table(found)
  if table is not None:
    parts.append(elements.table(table, "settings"))
  table = tables.partial_table(found)
  if table is not None:
    parts.append(
      f"<details><summary>{len(table.rows)} settings that only some runs have"
      f"</summary>{elements.table(table, 'settings')}</details>"
    )
  if not parts:
    return ""
  return (
    f"<section><h2>What differs between the runs</h2>{''.join(parts)}</section>"
  )


def _predictions(found: Sequence[runs.Run]) -> str:
  """The same prompts, answered by each run, for each set of predictions."""
  names = sorted({name for run in found for name in run.predictions})
  parts = []
  for name in names:
    having = [run for run in found if name in run.predictions]
    answers = {
      run.name: {r.get("row"): r for r in reversed(run.predictions[name])}
      for run in having
    }
    shown = "".join(
      _example(row, answers) for row in _interesting(answers.values())
    )
    if shown:
      parts.append(
        f"<details{' open' * (name == names[0])}>"
        f"<summary>{elements.escape(name)}</summary>{shown}</details>"
      )
  if not parts:
    return ""
  return f"<section><h2>Predictions</h2>{''.join(parts)}</section>"


def _interesting(answers: Iterable[Mapping[Any, Mapping]]) -> list[Any]:
  """Rows to show: those on which the runs disagree first, in their order."""
  answers = list(answers)
  common = [row for row in answers[0] if all(row in a for a in answers)]

  def agree(row) -> bool:
    return len({str(a[row].get("prediction")) for a in answers}) == 1

  chosen = sorted(common, key=agree)[:_NUM_EXAMPLES]
  return [row for row in common if row in chosen]


def _example(row: Any, answers: Mapping[str, Mapping[Any, Mapping]]) -> str:
  first = next(iter(answers.values()))[row]
  items = []
  if first.get("reference") is not None:
    items.append(_answer("reference", first["reference"]))
  for name, records in answers.items():
    record = records[row]
    items.append(_answer(name, record.get("text", ""), _verdict(record)))
  prompt = elements.escape(elements.short(first.get("prompt", "")))
  return (
    f'<article class="example"><p class="text"><strong>{prompt}</strong></p>'
    f'<dl class="answers">{"".join(items)}</dl></article>'
  )


def _answer(name: str, text: Any, verdict: str = "") -> str:
  return (
    f'<div><dt>{elements.escape(name)}</dt><dd><p class="text">'
    f"{elements.escape(elements.short(text))}{verdict}</p></dd></div>"
  )


def _verdict(record: Mapping[str, Any]) -> str:
  """Right or wrong where the reference is a short answer; cut if it was."""
  parts = []
  reference, prediction = record.get("reference"), record.get("prediction")
  if reference is not None and len(str(reference)) <= 20:
    same = str(reference) == str(prediction)
    parts.append(
      '<span class="verdict right">✓ right</span>'
      if same
      else '<span class="verdict wrong">✗ wrong</span>'
    )
  if record.get("truncated"):
    parts.append('<span class="verdict soft">(cut)</span>')
  return "".join(parts)


def _samples(found: Sequence[runs.Run]) -> str:
  """The last dump of each run's training batch."""
  parts = []
  for run in found:
    rows = run.samples[:_NUM_EXAMPLES]
    if rows:
      names = [n for n in rows[0] if n not in ("row", "prompt", "text")]
      table = tables.Table(
        header=["prompt", "text", *(name.replace("_", " ") for name in names)],
        rows=[
          [
            tables.Cell(elements.short(row.get(name, "")))
            for name in ("prompt", "text", *names)
          ]
          for row in rows
        ],
        note="",
        numeric=[False] * (len(names) + 2),
      )
      parts.append(
        f"<details><summary>{elements.escape(run.name)}</summary>"
        f"{elements.table(table, 'settings')}</details>"
      )
  if not parts:
    return ""
  return (
    "<section><h2>Batches as trained</h2>"
    f'<p class="note">Rows of the last dump.</p>{"".join(parts)}</section>'
  )


def _configurations(found: Sequence[runs.Run]) -> str:
  parts = [
    f"<details><summary>{elements.escape(run.name)}</summary>"
    f"<pre>{elements.escape(run.config_text.strip())}</pre></details>"
    for run in found
    if run.config_text.strip()
  ]
  if not parts:
    return ""
  return f"<section><h2>Configurations</h2>{''.join(parts)}</section>"
