"""The model card of an exported folder: README.md, from what the run says.

What is not known is said to be unknown; nothing is made up.
"""

from collections.abc import Mapping
import json
import math
from pathlib import Path
from typing import Any

import gkd
from gkd.checkpoints.checkpoint import LICENSE_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.metric_fields import SUFFIXES
from gkd.models import registry

FILE = "README.md"
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
_NO_CACHE = (
  "\n\nIts decoder is deeper than its encoder: transformers 5 generates from it"
  " with `model.generate(…, use_cache=False)` alone."
)


def text(
  checkpoint: Checkpoint, fields: Mapping[str, str], task: tuple[str, str]
) -> str:
  """The page, Markdown with the front matter of the Hugging Face hub.

  Args:
    checkpoint: what is exported; `metadata["run"]["card"]` and the run's
      metrics.jsonl say how it was made, if a run made it.
    fields: "license", "teacher_license", "data_license", as the user gives
      them.
    task: transformers' class that opens it, the hub's name of what it does.
  """
  card = checkpoint.metadata.get("run", {}).get("card", {})
  known = {
    "license": checkpoint.metadata.get(LICENSE_KEY),
    "teacher_license": card.get("teacher_license"),
  }
  fields = {n: value for n, value in known.items() if value} | dict(fields)
  is_student = bool(card.get("teacher"))
  kind = "distilled with gkd" if is_student else "from gkd"
  origin = (
    f"Converted by gkd {gkd.__version__} from {checkpoint.layout}. How the"
    f" model was trained: {_UNKNOWN} to the converter."
  )
  if card:
    origin = (
      f"Trained by gkd {gkd.__version__}, a trainer for on-policy distillation"
      " (Agarwal et al., ICLR 2024)."
    )
  facts = [("Parameters", registry.num_parameters(checkpoint.config))]
  # A run without a teacher has none that is unknown.
  has_teacher = is_student or not card
  facts += [
    (label, card.get(name))
    for name, label in _FACTS
    if has_teacher or not name.startswith("teacher")
  ]
  if checkpoint.step is not None:
    facts.append(("Step of this checkpoint", checkpoint.step))
  licenses = [
    (label, fields.get(name) or f"{_UNKNOWN}: not given when it was exported")
    for name, label in _LICENSES
    if has_teacher or name != "teacher_license" or name in fields
  ]
  in_words = registry.layout_of(checkpoint.config).in_words
  parts = [
    _front_matter(
      fields.get("license"), is_student, checkpoint.family, task[1]
    ),
    f"# {in_words(checkpoint.config)}, {kind}",
    origin,
    _usage(checkpoint, task[0]),
    "## How it was made",
    _table(("what", ""), [(label, _cell(value)) for label, value in facts]),
    "## Scores",
    _scores(checkpoint),
    "## Licences",
    _table(("of what", "licence"), licenses),
  ]
  return "\n\n".join(parts) + "\n"


def _front_matter(
  license_name: str | None, is_student: bool, family: str, hub_task: str
) -> str:
  # The hub's base_model and datasets want names of the hub, which a run that
  # was started from folders does not know.
  lines = [f"license: {json.dumps(license_name)}"] * bool(license_name)
  lines += ["library_name: transformers", f"pipeline_tag: {hub_task}"]
  tags = [*["- t5"] * (family == registry.T5), *["- distillation"] * is_student]
  lines += ["tags:", *tags] if tags else []
  return "\n".join(["---", *lines, "---"])


def _usage(checkpoint: Checkpoint, opener: str) -> str:
  config = checkpoint.config
  untie = no_cache = ""
  if checkpoint.family == registry.T5:
    if config.num_decoder_layers > config.num_encoder_layers:
      no_cache = _NO_CACHE
    if config.bias_per_layer and not config.logits_via_embedding:
      # Version 5 scales the states of every umT5 as if its head were tied.
      untie = "model.config.tie_word_embeddings = False  # for transformers 5\n"
  return (
    "```python\n"
    f"from transformers import {opener}, AutoTokenizer\n"
    'tokenizer = AutoTokenizer.from_pretrained("path/of/this/folder")\n'
    f'model = {opener}.from_pretrained("path/of/this/folder")\n'
    f"{untie}```{no_cache}"
  )


def _scores(checkpoint: Checkpoint) -> str:
  """A row a metric; the bounds of an interval go beside it."""
  step, scores = _evaluation(checkpoint)
  names = sorted(name for name in scores if not name.endswith(SUFFIXES))
  if not names:
    return f"Scores: {_UNKNOWN}; no evaluation was found beside the model."
  rows = []
  for name in names:
    bounds = [scores.get(name + end) for end in SUFFIXES[:2]]
    interval = ""
    if None not in bounds:
      interval = " to ".join(f"{bound:.4g}" for bound in bounds)
    rows.append((name.removeprefix("eval/"), f"{scores[name]:.4g}", interval))
  sentence = f"Evaluated after step {step:,}"
  if checkpoint.step not in (None, step):
    sentence += f", not at step {checkpoint.step:,} of this checkpoint"
  table = _table(("metric", "value", "95 % interval"), rows)
  return f"{sentence}; bootstrap intervals over prompts.\n\n{table}"


def _evaluation(checkpoint: Checkpoint) -> tuple[int, dict[str, float]]:
  """Absolute step and metrics of its evaluation, or of the run's last one."""
  # The run counts its own steps, the checkpoint all of them.
  run = checkpoint.metadata.get("run", {})
  initial_step = run.get("initial_step", run.get("first_step", 0))
  step, latest = 0, {}
  file = Path(checkpoint.metadata.get("run_dir") or "/dev/null", _METRICS_FILE)
  text = file.read_text("utf-8", "replace") if file.is_file() else ""
  for line in text.splitlines():
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):  # a line that a kill cut off
      continue
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
      continue
    scores = {
      name: value
      for name, value in record.items()
      if name.startswith("eval/") and isinstance(value, int | float)
    }
    if scores:
      step, latest = initial_step + record["step"], scores
    if scores and step == checkpoint.step:
      break
  return step, {n: value for n, value in latest.items() if math.isfinite(value)}


def _cell(value: Any) -> str:
  if value is None or value == "":
    return _UNKNOWN
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return " ".join(str(value).split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
  lines = [head, ("---",) * len(head), *rows]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)
