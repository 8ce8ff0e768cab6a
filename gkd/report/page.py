"""Writes one self-contained report.html from the files that runs left behind.

The page loads nothing from outside and can be mailed or attached as it is; a
script sorts its tables, and nothing else needs one. The same files give the
same page. What it looks like stands in page.html.j2, style.css and sort.js.

  write_report(read.read(["runs/sft", "runs/gkd"]), "report.html")
"""

from collections.abc import Mapping
from collections.abc import Sequence
import html
import json
import os
import re
from typing import Any

import jinja2
import markupsafe

from gkd import disk_errors
from gkd import files
from gkd.report import arms
from gkd.report import charts
from gkd.report import curves
from gkd.report import fingerprints
from gkd.report import formats
from gkd.report import guard_findings
from gkd.report import pictures
from gkd.report import read
from gkd.report import results
from gkd.report import sections
from gkd.report import tables
from gkd.report import turns

# In each page, so that `gkd report` knows one that it may replace.
MARK = b'<meta name="generator" content="gkd report">'
_NUM_EXAMPLES = 6
# Of a token that is as red as can be: a probability of 1 in 400.
_MOST_NATS = 6.0
_PNG_SECTIONS = ("Evaluation", "Training", "Time and memory")


def write_report(collection: read.Collection, output: str) -> str:
  """Writes the report of some runs atomically.

  Args:
    collection: what `read.read` found.
    output: path of the page; its folder is made.

  Returns:
    Path of the page.

  Raises:
    UserError: the page cannot be written.
  """
  text = render(collection)
  with disk_errors.explaining(f"cannot write {output}"):
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    files.write_text(output, text)
  return output


def write_plots(collection: read.Collection, directory: str) -> list[str]:
  """Writes the report's charts as PNG files; returns their paths."""
  drawn = _plotted(collection)
  with disk_errors.explaining(f"cannot write {directory}"):
    return [pictures.write_png(chart, directory) for chart in drawn]


def check_plots(collection: read.Collection, directory: str, name: str) -> None:
  """Refuses a folder where `write_plots` would replace files of others.

  Args:
    collection: as of `write_plots`.
    directory: for the PNG files.
    name: of the flag, for the message.
  """
  files.check_folder(directory, name)
  for chart in _plotted(collection):
    file = pictures.png_file(chart, directory)
    if os.path.lexists(file):
      files.check_file(file, name, pictures.MARK)


def _plotted(collection: read.Collection) -> list[charts.Chart]:
  drawn = results.charts(collection.results)
  for title, section in collection.sections.items():
    if title.startswith(_PNG_SECTIONS):
      drawn += section
  return drawn


def _environment() -> jinja2.Environment:
  """Jinja with the filters of the page."""
  page = jinja2.Environment(
    loader=jinja2.FileSystemLoader(os.path.dirname(__file__)),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  page.filters |= {
    "breakable": breakable,
    "cell_number": cell_number,
    "duration": formats.duration,
    "excerpt": formats.excerpt,
    "drawing_notes": pictures.drawing_notes,
    "number": formats.number,
    # None is a token that the teacher excludes.
    "surprise": lambda nats: (
      1 if nats is None else f"{min(1, -nats / _MOST_NATS):.2f}"
    ),
    "svg": lambda chart: markupsafe.Markup(pictures.to_svg(chart)),
  }
  page.globals |= {
    "palettes": {"light": charts.LIGHT, "dark": charts.DARK},
    "num_examples": _NUM_EXAMPLES,
    "num_styles": charts.NUM_STYLES,
    "differing_settings": fingerprints.settings,
    "differing_facts": fingerprints.facts,
  }
  return page


def render(collection: read.Collection) -> str:
  """The whole document."""
  runs, table = collection.runs, collection.results
  counts = (
    (sum(not run.is_evaluation for run in runs), "run", "runs"),
    (sum(run.is_evaluation for run in runs), "evaluation", "evaluations"),
    (len(table.rows), "row of results", "rows of results"),
  )
  all_arms = arms.by_arm(runs)
  first_seeds = [arm.runs[0] for arm in all_arms]
  are_many = arms.are_many(runs)
  runs_table, score_tables = tables.run_tables(runs)
  turn_tables = turns.run_tables(runs)
  shown = [*filter(None, [runs_table]), *score_tables, *turn_tables]
  folded: list[tables.Table] = []
  later_sections, first_sections = dict(collection.sections), {}
  if are_many and turn_tables:
    folded = [table for table in shown if table is not turn_tables[0]]
    shown = turn_tables[:1]
    if paths := later_sections.pop(sections.PATHS, None):
      first_sections = {sections.PATHS: paths}
  template = _environment().get_template("page.html.j2")
  return template.render(
    meta=table.meta,
    counts=[f"{n} {one if n == 1 else many}" for n, one, many in counts if n],
    results_table=table.rows and results.table(table),
    results_charts=results.charts(table),
    runs=runs,
    are_many=are_many,
    of_first_seed="; from the first seed" * (len(first_seeds) < len(runs)),
    runs_table=runs_table,
    tables=shown,
    folded_tables=folded,
    status_notes=list(tables.status_notes(runs, collection.empty)),
    first_sections=first_sections,
    sections=later_sections,
    legend_of_arms=curves.legend(runs),
    guard_table=guard_findings.table(runs) if are_many else None,
    guard_charts=guard_findings.charts(first_seeds if are_many else runs),
    contents=fingerprints.contents(runs),
    written=fingerprints.written(runs),
    predictions=_predictions(first_seeds),
    first_seeds=first_seeds,
    configurations=_configurations(all_arms, are_many),
  ).lstrip()


def _predictions(
  first_seeds: Sequence[arms.Run],
) -> dict[str, list[list[tuple[str, Mapping]]]]:
  """{series: examples}, each the records of one prompt by arm."""
  examples = {}
  for name in sorted({name for run in first_seeds for name in run.predictions}):
    by_row = {
      run.arm: {r.get("row"): r for r in reversed(run.predictions[name])}
      for run in first_seeds
      if name in run.predictions
    }
    if rows := disagreements_first(list(by_row.values())):
      examples[name] = [
        [(arm, records[row]) for arm, records in by_row.items()] for row in rows
      ]
  return examples


def disagreements_first(runs: Sequence[Mapping[Any, Mapping]]) -> list[Any]:
  """Rows to show: those on which the runs disagree first, in their order."""
  common = [row for row in runs[0] if all(row in records for records in runs)]

  def agree(row) -> bool:
    return len({str(records[row].get("prediction")) for records in runs}) == 1

  chosen = sorted(common, key=agree)[:_NUM_EXAMPLES]
  return [row for row in common if row in chosen]


def _configurations(
  all_arms: Sequence[arms.Arm], are_many: bool
) -> dict[str, list[tuple[str, Sequence[Mapping], markupsafe.Markup]]]:
  """{arm: (run, starts, config.gin and run.json)}.

  Of all seeds but the first only the lines that the first does not have, and of
  many arms only the lines of run.json that the first arm does not have.
  """
  found = {}
  common: set[str] = set()
  for arm in all_arms:
    parts, known = [], set()
    for run in arm.runs:
      # It may hold the configuration of a run that wrote its texts.
      about = json.dumps(run.about, indent=2, ensure_ascii=False)
      about_lines = about.replace("\\n", "\n").split("\n") if run.about else []
      title = "# run.json" + ", lines that differ from the first's" * bool(
        common
      )
      lines = run.config_text.strip().split("\n") + [title] * bool(run.about)
      lines += [line for line in about_lines if line not in common]
      shown = "\n".join(line for line in lines if line not in known).strip()
      known = known or {*lines}
      # Quotes are many, and need no escape outside of a tag.
      shown = markupsafe.Markup(html.escape(shown, quote=False))
      parts.append((run.title, run.starts, shown))
      if are_many:
        common = common or {*about_lines}
    if any(text for *_, text in parts):
      found[arm.name] = parts
  return found


def breakable(name: str) -> markupsafe.Markup:
  """A name that may break after _ and dots; a long one also at - /"""
  marks = r"_./\-" if formats.is_long(name) else "_."
  text = str(markupsafe.escape(name))
  return markupsafe.Markup(re.sub(rf"([{marks}])(?=\w)", r"\1<wbr>", text))


def cell_number(text: str) -> markupsafe.Markup:
  """A number; a narrow column breaks before its interval, nowhere else."""
  value, bracket, ends = text.partition(" [")
  value = markupsafe.escape(value).replace(" ", markupsafe.Markup("&nbsp;"))
  if not bracket:
    return value
  span = markupsafe.Markup('{} <span class="range">[{}</span>')
  return span.format(value, ends)
