"""`gkd evaluate`: scores of a checkpoint on tasks, by generation."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
from pathlib import Path

import jax

from gkd import files
from gkd import locks
from gkd import partitioning
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.cli import score_table
from gkd.cli import seqio_check
from gkd.config import configuration
from gkd.config import evaluations
from gkd.config import model_spec
from gkd.config import parameters
from gkd.config.command_records import EvaluateConfig
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.evaluation import metric_infos
from gkd.evaluation import predictions
from gkd.evaluation.evaluate import evaluate as evaluate_once
from gkd.evaluation.evaluation import Evaluation
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import UserError

_CHECKPOINT = "INITIAL_CHECKPOINT_PATH"
_TEACHER = "TEACHER_CHECKPOINT_PATH"


def evaluate(folders: Folders, *, seqio: bool = False) -> dict[str, float]:
  """Evaluates what the loaded configuration describes; prints and writes.

  Args:
    folders: where raw files and caches are.
    seqio: have seqio.Evaluator score the same predictions, and refuse other
      numbers than ours.
  """
  settings = configuration.build(EvaluateConfig)
  _check_output(settings.output)
  configuration.refuse_idle_flags(settings.idle(through_seqio=seqio))
  found = _locate(settings)
  settings = _with_tokenizer(settings, found)
  caches = evaluations.open_caches(settings.evaluation, folders)
  for name, one in found.items():
    parameters.check_tokenizer(one, name, caches[0].vocabulary)
  settings, both = _with_models(settings, found, caches[0])
  for cache in caches:
    model_spec.check_vocabularies(both, cache.info["vocabulary"]["size"])
  made = evaluations.make_evaluations(settings.evaluation, caches)
  check = None
  if seqio:
    splits = zip(settings.evaluation.splits, caches, strict=True)
    check = seqio_check.Comparison(list(splits), folders)
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  params = parameters.load(
    found[_CHECKPOINT], settings.model, _CHECKPOINT, mesh
  )
  teacher_params = None
  if settings.teacher is not None:
    teacher_params = parameters.load(
      found[_TEACHER], settings.teacher, _TEACHER, mesh
    )
  output = Path(settings.output).expanduser()
  roles = {"student": Model(settings.model, params)}
  if settings.teacher is not None:
    roles["teacher"] = Model(settings.teacher, teacher_params)
  values: dict[str, float] = {}
  with locks.hold(output / ".lock", f"MODEL_DIR {settings.output}"):
    _remove_old(output, made)
    for evaluation in made:
      values |= evaluate_once(
        evaluation,
        roles,
        seed=settings.seed,
        step=0,
        predictions_dir=str(output / "predictions"),
        on_answers=check and check.keeping(evaluation),
      )
    has_teacher = settings.teacher is not None
    metric_infos.write(output, made, teacher=has_teacher)
    _write(output, values)
  print(score_table.table(made, values))
  print(f"\npredictions/ and metrics.json are in {output}")
  if check is not None:
    print(check.words(values))
  return values


def _locate(settings: EvaluateConfig) -> dict[str, Checkpoint]:
  """The checkpoints by the names of their macros."""
  paths = {_CHECKPOINT: settings.checkpoint}
  if settings.teacher is not None:
    paths[_TEACHER] = settings.teacher_checkpoint
  return {name: parameters.locate(path, name) for name, path in paths.items()}


def _with_tokenizer(
  settings: EvaluateConfig, found: Mapping[str, Checkpoint]
) -> EvaluateConfig:
  """Where VOCABULARY is empty, that of the checkpoint."""
  data = parameters.with_tokenizer(settings.evaluation.data, found)
  scored = dataclasses.replace(settings.evaluation, data=data)
  return dataclasses.replace(settings, evaluation=scored)


def _with_models(
  settings: EvaluateConfig, found: Mapping[str, Checkpoint], cache: TokenCache
) -> tuple[EvaluateConfig, dict[str, LanguageModel]]:
  """The settings with models of their checkpoints, and these by their role."""
  size = cache.info["vocabulary"]["size"]
  model = model_spec.built(
    settings.model, found[_CHECKPOINT], "STUDENT_MODEL", size
  )
  both = {"student": model}
  if settings.teacher is not None:
    both["teacher"] = model_spec.built(
      settings.teacher, found[_TEACHER], "TEACHER_MODEL", size
    )
  settings = dataclasses.replace(
    settings, model=model, teacher=both.get("teacher")
  )
  return settings, both


def _check_output(path: str) -> None:
  """Whether results can go there, before hours are spent on them."""
  output = Path(path).expanduser()
  for folder in (output, output / "predictions"):
    files.check_folder(str(folder), "MODEL_DIR")
  if (output / "checkpoints").is_dir():
    raise UserError(
      f"MODEL_DIR {path!r} is the folder of a training run, which keeps its own"
      " config.gin and predictions; give another folder, for example"
      f" {str(output / 'eval')!r}"
    )


def _remove_old(output: Path, evaluations: Sequence[Evaluation]) -> None:
  """What an earlier command left must not pass for a result of this one."""
  (output / "metrics.json").unlink(missing_ok=True)
  ending = predictions.ending(0)
  written = {predictions.stem(e.file_parts) + ending for e in evaluations}
  for file in (output / "predictions").glob(f"*{ending}"):
    if file.name not in written:
      file.unlink()


def _write(output: Path, values: Mapping[str, float]) -> None:
  """Writes metrics.json and config.gin."""
  # JSON has no NaN and no infinity; they are null, as in metrics.jsonl.
  kept = {n: v if math.isfinite(v) else None for n, v in values.items()}
  with files.explaining(
    f"cannot write the scores to {output}; free some space"
  ):
    text = json.dumps(kept, indent=2, allow_nan=False)
    files.write_text(output / "metrics.json", text + "\n")
    files.write_text(output / "config.gin", configuration.operative())
