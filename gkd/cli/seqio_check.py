"""The same predictions through seqio.Evaluator: `--through_seqio`.

The only part of `gkd evaluate` that needs TensorFlow, seqio and the raw data.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import importlib
from typing import NamedTuple

import numpy as np

from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.predictions import Record
from gkd.types import UserError


class _Answered(NamedTuple):
  """One evaluation and the ids of its answers, for each answer to the split."""

  evaluation: Evaluation
  draws: list[list[Sequence[int]]]


class Comparison:
  """Keeps the answers of a command and has seqio score them."""

  def __init__(
    self, splits: Sequence[tuple[DataConfig, TokenCache]], folders: Folders
  ):
    """Registers the tasks, so that what is missing is found before any work.

    Args:
      splits: what is evaluated, and the caches of it.
      folders: where the raw files are.

    Raises:
      UserError: seqio or a task is not there, or a split has no references.
    """
    self._answered: list[_Answered] = []
    try:
      self._evaluator = importlib.import_module("gkd.tasks.evaluator")
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
          f" registers task {task!r}"
        )
      if not cache.info["has_targets"]:
        raise UserError(
          f"--through_seqio: {task}/{split} has no references and so no"
          " metrics; leave the flag out"
        )
      self._evaluator.register(
        task, data.module, folders.data_dir, cache.vocabulary
      )

  def keeping(
    self, evaluation: Evaluation
  ) -> Callable[[Sequence[Sequence[Record]]], None]:
    """What `evaluate` calls with the answers of this evaluation."""

    def keep(answers: Sequence[Sequence[Record]]) -> None:
      draws = [[record["tokens"] for record in found] for found in answers]
      self._answered.append(_Answered(evaluation, draws))

    return keep

  def compare(self, values: Mapping[str, float]) -> str:
    """Compares numbers of seqio with ours; returns a line for each.

    Args:
      values: ours, as `evaluate` returns them.

    Raises:
      UserError: a number differs.
    """
    lines = []
    for evaluation, draws in self._answered:
      label = f"_{evaluation.label}" if evaluation.label else ""
      found = self._evaluator.seqio_metrics(
        evaluation.name, evaluation.split, draws, dict(evaluation.lengths)
      )
      for name, theirs in found.items():
        full = f"eval/{evaluation.metric_part}/{name}{label}"
        if full not in values:
          raise UserError(
            f"seqio.Evaluator gives {full} = {theirs!r} and gkd has no such"
            f" metric: the cache {evaluation.cache.path} was not made with the"
            " functions that the task has now; make it again"
          )
        # Two that are not a number are the same.
        if not np.array_equal(values[full], theirs, equal_nan=True):
          raise UserError(
            f"seqio.Evaluator gives {full} = {theirs!r} and gkd"
            f" {values[full]!r} on the same predictions: the cache"
            f" {evaluation.cache.path} was not made of the rows or functions"
            " that the task has now; make it again"
          )
        lines.append(f"seqio.Evaluator gives the same {full}: {theirs!r}")
    return "\n".join(lines)
