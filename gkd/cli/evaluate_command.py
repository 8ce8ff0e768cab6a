"""`gkd evaluate`: scores of a checkpoint on tasks, by generation."""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import math
from pathlib import Path
from typing import Any

import jax

from gkd import disk_errors
from gkd import files
from gkd import locks
from gkd import partitioning
from gkd import processes
from gkd import structured_settings
from gkd import watchdog
from gkd.checkpoints.native import run_folder
from gkd.cli import score_table
from gkd.cli import seqio_check
from gkd.cli.starts import starts
from gkd.config import configuration
from gkd.config import setup
from gkd.config.command_records import EvaluateConfig
from gkd.config.records import Folders
from gkd.evaluation import metric_infos
from gkd.evaluation import predictions
from gkd.evaluation.evaluate import evaluate as evaluate_once
from gkd.evaluation.evaluation import Evaluation
from gkd.metric_fields import MetricInfo
from gkd.models import registry
from gkd.training import writers
from gkd.types import Model
from gkd.types import UserError

# What the command writes or removes in its folder, and so only in its own.
_REPLACED = (
  "metrics.json",
  "predictions",
  "config.gin",
  metric_infos.FILE_NAME,
  run_folder.DESCRIPTION_FILE,
)


def evaluate(folders: Folders, *, seqio: bool = False) -> dict[str, float]:
  """Evaluates what the loaded configuration describes; prints and writes.

  With `seqio` seqio.Evaluator scores the same predictions, and other numbers
  than ours are refused.
  """
  config = configuration.build(EvaluateConfig)
  _check_output(config.output)
  configuration.refuse_idle_flags(config.idle(through_seqio=seqio))
  several = processes.count() > 1
  size = config.model_parallelism * config.fsdp_parallelism
  mesh = config.mesh(jax.devices()[: None if several else size])
  resolved = setup.resolve(
    config.roles,
    folders,
    mesh,
    evaluation=config.evaluation,
  )
  resolved = setup.with_reward(resolved, config.reward)
  if seqio:
    splits = zip(config.evaluation.splits, resolved.caches, strict=True)
    evaluator = seqio_check.register(list(splits), folders)
  models = {role: resolved.model(role) for role in resolved.roles}
  outputs: list[seqio_check.Outputs] = []
  infos = metric_infos.metric_infos(resolved.evaluations, models)
  sharding = partitioning.batch_sharding(mesh) if several else None
  with watchdog.of_process.limited(watchdog.STUCK_SECONDS):
    values = _evaluate(
      config,
      models,
      resolved.evaluations,
      infos,
      outputs if seqio else None,
      sharding,
    )
  if not processes.is_writer():
    return values
  print(score_table.table(resolved.evaluations, values, infos))
  print(f"\npredictions/ and metrics.json are in {config.output}")
  if seqio:
    print(seqio_check.compare(evaluator, outputs, values))
  return values


def _evaluate(
  config: EvaluateConfig,
  models: Mapping[str, Model],
  evaluations: Sequence[Evaluation],
  infos: Mapping[str, MetricInfo],
  outputs: list[seqio_check.Outputs] | None,
  sharding: Any,
) -> dict[str, float]:
  """The scores of all evaluations, written; `outputs` takes their answers."""
  output = files.local_path(config.output)
  values: dict[str, float] = {}
  with contextlib.ExitStack() as stack:
    if processes.is_writer():
      lock = locks.hold(output / ".lock", f"MODEL_DIR {config.output}")
      stack.enter_context(lock)
      _begin(output, config, models, evaluations)
    for evaluation in evaluations:
      draws = []
      values |= evaluate_once(
        evaluation,
        models,
        seed=config.seed,
        step=0,
        predictions_dir=str(output / "predictions"),
        batch_sharding=sharding,
        on_answers=None if outputs is None else draws.extend,
      )
      if outputs is not None:
        outputs.append((evaluation, draws))
    if processes.is_writer():
      _write(output, values, infos)
  return values


def _begin(
  output: Path,
  config: EvaluateConfig,
  models: Mapping[str, Model],
  evaluations: Sequence[Evaluation],
) -> None:
  """Removes old results; what a kill leaves is known to be of this command."""
  _remove_old(output, evaluations)
  settings = {
    "seed": config.seed,
    "evaluations": structured_settings.to_json(evaluations),
  }
  roles = {role: _role_json(model) for role, model in models.items()}
  with disk_errors.explaining(f"cannot write to {output}"):
    about = {"roles": roles, "settings": settings, "starts": starts()}
    files.write_json(output / run_folder.DESCRIPTION_FILE, about)


def _write(
  output: Path, values: Mapping[str, float], infos: Mapping[str, MetricInfo]
) -> None:
  """Writes the scores."""
  with disk_errors.explaining(f"cannot write the scores to {output}"):
    metric_infos.write(output, infos)
    # JSON has no NaN and no infinity; they are null, as in metrics.jsonl.
    finite = {n: v if math.isfinite(v) else None for n, v in values.items()}
    text = json.dumps(finite, indent=2, allow_nan=False)
    files.write_text(output / "metrics.json", text + "\n")
    files.write_text(output / "config.gin", configuration.operative())


def _role_json(model: Model) -> dict[str, str]:
  """What identifies a model, in run.json."""
  return {
    "family": registry.family_of(model.config),
    "path": model.path,
    "content_sha256": model.content_sha256,
  }


def _check_output(path: str) -> None:
  """Whether results can go there, before hours are spent on them."""
  output = files.local_path(path)
  for folder in (output, output / "predictions"):
    files.check_folder(str(folder), "MODEL_DIR")
  about = run_folder.describe_run(output)
  if (output / "checkpoints").is_dir() or "contents" in about:
    raise UserError(
      f"MODEL_DIR {path!r} is the folder of a training run, which keeps its own"
      " config.gin and predictions; give another folder, for example"
      f" {str(output / 'eval')!r}"
    )
  is_own = about.keys() >= {"roles", "settings"}
  proof = f"no {run_folder.DESCRIPTION_FILE} says that gkd evaluate made it"
  files.check_replaced(
    output, _REPLACED, "MODEL_DIR", None if is_own else proof
  )


def _remove_old(output: Path, evaluations: Sequence[Evaluation]) -> None:
  """What an earlier command left must not pass for a result of this one."""
  (output / "metrics.json").unlink(missing_ok=True)
  ending = predictions.ending(0)
  written = {predictions.stem(e.file_parts) + ending for e in evaluations}
  for file in (output / "predictions").glob(f"*{ending}"):
    if file.name not in written and writers.has_records(file):
      file.unlink()
