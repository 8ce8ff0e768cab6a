"""The same predictions through seqio.Evaluator: `--through_seqio`.

The only part of `gkd evaluate` that needs TensorFlow, seqio and the raw data.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import importlib
import types

import numpy as np

from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.data.cache_info import FEATURES
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.predictions import Record
from gkd.types import UserError

# An evaluation, and for each answer to its split the records of all rows.
Outputs = tuple[Evaluation, Sequence[Sequence[Record]]]


def register(
  splits: Sequence[tuple[DataConfig, TokenCache]], folders: Folders
) -> types.ModuleType:
  """Registers the tasks, so that what is missing is found before any work.

  Returns:
    `gkd.tasks.evaluator`, which `compare` takes.

  Raises:
    UserError: seqio or a task is not there, or a row has no reference.
  """
  try:
    evaluator = importlib.import_module("gkd.tasks.evaluator")
  except ImportError as error:
    raise UserError(
      f"--through_seqio needs seqio and TensorFlow ({error}); install them or"
      " leave it out"
    ) from error
  for data, cache in splits:
    task, split = cache.info["task"], cache.info["split"]
    if not data.module:
      raise UserError(
        f"--through_seqio: TASK_MODULE is empty; give the module that"
        f" registers task {task!r}, or leave the flag out for DATA_FILES"
      )
    if missing := cache.without_target:
      raise UserError(
        f"--through_seqio: {task}/{split}: {missing}; seqio scores each row, so"
        " leave the flag out"
      )
    evaluator.register(task, data.module, folders.data_dir, cache.vocabulary)
  return evaluator


def compare(
  evaluator: types.ModuleType,
  outputs: Sequence[Outputs],
  values: Mapping[str, float],
) -> str:
  """Compares numbers of seqio with ours (`values`); returns a line for each.

  Raises:
    UserError: a number differs.
  """
  lines = []
  for evaluation, draws in outputs:
    label = f"_{evaluation.label}" if evaluation.label else ""
    metrics = evaluator.seqio_metrics(
      evaluation.name,
      evaluation.split,
      [[record["tokens"] for record in records] for records in draws],
      {name: evaluation.lengths[name] for name in FEATURES},
      # Of each draw the same; only where a metric takes them.
      [record["score"] for record in draws[0] if "score" in record] or None,
    )
    for name, theirs in metrics.items():
      full = f"eval/{evaluation.metric_part}/{name}{label}"
      ours = values.get(full)
      # Two that are not a number are the same.
      if ours is not None and np.array_equal(ours, theirs, equal_nan=True):
        lines.append(f"seqio.Evaluator gives the same {full}: {theirs!r}")
        continue
      difference, remedy = (
        ("has no such metric", "with the functions")
        if ours is None
        else (f"{ours!r} on the same predictions", "of the rows or functions")
      )
      raise UserError(
        f"seqio.Evaluator gives {full} = {theirs!r} and gkd {difference}: the"
        f" cache {evaluation.cache.path} was not made {remedy} that the task"
        " has now; make it again"
      )
  return "\n".join(lines)
