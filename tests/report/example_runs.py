"""Runs for tests of the report: in memory, and as folders of files."""

import json

from gkd.report.arms import Run
from gkd.report.metric_info import Score

# A value of `metric_info.json`; `gkd.evaluation.metric_infos` writes them.
ACCURACY = {
  "metric": "accuracy",
  "task": "toy",
  "split": "test",
  "decoding": {"strategy": "sampling", "temperature": 0.0},
  "label": "",
  "unit": "%",
  "direction": "max",
  "role": "student",
  "compared_with": "",
}
KL = {
  "metric": "forward_kl",
  "unit": "nats per sequence",
  "direction": "min",
  "compared_with": "teacher",
}
BEAM = {
  "label": "beam4",
  "decoding": {"strategy": "beam_search", "beam_size": 4, "beam_alpha": 0.6},
}


def score(**fields) -> Score:
  """Greedy accuracy in per cent, or what differs from it."""
  known = ACCURACY | {"decoding": json.dumps(ACCURACY["decoding"])} | fields
  return Score(**known)


def teacher(model="big") -> Score:
  return score(role="teacher", owner=model)


def kl(model="big", **fields) -> Score:
  return score(**{**KL, "model": model, **fields})


def run(name, metrics=None, *, settings=None, **fields) -> Run:
  """A run of the metrics {Score or name: values, or {step: value}}."""
  curves = {
    key: values if isinstance(values, dict) else dict(enumerate(values))
    for key, values in (metrics or {}).items()
  }
  about = {"settings": settings} if settings else {}
  fields = {"arm": name, "title": name, "about": about, "path": name, **fields}
  return Run(name=name, metrics=curves, **fields)


def bounds(of, low, high):
  """The curves of a confidence interval."""
  return dict(zip(of.bounds, (low, high), strict=True))


def write(folder, lines=(), *, values=None, infos=None, about=None, config=""):
  """Writes the files of a run, or of an evaluation with `values`."""
  folder.mkdir(parents=True, exist_ok=True)
  if lines:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text, "utf-8")
  for name, content in (
    ("metrics.json", values),
    ("metric_info.json", infos),
    ("run.json", about),
  ):
    if content is not None:
      (folder / name).write_text(json.dumps(content), "utf-8")
  if config:
    (folder / "config.gin").write_text(config)
  return folder
