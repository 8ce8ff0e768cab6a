"""Writes one self-contained report.html from the files that runs left behind.

The page loads nothing from outside, needs no script, and can be mailed or
attached as it is. The same files give the same page.

  write_report(["runs/sft", "runs/gkd"], "report.html")
"""

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import os
from typing import Any

from gkd import files
from gkd.errors import UserError
from gkd.report import charts
from gkd.report import curves
from gkd.report import elements
from gkd.report import formats
from gkd.report import identities
from gkd.report import pictures
from gkd.report import plots
from gkd.report import runs
from gkd.report import settings
from gkd.report import splits
from gkd.report import states
from gkd.report import tables
from gkd.report import texts
from gkd.report.results import results_table
from gkd.report.style import style_sheet

_FACTS = {"seconds": "time"}


def write_report(dirs: Sequence[str], output: str) -> str:
  """Writes the report of some runs, whole or not at all.

  Args:
    dirs: directories of runs, of sets of runs, or with a results.json.
    output: path of the page; its folder is made.

  Returns:
    Path of the page.

  Raises:
    UserError: a directory does not exist, has nothing to report, or holds a
      file that cannot be read; the page cannot be written.
  """
  text = page(_read(dirs))
  with _writing(output, "file"):
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    files.write_text(output, text)
  return output


def write_plots(dirs: Sequence[str], directory: str) -> list[str]:
  """Writes the report's charts as PNG files; returns their paths."""
  collection = _read(dirs)
  wanted = []
  if collection.results is not None:
    wanted += charts.from_results(collection.results)
  for section, found in curves.from_runs(collection.runs).items():
    if section.startswith(("Evaluation", "Training", "Time and memory")):
      wanted += found
  with _writing(directory, "folder"):
    return [pictures.write_png(chart, directory) for chart in wanted]


def _read(dirs: Sequence[str]) -> runs.Collection:
  collection = runs.read(dirs)
  return dataclasses.replace(
    collection, runs=splits.told_apart(collection.runs)
  )


@contextlib.contextmanager
def _writing(path: str, kind: str) -> Iterator[None]:
  """Every refusal of the disk is one line."""
  try:
    yield
  except OSError as error:
    raise UserError(
      f"cannot write {path} ({error.strerror}); free some space or give another"
      f" {kind}"
    ) from error


def page(collection: runs.Collection) -> str:
  """The whole document."""
  sections = []
  if collection.results is not None:
    sections.append(_results(collection.results))
  if collection.runs:
    sections += [
      _runs(collection),
      *_curves(collection.runs),
      _differences(collection.runs),
      _writers(collection.runs),
      texts.predictions(collection.runs),
      texts.samples(collection.runs),
      texts.configurations(collection.runs),
    ]
  body, contents = elements.with_contents("\n".join(filter(None, sections)))
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{elements.escape(_title(collection))}</title>
<style>{style_sheet()}</style>
</head>
<body>
{_header(collection)}
{contents}
<main>
{body}
</main>
<footer>Made by <code>gkd report</code> from the files of the runs; no model
was run.</footer>
</body>
</html>
"""


def _title(collection: runs.Collection) -> str:
  meta = collection.results.meta if collection.results is not None else {}
  return str(meta.get("title") or "Distillation report")


def _header(collection: runs.Collection) -> str:
  meta = collection.results.meta if collection.results is not None else {}
  trained = sum(not run.is_evaluation for run in collection.runs)
  scored = len(collection.runs) - trained
  rows = len(collection.results.rows) if collection.results is not None else 0
  counts = [
    f"{count} {one if count == 1 else many}"
    for count, one, many in (
      (trained, "run", "runs"),
      (scored, "evaluation", "evaluations"),
      (rows, "row of results", "rows of results"),
    )
    if count
  ]
  items = "".join(
    f"<dt>{elements.escape(_FACTS.get(key, key.replace('_', ' ')))}</dt>"
    f"<dd>{elements.escape(_fact(key, value))}</dd>"
    for key, value in meta.items()
    if key != "title"
  )
  facts = f'<dl class="meta">{items}</dl>' if items else ""
  return (
    f"<header><h1>{elements.escape(_title(collection))}</h1>"
    f'<p class="soft">{" · ".join(counts)}</p>{facts}</header>'
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


def _runs(collection: runs.Collection) -> str:
  """Where the runs ended, and what is not whole."""
  summary = tables.runs_table(collection.runs)
  parts = [] if summary is None else [elements.table(summary)]
  for table in tables.score_tables(collection.runs):
    parts.append(f"<h3>{elements.breakable(table.title)}</h3>")
    parts.append(elements.table(table))
  notes = states.notes(collection.runs, collection.silent)
  if notes:
    items = "".join(
      f"<li><strong>{elements.breakable(name)}</strong>"
      f" {elements.escape(note)}.</li>"
      for name, note in notes
    )
    parts.append(f'<ul class="notes" aria-label="Not whole">{items}</ul>')
  alone = all(run.is_evaluation for run in collection.runs)
  title = "Evaluations" if alone else "Runs"
  return f"<section><h2>{title}</h2>{''.join(parts)}</section>"


def _curves(found: Sequence[runs.Run]) -> list[str]:
  """The sections of curves, under a legend that stays in sight."""
  sections = curves.from_runs(found)
  drawn = [chart for found in sections.values() for chart in found]
  lines = [chart for chart in drawn if chart.kind == "lines"]
  notes = []
  if lines and len(found) > len(runs.by_arm(found)):
    notes.append(
      "Lines are means over the seeds; the band reaches from the lowest seed to"
      " the highest."
    )
  notes += dict.fromkeys(n for c in lines for n in pictures.drawing_notes(c))
  legend = curves.legend(found)
  if len(legend) > plots.NUM_STYLES:
    notes.append(
      f"Colours and dashes repeat after {plots.NUM_STYLES} runs; report fewer"
      " at once to tell lines apart."
    )
  parts = [elements.note(" ".join(notes))]
  if lines:
    parts.append(
      '<details class="runs" open><summary>Runs in the curves</summary>'
      f"{elements.legend(legend)}</details>"
    )
  parts += [_section_of_charts(*section) for section in sections.items()]
  # One block: the legend stays in sight as long as the curves do.
  return [f'<div class="all-runs">{"".join(parts)}</div>'] if drawn else []


def _section_of_charts(name: str, drawn: Sequence[plots.Chart]) -> str:
  bars = [chart for chart in drawn if chart.kind != "lines"]
  # A bar chart is as tall as it has bars: pack the others beside a single one,
  # and several by themselves.
  blocks = [(drawn, bool(bars))]
  if len(bars) > 1:
    lines = [chart for chart in drawn if chart.kind == "lines"]
    blocks = [(lines, False), (bars, True)]
  figures = "".join(_figures(*block) for block in blocks if block[0])
  if name == "More":
    figures = (
      f"<details><summary>{len(drawn)} more curves</summary>{figures}</details>"
    )
  return f"<section><h2>{elements.escape(name)}</h2>{figures}</section>"


def _figures(drawn: Sequence[plots.Chart], are_packed: bool) -> str:
  figures = "".join(
    elements.figure(chart, with_legend=chart.kind != "lines") for chart in drawn
  )
  return f'<div class="charts{" packed" * are_packed}">{figures}</div>'


def _differences(found: Sequence[runs.Run]) -> str:
  """Settings of training runs and of evaluations, each among themselves."""
  trained = [run for run in found if not run.is_evaluation]
  scored = [run for run in found if run.is_evaluation]
  parts = _differing(trained)
  others = _differing(scored)
  if parts and others:
    others = ["<h3>Evaluations</h3>", *others]
  parts += others
  if not parts:
    return ""
  return (
    f"<section><h2>What differs between the runs</h2>{''.join(parts)}</section>"
  )


def _differing(found: Sequence[runs.Run]) -> list[str]:
  parts = []
  table = settings.main_table(found)
  if table is not None:
    parts.append(elements.table(table, "settings narrow"))
  for table, words in (
    (settings.other_table(found), "more settings"),
    (identities.differences(found), "facts of their models and data"),
  ):
    if table is not None:
      parts.append(
        f"<details><summary>{len(table.rows)} {words} that differ</summary>"
        f"{elements.table(table, 'settings narrow')}</details>"
      )
  return parts


def _writers(found: Sequence[runs.Run]) -> str:
  table = identities.written(found)
  if table is None:
    return ""
  return (
    "<section><h2>Texts written by a model</h2>"
    '<p class="note">Where the training texts of a run come from, as its folder'
    f" says.</p>{elements.table(table, 'settings narrow')}</section>"
  )
