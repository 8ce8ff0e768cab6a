"""`gkd evaluate`: scores of a checkpoint on a task, by generation."""

import json
import math
from pathlib import Path

from gkd.commands import configuration
from gkd.commands import outputs
from gkd.commands import parameters
from gkd.commands.datasets import Folders
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Evaluating
from gkd.commands.training import check_vocabularies
from gkd.commands.training import make_evaluations
from gkd.evaluation.decode import evaluate as evaluate_once


def evaluate(folders: Folders) -> dict[str, float]:
  """Evaluates what the loaded configuration describes; prints and writes."""
  settings = configuration.build(Evaluating)
  outputs.check_folder(settings.output, "MODEL_DIR")
  cache = open_cache(settings.scoring.data, folders)
  models = {"student": settings.model}
  if settings.teacher is not None:
    models["teacher"] = settings.teacher
  check_vocabularies(models, cache.info["vocabulary"]["size"])
  evaluations = make_evaluations(settings.scoring, cache)
  params = parameters.load(
    settings.checkpoint, settings.model, "INITIAL_CHECKPOINT_PATH", cache
  )
  teacher_params = parameters.load_teacher(
    settings.teacher_checkpoint, settings.teacher, cache
  )
  output = Path(settings.output).expanduser()
  output.mkdir(parents=True, exist_ok=True)
  values: dict[str, float] = {}
  for evaluation in evaluations:
    values |= evaluate_once(
      settings.model,
      params,
      evaluation,
      seed=settings.seed,
      step=0,
      predictions_dir=str(output / "predictions"),
      teacher=settings.teacher,
      teacher_params=teacher_params,
    )
  # JSON has no NaN and no infinity; they are null, as in metrics.jsonl.
  kept = {n: v if math.isfinite(v) else None for n, v in values.items()}
  text = json.dumps(kept, indent=2, allow_nan=False)
  (output / "metrics.json").write_text(text + "\n")
  (output / "config.gin").write_text(configuration.operative())
  for name, value in values.items():
    print(f"{name:48} {value:.4f}")
  print(f"predictions and metrics.json are in {output}")
  return values
