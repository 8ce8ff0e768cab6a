"""The scores of `gkd evaluate` as a table on a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence

from gkd.evaluation.evaluation import Evaluation
from gkd.metric_fields import SUFFIXES
from gkd.metric_fields import MetricInfo
from gkd.progress import short


def table(
  evaluations: Sequence[Evaluation],
  values: Mapping[str, float],
  infos: Mapping[str, MetricInfo],
) -> str:
  """One block a split, one line a metric, the teacher's beside the model's.

  Numbers and descriptions are by name, as `evaluate` and `metric_infos` return
  them.
  """
  by_split: dict[str, list[Evaluation]] = {}
  for evaluation in evaluations:
    by_split.setdefault(evaluation.metric_part, []).append(evaluation)
  return "\n\n".join(
    "\n".join([*_title(group), *_block(f"eval/{part}/", values, infos)])
    for part, group in by_split.items()
  )


def _block(
  prefix: str, values: Mapping[str, float], infos: Mapping[str, MetricInfo]
) -> list[str]:
  """The lines of one split."""
  ends = {f"{name}{end}" for name in values for end in SUFFIXES} - infos.keys()
  own = [n for n in values if n.startswith(prefix) and n not in ends]
  described = {name: infos[name] for name in own if name in infos}
  teachers = {
    (info.metric, info.label, info.compared_with): name
    for name, info in described.items()
    if info.role == "teacher"
  }
  names = [name for name in own if name not in teachers.values()]
  names.sort(key=lambda n: n in described and described[n].compared_with != "")
  intervals = any(n + SUFFIXES[0] in ends & values.keys() for n in own)
  head = ["value"] + ["95 % interval"] * intervals
  rows = [["", *head, *(["teacher", *head[1:]] if teachers else [])]]
  for name in names:
    cells = _cells(values, name, intervals)
    if teachers:
      info = described.get(name)
      beside = info and teachers.get(
        (info.metric, info.label, info.compared_with)
      )
      cells += _cells(values, beside, intervals)
    unit = described[name].unit if name in described else ""
    title = name.removeprefix(prefix) + (f" ({unit})" if unit else "")
    rows.append([title, *cells])
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = []
  for name, *cells in rows:
    right = [c.rjust(w) for c, w in zip(cells, widths[1:], strict=True)]
    lines.append("   ".join([f"  {name.ljust(widths[0])}", *right]).rstrip())
  return lines


def _cells(
  values: Mapping[str, float], name: str | None, intervals: bool
) -> list[str]:
  """The value and, where there are intervals, its interval."""
  if name is None:
    return [""] * (1 + intervals)
  ends = [values.get(f"{name}{end}") for end in SUFFIXES[:2]]
  interval = "" if None in ends else " to ".join(map(short, ends))
  return [short(values[name]), *[interval] * intervals]


def _title(evaluations: Sequence[Evaluation]) -> list[str]:
  """The rows and the decoding; of several strategies each by its label."""
  first = evaluations[0]
  title = f"{first.name}, {first.split}: {first.num_rows:,} prompts"
  decodings = []
  for evaluation in evaluations:
    label = f"…_{evaluation.label}: " if evaluation.label else ""
    number = evaluation.num_samples
    answers = f", {number} answers each" if number > 1 else ""
    decodings.append(f"{label}{evaluation.decoding.describe()}{answers}")
  if len(evaluations) == 1:
    return [f"{title}, {decodings[0]}"]
  return [title, *(f"  {decoding}" for decoding in decodings)]
