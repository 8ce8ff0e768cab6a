"""Charts of runs: curves over the updates, one colour per arm."""

from collections.abc import Sequence
import math
import re

from gkd.report import formats
from gkd.report import tables
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Run
from gkd.report.runs import by_arm

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


def from_runs(runs: Sequence[Run]) -> dict[str, list[Chart]]:
  """{section: charts}; what no run has reported is left out."""
  sections: dict[str, list[Chart]] = {}

  def add(section, name, title, note):
    chart = _curve(runs, name, title, note)
    if chart is not None:
      sections.setdefault(section, []).append(chart)

  main = tables.headlines(runs)
  for name in main:
    unit = tables.units(name).replace("%", "per cent").capitalize()
    notes = [f"{unit}."] if unit else []
    notes += ["At temperature 1; less is closer."] if "_kl" in name else []
    add("Evaluation", name, _title(name, main), " ".join(notes))
  for section, name, title, note in _CURVES:
    add(section, name, title, note)
  split = _time_split(runs)
  if split is not None:
    sections.setdefault("Time and memory", []).insert(0, split)
  known = {curve[1] for curve in _CURVES} | set(main)
  rest = sorted({name for run in runs for name in run.metrics} - known)
  for name in rest:
    if not re.fullmatch(r"time/\w+_seconds", name):
      add("More", name, _title(name), tables.units(name))
  return sections


def _title(name: str, others: Sequence[str] = ()) -> str:
  words = re.sub(r" \(.*\)$", "", tables.title(name, others))
  return words[:1].upper() + words[1:]


def legend(runs: Sequence[Run]) -> list[tuple[str, int]]:
  """(name, colour) of the arms: one colour each, in all charts."""
  return [(arm, colour) for colour, arm in enumerate(by_arm(runs))]


def _curve(
  runs: Sequence[Run], name: str, title: str, note: str
) -> Chart | None:
  series = []
  for colour, (arm, found) in enumerate(by_arm(runs).items()):
    line = _over_seeds(found, name)
    if line:
      columns = list(zip(*line.values(), strict=True))
      series.append(Series(arm, colour, columns[0], list(line), *columns[1:]))
  # A single point says no more than the table does.
  if max((len(one.xs) for one in series), default=0) < 2:
    return None
  slug = re.sub(r"\W+", "_", name)
  return Chart(slug, title, note, "lines", series, x_label="updates")


def _over_seeds(
  runs: Sequence[Run], name: str
) -> dict[int, tuple[float, float, float]]:
  """{step: (mean, lowest, highest)} at the steps that all runs report.

  Where they have none in common, at all of them.
  """
  scale = 2.0**-20 if name.endswith("_bytes") else 1.0
  lines = [
    {
      step: value * scale
      for step, value in zip(*run.metrics[name], strict=True)
      if math.isfinite(value)
    }
    for run in runs
    if name in run.metrics
  ]
  lines = [line for line in lines if line]
  if not lines:
    return {}
  steps = set(lines[0]).intersection(*lines[1:]) or set().union(*lines)
  found = {}
  for step in sorted(steps):
    values = [line[step] for line in lines if step in line]
    found[step] = (tables.mean(values), min(values), max(values))
  return found


def _time_split(runs: Sequence[Run]) -> Chart | None:
  """Where the time of each arm went, on average over its seeds."""
  arms = {}
  for arm, found in by_arm(runs).items():
    timed = [run for run in found if math.isfinite(tables.total_seconds(run))]
    if timed:
      arms[arm] = timed
  if not arms:
    return None
  totals = {
    phase: [
      tables.mean([_seconds(run, phase) for run in found])
      for found in arms.values()
    ]
    for phase in _PHASES
  }
  several = any(len(found) > 1 for found in arms.values())
  return Chart(
    slug="time_split",
    title="Where the time went",
    note="Seconds of a whole run" + (", mean over seeds." if several else "."),
    kind="stacked",
    x_label="",
    groups=[
      f"{arm} · {formats.duration(tables.mean(totals))}"
      for arm, totals in (
        (arm, [tables.total_seconds(run) for run in found])
        for arm, found in arms.items()
      )
    ],
    series=[
      Series(phase, colour, values)
      for colour, (phase, values) in enumerate(totals.items())
      if any(value > 0 for value in values)
    ],
  )


def _seconds(run: Run, phase: str) -> float:
  total = run.total(f"time/{phase}_seconds")
  return total if math.isfinite(total) else 0.0
