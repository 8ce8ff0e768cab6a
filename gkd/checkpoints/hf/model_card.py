"""The model card of an exported folder: README.md, from what the run says.

What is not known is said to be unknown; nothing is made up.

  write("exported", checkpoint, {"license": "apache-2.0"})
"""

from collections.abc import Mapping
import json
import math
from pathlib import Path
from typing import Any

import gkd
from gkd import files
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.models import sizes
from gkd.models import t5_params

CARD_FILE = "README.md"
_METRICS_FILE = "metrics.jsonl"
_UNKNOWN = "unknown"
# Field of a run's description, its label on the page.
_FACTS = (
  ("teacher", "Teacher"),
  ("teacher_parameters", "Parameters of the teacher"),
  ("initial", "Started from"),
  ("data", "Data"),
  ("objective", "Objective"),
  ("targets", "Targets"),
  ("optimizer", "Optimizer"),
  ("steps", "Steps"),
  ("seed", "Seed"),
)
_LICENSES = (
  ("license", "This model"),
  ("teacher_license", "Teacher"),
  ("data_license", "Data"),
)
_BOUNDS = ("_ci_low", "_ci_high")


def write(
  folder: Path, checkpoint: Checkpoint, fields: Mapping[str, str]
) -> None:
  """Writes README.md into the folder; see `text`."""
  files.write_text(folder / CARD_FILE, text(checkpoint, fields))


def text(checkpoint: Checkpoint, fields: Mapping[str, str]) -> str:
  """The page, Markdown with the front matter of the Hugging Face hub.

  Args:
    checkpoint: what is exported; `metadata["run"]["card"]` and the run's
      metrics.jsonl say how it was made, if a run made it.
    fields: "license", "teacher_license", "data_license", as the user gives
      them.
  """
  made_by = dict(checkpoint.metadata.get("run", {}).get("card", {}))
  run_dir = checkpoint.metadata.get("run_dir")
  # The run counts its own steps, the checkpoint all of them.
  first = checkpoint.metadata.get("run", {}).get("first_step", 0)
  scores = _evaluation(run_dir, checkpoint.step, first) if run_dir else {}
  parts = [
    _front_matter(made_by, fields),
    f"# {_title(checkpoint, made_by)}",
    _origin(checkpoint, made_by),
    _usage(checkpoint),
    "## How it was made",
    _facts(checkpoint, made_by),
    "## Scores",
    _scores(scores, checkpoint.step),
    "## Licences",
    _licenses(fields),
  ]
  return "\n\n".join(parts) + "\n"


def _front_matter(made_by: Mapping[str, Any], fields: Mapping[str, str]) -> str:
  lines = ["library_name: transformers"]
  if license_ := fields.get("license"):
    lines.insert(0, f"license: {json.dumps(license_)}")
  tags = ["t5"] + ["distillation"] * bool(made_by.get("teacher"))
  lines += ["pipeline_tag: text2text-generation"]
  # The hub's base_model and datasets want names of the hub, which a run that
  # was started from folders does not know.
  lines += ["tags:", *(f"- {tag}" for tag in tags)]
  return "\n".join(["---", *lines, "---"])


def _title(checkpoint: Checkpoint, made_by: Mapping[str, Any]) -> str:
  kind = "distilled with gkd" if made_by.get("teacher") else "from gkd"
  return f"{sizes.describe(checkpoint.config)}, {kind}"


def _origin(checkpoint: Checkpoint, made_by: Mapping[str, Any]) -> str:
  if made_by:
    return (
      f"Trained by gkd {gkd.__version__}, a trainer for on-policy distillation"
      " (Agarwal et al., ICLR 2024)."
    )
  return (
    f"Converted by gkd {gkd.__version__} from {checkpoint.layout}. How the"
    f" model was trained: {_UNKNOWN} to the converter."
  )


def _usage(checkpoint: Checkpoint) -> str:
  config = checkpoint.config
  own_head = config.bias_per_layer and not config.logits_via_embedding
  # Version 5 scales the states of every umT5 as if its head were tied.
  told = "model.config.tie_word_embeddings = False  # for transformers 5\n"
  return (
    "```python\n"
    "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n"
    'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")\n'
    'model = AutoModelForSeq2SeqLM.from_pretrained("path/of/this/folder")\n'
    f"{told * own_head}```"
  )


def _facts(checkpoint: Checkpoint, made_by: Mapping[str, Any]) -> str:
  rows = [("Parameters", t5_params.num_parameters(checkpoint.config))]
  for name, label in _FACTS:
    rows.append((label, made_by.get(name)))
  if checkpoint.step is not None:
    rows.append(("Step of this checkpoint", checkpoint.step))
  return _table(("what", ""), [(label, _told(value)) for label, value in rows])


def _told(value: Any) -> str:
  if value is None or value == "":
    return _UNKNOWN
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return " ".join(str(value).split()).replace("|", "\\|")


def _scores(scores: Mapping[str, float], step: int | None) -> str:
  """A row a metric; the bounds of an interval go beside it."""
  names = [n for n in scores if not n.endswith((*_BOUNDS, "_step"))]
  if not names:
    return f"Scores: {_UNKNOWN}; no evaluation was found beside the model."
  rows = []
  for name in sorted(names):
    low, high = (scores.get(name + bound) for bound in _BOUNDS)
    interval = ""
    if low is not None and high is not None:
      interval = f"{low:.4g} to {high:.4g}"
    rows.append((name.removeprefix("eval/"), f"{scores[name]:.4g}", interval))
  told = f"Evaluated after step {int(scores['eval_step']):,}"
  if step is not None and scores["eval_step"] != step:
    told += f", not at step {step:,} of this checkpoint"
  table = _table(("metric", "value", "95 % interval"), rows)
  return f"{told}; bootstrap intervals over prompts.\n\n{table}"


def _licenses(fields: Mapping[str, str]) -> str:
  rows = [
    (label, fields.get(name) or f"{_UNKNOWN}: not given when it was exported")
    for name, label in _LICENSES
  ]
  return _table(("of what", "licence"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
  lines = [head, ("---",) * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _evaluation(
  run_dir: str, step: int | None, first_step: int
) -> dict[str, float]:
  """The run's evaluation at a step, or its last; the step as "eval_step".

  Steps are absolute here; the first one of the run is `first_step`.
  """
  found: dict[str, float] = {}
  file = Path(run_dir) / _METRICS_FILE
  lines = file.read_text("utf-8").splitlines() if file.is_file() else []
  for line in lines:
    try:
      record = json.loads(line)
    except ValueError:  # a line that a kill cut off
      continue
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
      continue
    scores = {
      name: value
      for name, value in record.items()
      if name.startswith("eval/") and isinstance(value, int | float)
    }
    if scores:
      found = {**scores, "eval_step": first_step + record["step"]}
      if found["eval_step"] == step:
        break
  return {n: v for n, v in found.items() if math.isfinite(v)}
