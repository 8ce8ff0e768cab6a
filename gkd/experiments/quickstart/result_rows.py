"""Rows of the quickstart's results.json, their columns, and a printed table."""

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from gkd.report import metric_info
from gkd.report import read

# Mean and standard deviation over seeds and thread counts, as
# benchmarks/quickstart_seeds.py writes them.
PUBLISHED = Path(__file__).parent / "published.json"
_PHASES = ("data", "sample", "update")
# What the report says of the columns, and the charts that they are drawn in.
_PERCENT = {"unit": "%", "direction": "max", "chart": "Accuracy"}
_KL = {
  "unit": "nats per sequence",
  "direction": "min",
  "chart": "Distance to the teacher",
}
COLUMNS = {
  "accuracy_greedy": {"title": "accuracy, greedy", **_PERCENT},
  "accuracy_sampled": {"title": "accuracy, sampled", **_PERCENT},
  "forward_kl": {"title": "forward KL", **_KL},
  "reverse_kl": {"title": "reverse KL", **_KL},
  "train_seconds": {"title": "training", "unit": "s", "chart": "Training time"},
}
# By the folder of a run, in reading order.
LABELS = {
  "teacher": "Teacher",
  "student": "Student after SFT (start)",
  "sft_continued": "SFT continued",
  "seqkd": "SeqKD",
  "supervised_kd": "Supervised KD",
  "supervised_kd_labels": "Supervised KD on solutions",
  "gkd_mixed": "Mixed GKD",
  "gkd_on_policy": "On-policy GKD",
}
# Columns of the printed table: title, format.
_PRINTED = {
  "method": ("method", ""),
  "lambda": ("λ", ""),
  "divergence": ("divergence", ""),
  "labels": ("labels beyond the prompts", ""),
  "seed": ("seed", "d"),
  "accuracy_greedy": ("greedy", ".1f"),
  "accuracy_sampled": ("T=1", ".1f"),
  "forward_kl": ("fwd KL", ".2f"),
  "reverse_kl": ("rev KL", ".2f"),
  "train_seconds": ("train", ".0f"),
  "published_greedy": ("published greedy", "s"),
  "published_sampled": ("published T=1", "s"),
}
_OF_PUBLISHED = {
  "published_greedy": "accuracy_greedy",
  "published_sampled": "accuracy_sampled",
}


def row(
  method: str, labels: str, seed: int, run: Path, scores: Path
) -> dict[str, Any]:
  """One row of results.json: accuracies in per cent, KLs in nats per sequence.

  Args:
    method: name of the method.
    labels: what had to be written for it beyond the prompts.
    seed: of the run.
    run: folder of the training run; for a checkpoint without one, time and
      settings are null.
    scores: folder of `gkd evaluate`, named like the run.
  """
  scored = read.read_run(str(scores))
  values = {
    (score.metric, score.label): scored.last(score)
    for score in metric_info.scores(scored.metrics)
  }
  result = {
    "method": method,
    "run": scores.name,
    "labels": labels,
    "seed": seed,
    "lambda": None,
    "divergence": None,
    "accuracy_greedy": values["accuracy", ""],
    "accuracy_sampled": values["accuracy", "t1"],
    "forward_kl": values.get(("forward_kl", "")),
    "reverse_kl": values.get(("reverse_kl", "")),
    "train_seconds": None,
    "updates": None,
  }
  if (run / "metrics.jsonl").exists():
    trained = read.read_run(str(run))
    seconds = [trained.total(f"time/{phase}_seconds") for phase in _PHASES]
    result["train_seconds"] = sum(s for s in seconds if s == s)
    result["updates"] = trained.num_steps
    settings = trained.settings
    result["lambda"] = settings.get("rollout.student_fraction")
    result["divergence"] = settings.get("objective.divergence.type")
  return result


def text(rows: Sequence[Mapping[str, Any]], split: str) -> str:
  """The table as it is printed; means over seeds are the report's business.

  Beside scores of the test split stands what was published for it.
  """
  columns = []
  published = json.loads(PUBLISHED.read_text("utf-8"))
  for name, (title, spec) in _PRINTED.items():
    values = [row.get(name) for row in rows]
    cells = ["" if v is None else format(v, spec) for v in values]
    if name in _OF_PUBLISHED:
      if split != "test":
        continue
      spreads = [published["rows"][row["run"]] for row in rows]
      spreads = [spread[_OF_PUBLISHED[name]] for spread in spreads]
      cells = [" ± ".join(f"{x:4.1f}" for x in spread) for spread in spreads]
    width = max(map(len, [title, *cells]))
    align = str.rjust if spec else str.ljust
    columns.append([align(cell, width) for cell in [title, *cells]])
  head, *lines = ["  ".join(line) for line in zip(*columns, strict=True)]
  table = "\n".join([head, "-" * len(head), *lines])
  units = (
    "accuracy in per cent of held-out problems; KL to the teacher in nats per"
    " sequence; training in seconds"
  )
  if split == "test":
    threads = " and ".join(map(str, published["threads"]))
    units += (
      "\npublished: mean ± standard deviation over"
      f" {published['seeds']} seeds (CPU threads: {threads};"
      f" {published['date']}); expect numbers to move as much with the seed,"
      " the processor and the number of threads"
    )
  return f"\n{table}\n\n{units}\n"
