"""Decides which charts a report has: from a table of results, and from runs."""

from collections.abc import Sequence
import math
import re
import statistics

from gkd.report import tables
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Results
from gkd.report.runs import Run

# Curves of training in reading order: section, metric, title, how to read it.
_CURVES = (
  (
    "Training",
    "train/loss",
    "Training loss",
    "What each run minimises. Different objectives do not compare.",
  ),
  (
    "Training",
    "train/forward_kl",
    "Forward KL on the batch as trained",
    "KL(teacher ‖ student), nats per token.",
  ),
  (
    "Training",
    "train/reverse_kl",
    "Reverse KL on the batch as trained",
    "KL(student ‖ teacher), nats per token.",
  ),
  (
    "Training",
    "train/agreement",
    "Top-1 agreement with the teacher",
    "Share of positions where both prefer the same token.",
  ),
  (
    "Training",
    "train/student_entropy",
    "Entropy of the student",
    "Nats per token.",
  ),
  (
    "Training",
    "train/teacher_entropy",
    "Entropy of the teacher",
    "Nats per token, on the same positions.",
  ),
  (
    "Student-generated data",
    "train/lambda",
    "λ as realised",
    "Share of the batch that the student wrote.",
  ),
  (
    "Student-generated data",
    "train/sampled_length",
    "Length of sampled sequences",
    "Tokens, end-of-sequence included.",
  ),
  (
    "Student-generated data",
    "train/eos_rate",
    "Samples that end by themselves",
    "Share with an end-of-sequence token.",
  ),
  (
    "Student-generated data",
    "train/truncation_rate",
    "Samples cut at the longest length",
    "",
  ),
  ("Optimizer", "train/learning_rate", "Learning rate", ""),
  ("Optimizer", "train/grad_norm", "Gradient norm", "Before clipping."),
  ("Optimizer", "train/param_norm", "Parameter norm", ""),
  (
    "Time and memory",
    "time/tokens_per_second",
    "Target tokens a second",
    "Data, sampling and update; evaluation not counted.",
  ),
  ("Time and memory", "memory/peak_bytes", "Peak memory", "MiB."),
)
_PHASES = ("data", "sample", "update", "evaluate", "checkpoint")


def from_results(results: Results) -> list[Chart]:
  """Bars for each method, and the dependence on λ where there is one."""
  groups = tables.groups(results)
  wanted = (
    (
      "accuracy",
      "Accuracy on held-out problems",
      "",
      ("accuracy_greedy", "accuracy_sampled"),
      ("greedy", "sampled at temperature 1"),
    ),
    (
      "divergence",
      "Distance to the teacher",
      "Nats per sequence; forward KL on teacher text, reverse KL on student"
      " text. Less is closer.",
      ("forward_kl", "reverse_kl"),
      ("forward KL", "reverse KL"),
    ),
    (
      "train_seconds",
      "Training time",
      "Seconds; what came before (teacher, SFT) is not counted again.",
      ("train_seconds",),
      ("seconds",),
    ),
  )
  charts = []
  for slug, title, note, columns, names in wanted:
    chosen = [g for g in groups if any(g.values(name) for name in columns)]
    if not chosen:
      continue
    dots = any(len(group.rows) > 1 for group in chosen)
    charts.append(
      Chart(
        slug=slug,
        title=title,
        note=f"{note} Dots are single seeds.".strip() if dots else note,
        kind="bars",
        x_label="",
        groups=[group.label for group in chosen],
        series=[
          Series(
            name=name,
            colour=colour,
            ys=[_mean(group.values(column)) for group in chosen],
            points=[group.values(column) for group in chosen],
          )
          for colour, (column, name) in enumerate(
            zip(columns, names, strict=True)
          )
          if any(group.values(column) for group in chosen)
        ],
      )
    )
  return charts + _lambda_charts(groups)


def _lambda_charts(groups: Sequence[tables.Group]) -> list[Chart]:
  """Accuracy against λ, one line per divergence that has two λ or more."""
  by_divergence: dict[str, dict[float, float]] = {}
  for group in groups:
    fraction = group.settings["lambda"]
    divergence = group.settings["divergence"]
    accuracy = group.values("accuracy_greedy")
    if isinstance(fraction, (int, float)) and divergence and accuracy:
      curve = by_divergence.setdefault(str(divergence), {})
      curve[float(fraction)] = _mean(accuracy)
  series = [
    Series(name, colour, [c[x] for x in sorted(c)], sorted(c))
    for colour, (name, c) in enumerate(sorted(by_divergence.items()))
    if len(c) > 1
  ]
  if not series:
    return []
  return [
    Chart(
      slug="lambda_dependence",
      title="Greedy accuracy against λ",
      note="λ is the share of updates on student-written text.",
      kind="lines",
      series=series,
      x_label="λ",
    )
  ]


def from_runs(runs: Sequence[Run]) -> dict[str, list[Chart]]:
  """{section: charts}; what no run has reported is left out."""
  sections: dict[str, list[Chart]] = {}

  def add(section, name, title, note):
    chart = _curve(runs, name, title, note)
    if chart is not None:
      sections.setdefault(section, []).append(chart)

  evals = {n for run in runs for n in run.metrics if n.startswith("eval/")}
  main = [name for name in evals if tables.is_headline(name)]
  for name in sorted(main, key=lambda name: ("_kl" in name, name)):
    note = "Nats per sequence, temperature 1." if "_kl" in name else ""
    add("Evaluation", name, _title(name), note)
  for section, name, title, note in _CURVES:
    add(section, name, title, note)
  split = _time_split(runs)
  if split is not None:
    sections.setdefault("Time and memory", []).insert(0, split)
  known = {curve[1] for curve in _CURVES} | set(main)
  rest = sorted({name for run in runs for name in run.metrics} - known)
  for name in rest:
    if not re.fullmatch(r"time/\w+_seconds", name):
      add("More", name, _title(name), "")
  return sections


def legend(runs: Sequence[Run]) -> list[tuple[str, int]]:
  """(name, colour) of the runs: one colour each, in all charts."""
  return [(run.name, colour) for colour, run in enumerate(runs)]


def _curve(
  runs: Sequence[Run], name: str, title: str, note: str
) -> Chart | None:
  scale = 2.0**-20 if name.endswith("_bytes") else 1.0
  series = [
    Series(
      run.name,
      colour,
      [value * scale for value in run.metrics[name][1]],
      run.metrics[name][0],
    )
    for colour, run in enumerate(runs)
    if name in run.metrics and any(map(math.isfinite, run.metrics[name][1]))
  ]
  # A single point says no more than the table does.
  if max((len(one.xs) for one in series), default=0) < 2:
    return None
  slug = re.sub(r"\W+", "_", name)
  return Chart(slug, title, note, "lines", series)


def _time_split(runs: Sequence[Run]) -> Chart | None:
  """Where the time of each run went."""
  chosen = [run for run in runs if math.isfinite(tables.total_seconds(run))]
  if not chosen:
    return None
  totals = {
    phase: [run.total(f"time/{phase}_seconds") for run in chosen]
    for phase in _PHASES
  }
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of the whole run.",
    kind="stacked",
    x_label="",
    groups=[
      f"{run.name} · {tables.duration(tables.total_seconds(run))}"
      for run in chosen
    ],
    series=[
      Series(phase, colour, values)
      for colour, (phase, values) in enumerate(totals.items())
      if any(math.isfinite(value) and value > 0 for value in values)
    ],
  )


def _title(name: str) -> str:
  """eval/arithmetic/forward_kl -> arithmetic: forward KL."""
  parts = name.removeprefix("eval/").split("/")
  words = parts[-1].replace("_", " ").replace("kl", "KL")
  return ": ".join([*parts[:-1], words])


def _mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan
