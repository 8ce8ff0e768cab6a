"""Parts of the page that show texts: answers, batches, configurations."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import json
from typing import Any

from gkd.report import elements
from gkd.report import tables
from gkd.report.runs import Run
from gkd.report.runs import by_arm

_NUM_EXAMPLES = 6


def predictions(found: Sequence[Run]) -> str:
  """The same prompts, answered by each run, for each set of predictions."""
  first = [members[0] for members in by_arm(found).values()]
  names = sorted({name for run in first for name in run.predictions})
  parts = []
  for name in names:
    answers = {
      run.arm: {r.get("row"): r for r in reversed(run.predictions[name])}
      for run in first
      if name in run.predictions
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
  note = (
    '<p class="note">Prompts on which the runs disagree first'
    f"{_of_first_seed(found)}.</p>"
  )
  return f"<section><h2>Predictions</h2>{note}{''.join(parts)}</section>"


def _of_first_seed(found: Sequence[Run]) -> str:
  return "; from the first seed" * (len(found) > len(by_arm(found)))


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


def samples(found: Sequence[Run]) -> str:
  """The last dump of each run's training batch."""
  parts = []
  for run in (members[0] for members in by_arm(found).values()):
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
        f"<details><summary>{elements.escape(run.title)}</summary>"
        f"{elements.table(table, 'settings')}</details>"
      )
  if not parts:
    return ""
  return (
    "<section><h2>Batches as trained</h2>"
    f'<p class="note">Rows of the last dump{_of_first_seed(found)}.</p>'
    f"{''.join(parts)}</section>"
  )


def configurations(found: Sequence[Run]) -> str:
  """The whole configuration of each run, and what it says of its model."""
  parts = []
  for run in found:
    blocks = [run.config_text.strip()]
    if run.identity:
      text = json.dumps(run.identity, indent=2, ensure_ascii=False)
      blocks.append(f"# run.json\n{text}")
    shown = "".join(
      f'<pre tabindex="0">{elements.escape(block)}</pre>'
      for block in filter(None, blocks)
    )
    if shown:
      parts.append(
        f"<details><summary>{elements.breakable(run.title)}</summary>{shown}"
        "</details>"
      )
  if not parts:
    return ""
  return f"<section><h2>Configurations</h2>{''.join(parts)}</section>"
