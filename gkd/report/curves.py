"""Which charts of runs there are, and in which order."""

from collections.abc import Sequence
import re

from gkd.report import ends
from gkd.report import lines
from gkd.report import measures
from gkd.report.plots import Chart
from gkd.report.plots import Series
from gkd.report.runs import Run
from gkd.report.runs import by_arm

_GENERATED = "Student-generated data"
_RESOURCES = "Time and memory"
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
    _GENERATED,
    "train/lambda",
    "λ as realised",
    "Share of the batch that the student wrote.",
  ),
  (
    _GENERATED,
    "train/sampled_length",
    "Length of sampled sequences",
    "Tokens, end-of-sequence included.",
  ),
  (
    _GENERATED,
    "train/eos_rate",
    "Samples that end by themselves",
    "Share with an end-of-sequence token.",
  ),
  (
    _GENERATED,
    "train/truncation_rate",
    "Samples cut at the longest length",
    "",
  ),
  ("Optimizer", "train/learning_rate", "Learning rate", ""),
  ("Optimizer", "train/grad_norm", "Gradient norm", "Before clipping."),
  ("Optimizer", "train/param_norm", "Parameter norm", ""),
  (
    _RESOURCES,
    "time/tokens_per_second",
    "Target tokens a second",
    "Data, sampling and update; evaluation not counted.",
  ),
  (_RESOURCES, "memory/peak_bytes", "Peak memory", "MiB."),
)


_ORDER = ("Training", _GENERATED, "Optimizer", _RESOURCES, "More")


def from_runs(runs: Sequence[Run]) -> dict[str, list[Chart]]:
  """{section: charts}; what no run has reported is left out."""
  sections: dict[str, list[Chart]] = {}

  def add(section, *charts):
    found = [chart for chart in charts if chart is not None]
    if found:
      sections.setdefault(section, []).extend(found)

  names = measures.own({name for run in runs for name in run.metrics})
  main = measures.headlines(names)
  several = len(measures.tasks(main)) > 1
  for name in main:
    task = measures.task(name)
    what = (runs, name, _title(name), _score_note(name))
    section = f"Evaluation: {task}" if several else "Evaluation"
    add(section, lines.chart(*what), ends.scores(*what))
  for section, name, title, note in _CURVES:
    add(section, lines.chart(runs, name, title, note))
  lengths = [name for name in names if _is_length(name)]
  for name in lengths:
    words = measures.words(name, () if several else (name,))
    title = f"Evaluation: {words}"
    note = "Tokens." if "length" in measures.metric(name) else ""
    section = "More" if several else _GENERATED
    add(section, lines.chart(runs, name, title, note))
  split = ends.time_split(runs)
  if split is not None:
    sections[_RESOURCES] = [split, *sections.get(_RESOURCES, [])]
  known = {curve[1] for curve in _CURVES} | {*main, *lengths}
  for name in names:
    if name not in known and not re.fullmatch(r"time/\w+_seconds", name):
      title = _title(name, several=several)
      add("More", lines.chart(runs, name, title, measures.units(name)))
  scored = [section for section in sections if section not in _ORDER]
  order = [*scored, *(name for name in _ORDER if name in sections)]
  return {section: sections[section] for section in order}


def legend(runs: Sequence[Run]) -> list[Series]:
  """Names of the arms with curves: one colour each, in all charts."""
  return [
    Series(arm, colour, ())
    for colour, (arm, found) in enumerate(by_arm(runs).items())
    if not all(run.is_evaluation for run in found)
  ]


def _title(name: str, several: bool = False) -> str:
  words = measures.words(name, () if several else (name,))
  return words[:1].upper() + words[1:]


def _score_note(name: str) -> str:
  unit = measures.units(name).replace("%", "per cent").capitalize()
  notes = [f"{unit}."] if unit else []
  if "_kl" in measures.metric(name):
    notes.append("At temperature 1; less is closer.")
  return " ".join(notes)


def _is_length(name: str) -> bool:
  return measures.is_score(name) and bool(
    re.match(r"length|truncation_rate", measures.metric(name))
  )
