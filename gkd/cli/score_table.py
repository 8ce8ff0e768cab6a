"""The scores of `gkd evaluate` as a table on a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence

from gkd.evaluation.evaluation import Evaluation

_TEACHER = "teacher_"


def table(
  evaluations: Sequence[Evaluation], values: Mapping[str, float]
) -> str:
  """One block a split, one line a metric, the teacher's beside the model's.

  Args:
    evaluations: what was evaluated.
    values: the numbers by name, as `evaluate` returns them.
  """
  lines: list[str] = []
  for part in dict.fromkeys(e.metric_part for e in evaluations):
    found = [e for e in evaluations if e.metric_part == part]
    lines += ["", *_block(found, f"eval/{part}/", values)]
  return "\n".join(lines[1:])


def _block(
  evaluations: Sequence[Evaluation], prefix: str, values: Mapping[str, float]
) -> list[str]:
  """The lines of one split."""
  own = {
    name.removeprefix(prefix): value
    for name, value in values.items()
    if name.startswith(prefix)
  }
  names = sorted(filter(_is_metric, own), key=lambda name: "_kl" in name)
  head, intervals = ["value"], any(f"{name}_ci_low" in own for name in names)
  if intervals:
    head.append("95 % interval")
  with_teacher = any(name.startswith(_TEACHER) for name in own)
  columns = ["", _TEACHER] if with_teacher else [""]
  if with_teacher:
    head += ["teacher", *head[1:]]
  rows = []
  for name in names:
    cells = [name]
    for column in columns:
      cells += _cells(own, f"{column}{name}", intervals)
    rows.append(cells)
  return [*_title(evaluations), *_aligned([["", *head], *rows])]


def _is_metric(name: str) -> bool:
  return not name.endswith(("_ci_low", "_ci_high")) and not name.startswith(
    _TEACHER
  )


def _cells(own: Mapping[str, float], name: str, intervals: bool) -> list[str]:
  if name not in own:
    return [""] * (1 + intervals)
  cells = [_number(own[name])]
  if intervals:
    ends = [own.get(f"{name}_{end}") for end in ("ci_low", "ci_high")]
    known = None not in ends
    cells.append(" to ".join(map(_number, ends)) if known else "")
  return cells


def _number(value: float) -> str:
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _title(evaluations: Sequence[Evaluation]) -> list[str]:
  """Which rows, and how they were answered: in several ways, by the label."""
  first, *more = evaluations
  title = f"{first.name}, {first.split}: {first.num_rows:,} prompts"
  if not more:
    return [f"{title}, {_way(first)}"]
  labels = [f"…_{e.label}: " if e.label else "" for e in evaluations]
  ways = map(_way, evaluations)
  return [title, *(f"  {n}{way}" for n, way in zip(labels, ways, strict=True))]


def _way(evaluation: Evaluation) -> str:
  number = evaluation.num_samples
  answers = f", {number} answers each" if number > 1 else ""
  return f"{evaluation.decoding.describe()}{answers}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for name, *cells in rows:
    right = [
      cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)
    ]
    lines.append("   ".join([f"  {name.ljust(widths[0])}", *right]).rstrip())
  return lines
