"""The scores of `gkd evaluate` as a table on a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence

from gkd.evaluation.evaluation import Evaluation

_TEACHER = "teacher_"
_ENDS = ("_ci_low", "_ci_high")


def table(
  evaluations: Sequence[Evaluation], values: Mapping[str, float]
) -> str:
  """One block a split, one line a metric, the teacher's beside the model's.

  Args:
    evaluations: what was evaluated.
    values: the numbers by name, as `evaluate` returns them.
  """
  blocks = []
  for part in dict.fromkeys(e.metric_part for e in evaluations):
    of_part = [e for e in evaluations if e.metric_part == part]
    blocks.append(
      "\n".join([*_title(of_part), *_block(f"eval/{part}/", values)])
    )
  return "\n\n".join(blocks)


def _block(prefix: str, values: Mapping[str, float]) -> list[str]:
  """The lines of one split."""
  own = {
    name.removeprefix(prefix): value
    for name, value in values.items()
    if name.startswith(prefix)
  }
  names = [n for n in own if not n.endswith(_ENDS) and _TEACHER not in n]
  names.sort(key=lambda name: "_kl" in name)
  intervals = any(f"{name}{_ENDS[0]}" in own for name in names)
  head = ["value"] + ["95 % interval"] * intervals
  roles = {"": head}
  if any(name.startswith(_TEACHER) for name in own):
    roles[_TEACHER] = ["teacher", *head[1:]]
  rows = [["", *(title for head in roles.values() for title in head)]]
  for name in names:
    cells = [_cells(own, f"{role}{name}", intervals) for role in roles]
    rows.append([name, *(cell for pair in cells for cell in pair)])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for name, *cells in rows:
    right = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
    lines.append("   ".join([f"  {name.ljust(widths[0])}", *right]).rstrip())
  return lines


def _cells(own: Mapping[str, float], name: str, intervals: bool) -> list[str]:
  """The value and, where there are intervals, its interval."""
  if name not in own:
    return [""] * (1 + intervals)
  ends = [own.get(f"{name}{end}") for end in _ENDS]
  interval = "" if None in ends else " to ".join(map(_number, ends))
  return [_number(own[name]), *[interval] * intervals]


def _number(value: float) -> str:
  return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _title(evaluations: Sequence[Evaluation]) -> list[str]:
  """The rows and the decoding; of several strategies each by its label."""
  first, *more = evaluations
  title = f"{first.name}, {first.split}: {first.num_rows:,} prompts"
  if not more:
    return [f"{title}, {_decoding(first)}"]
  return [
    title,
    *(
      f"  {f'…_{e.label}: ' if e.label else ''}{_decoding(e)}"
      for e in evaluations
    ),
  ]


def _decoding(evaluation: Evaluation) -> str:
  number = evaluation.num_samples
  answers = f", {number} answers each" if number > 1 else ""
  return f"{evaluation.decoding.describe()}{answers}"
