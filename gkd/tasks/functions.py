"""Postprocess and metric functions of seqio's registry, called by their place.

`gkd.data.task_functions` calls them, from a process without TensorFlow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio

from gkd.tasks import evaluator
from gkd.tasks.features import AnyVocabulary
from gkd.types import UserError


def find(task_module: str, name: str, vocabulary: AnyVocabulary) -> seqio.Task:
  """The registered task; its data are not needed."""
  evaluator.register(name, task_module, "", vocabulary)
  return seqio.TaskRegistry.get(name)


def call(task: seqio.Task, place: str, *arguments: Any) -> Any:
  """The text, or the numbers, that the function at a place gives."""
  kind, index, _ = place.split("/")
  if kind == "postprocess":
    text, example, is_target = arguments
    return task.postprocess_fn(text, example=example, is_target=is_target)
  if kind == "texts":
    values = _of_object(task.metric_objs[int(index)], *arguments, task)
  elif kind == "scores":
    values = task.score_metric_fns[int(index)](*arguments)
  else:
    values = task.predict_metric_fns[int(index)](*arguments)
  return {
    name: float(getattr(value, "value", value))
    for name, value in values.items()
    # Texts and pictures are for TensorBoard.
    if isinstance(value, seqio.metrics.Scalar)
    or not isinstance(value, seqio.metrics.MetricValue)
  }


def _of_object(
  metric: Any, targets: Sequence[str], texts: Sequence[str], task: seqio.Task
) -> dict[str, Any]:
  """As `seqio.Evaluator` computes one of `metric_objs`, of decoded texts."""
  rows = [_Row(targets_pretokenized=target) for target in targets]
  features = task.output_features
  made = metric.from_model_output(rows, np.array(texts, object), features)
  return made.actual_compute(rows, features)[0]


class _Row(dict):
  """An example of which the cache has kept the target alone."""

  def __missing__(self, field: str) -> Any:
    raise UserError(
      f"one of metric_objs reads the field {field!r} of an example, which a"
      " cache does not keep; give metric_fns and a postprocess_fn that reads it"
    )

  def get(self, field: str, default: Any = None) -> Any:
    del default
    return self[field]
