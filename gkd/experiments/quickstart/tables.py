"""Rows of the quickstart's results.json, and their table on a terminal."""

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path
from typing import Any

from gkd.report import runs

_PHASES = ("data", "sample", "update")


def row(
  method: str, labels: str, seed: int, run: Path, scores: Path
) -> dict[str, Any]:
  """One row of results.json: accuracies in per cent, KLs in nats a sequence.

  Args:
    method: name of the method.
    labels: what had to be written for it beyond the prompts.
    seed: of the run.
    run: folder of the training run; for a checkpoint without one, time and
      settings are null.
    scores: folder of `gkd evaluate`, named like the run.
  """
  values = json.loads((scores / "metrics.json").read_text())
  by_name = {name.split("/")[-1]: value for name, value in values.items()}
  made = {
    "method": method,
    "run": scores.name,
    "labels": labels,
    "seed": seed,
    "lambda": None,
    "divergence": None,
    "accuracy_greedy": by_name["accuracy"],
    "accuracy_sampled": by_name["accuracy_t1"],
    "forward_kl": by_name.get("forward_kl"),
    "reverse_kl": by_name.get("reverse_kl"),
    "train_seconds": None,
    "updates": None,
  }
  if (run / "metrics.jsonl").exists():
    trained = runs.read_run(str(run), run.name)
    seconds = [trained.total(f"time/{phase}_seconds") for phase in _PHASES]
    made["train_seconds"] = sum(s for s in seconds if s == s)
    made["updates"] = trained.num_steps
    made["lambda"] = _macro(trained.config, "STUDENT_DATA_FRACTION")
    divergence = _macro(trained.config, "DIVERGENCE")
    if divergence is not None and method != "seqkd":
      made["divergence"] = str(divergence).strip("@()").split(".")[-1]
  return made


def text(rows: Sequence[Mapping[str, Any]]) -> str:
  """The table as it is printed; means over seeds are the report's business."""
  head = (
    f"{'method':16} {'λ':>4} {'divergence':14} {'labels beyond the prompts':26}"
    f" {'seed':>4} {'greedy':>7} {'T=1':>6} {'fwd KL':>7} {'rev KL':>7}"
    f" {'train':>7}"
  )
  lines = ["", head, "-" * len(head)]
  for entry in rows:
    fraction = entry["lambda"]
    seconds = entry["train_seconds"]
    lines.append(
      f"{entry['method']:16} {'' if fraction is None else fraction:>4}"
      f" {entry['divergence'] or '':14} {entry['labels']:26}"
      f" {entry['seed']:>4} {entry['accuracy_greedy']:7.1f}"
      f" {entry['accuracy_sampled']:6.1f}"
      f" {_nats(entry['forward_kl']):>7} {_nats(entry['reverse_kl']):>7}"
      f" {'' if seconds is None else f'{seconds:.0f} s':>7}"
    )
  lines += [
    "",
    "accuracy in per cent of held-out problems; KL to the teacher in nats a"
    " sequence",
    "",
  ]
  return "\n".join(lines)


def _macro(config: Mapping[str, str], name: str) -> Any:
  """A macro of an operative configuration; None if it is not there."""
  value = config.get(name)
  if value is None:
    return None
  try:
    return json.loads(value)
  except ValueError:
    return value


def _nats(value: float | None) -> str:
  return "" if value is None else f"{value:.2f}"
