"""Charts of a table of results: bars for each method, lines over λ."""

from collections.abc import Sequence

from gkd.report import formats
from gkd.report import names
from gkd.report import results as tables
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Results
from gkd.report.tables import mean

# Slug, title, note, columns and their names in the legend.
_BARS = (
  (
    "accuracy",
    "Accuracy on held-out problems",
    "Per cent.",
    {
      "accuracy_greedy": "greedy",
      "accuracy_sampled": "sampled at temperature 1",
    },
  ),
  (
    "divergence",
    "Distance to the teacher",
    "Nats a sequence; forward KL on teacher text, reverse KL on student text."
    " Less is closer.",
    {"forward_kl": "forward KL", "reverse_kl": "reverse KL"},
  ),
  (
    "train_seconds",
    "Training time",
    "Seconds; what came before (teacher, SFT) is not counted again.",
    {"train_seconds": "seconds"},
  ),
)


def from_results(results: Results) -> list[Chart]:
  """Bars for each method, and the dependence on λ where there is one."""
  groups = tables.groups(results)
  accuracy, divergence, seconds = (_bars(groups, *bars) for bars in _BARS)
  found = (accuracy, divergence, _lambda_chart(groups), seconds)
  return [chart for chart in found if chart is not None]


def _bars(
  groups: Sequence[tables.Group],
  slug: str,
  title: str,
  note: str,
  columns: dict[str, str],
) -> Chart | None:
  chosen = [g for g in groups if any(g.values(name) for name in columns)]
  if not chosen:
    return None
  if any(len(group.rows) > 1 for group in chosen):
    note = f"{note} Bars are means over seeds, dots single seeds."
  series = [
    Series(
      name=name,
      colour=colour,
      ys=[mean(group.values(column)) for group in chosen],
      points=[group.values(column) for group in chosen],
    )
    for colour, (column, name) in enumerate(columns.items())
    if any(group.values(column) for group in chosen)
  ]
  labels = [group.label for group in chosen]
  return Chart(slug, title, note, "bars", series, x_label="", groups=labels)


def _lambda_chart(groups: Sequence[tables.Group]) -> Chart | None:
  """Accuracy against λ: one line per divergence and kind of labels.

  At λ = 1 labels are not used, so this point ends every line of a divergence.
  A line whose groups differ in something else at one λ is not drawn.
  """
  at: dict[tuple[str, str], dict[float, list[list[float]]]] = {}
  ends: dict[str, list[list[float]]] = {}
  for group in groups:
    fraction = group.settings["lambda"]
    divergence = str(group.settings["divergence"] or "")
    accuracy = group.values("accuracy_greedy")
    if not (formats.is_number(fraction) and divergence and accuracy):
      continue
    if fraction == 1:
      ends.setdefault(divergence, []).append(accuracy)
    else:
      key = (divergence, str(group.settings["labels"] or ""))
      line = at.setdefault(key, {})
      line.setdefault(float(fraction), []).append(accuracy)
  lines = {}
  for (divergence, labels), line in sorted(at.items()):
    whole = line | ({1.0: ends[divergence]} if divergence in ends else {})
    if len(whole) > 1 and all(len(found) == 1 for found in whole.values()):
      lines[divergence, labels] = {x: whole[x][0] for x in sorted(whole)}
  if not lines:
    return None
  series = [
    Series(
      name=", ".join(filter(None, (names.divergence(key[0]), key[1]))),
      colour=colour,
      ys=[mean(values) for values in line.values()],
      xs=list(line),
      low=[min(values) for values in line.values()],
      high=[max(values) for values in line.values()],
    )
    for colour, (key, line) in enumerate(lines.items())
  ]
  return Chart(
    slug="lambda_dependence",
    title="Accuracy against λ",
    note="Per cent, greedy. λ is the share of updates on text that the student"
    " wrote; the rest is on the labels named. At λ = 1 no labels are used.",
    kind="lines",
    series=series,
    x_label="λ",
  )
