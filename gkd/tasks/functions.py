"""Postprocess and metric functions of seqio's registry, called by their place.

`gkd.data.task_functions` calls them, from a process without TensorFlow.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio

from gkd.tasks import evaluator
from gkd.tasks.features import AnyVocabulary


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
  metric: Any, targets: Sequence, texts: Sequence[str], task: seqio.Task
) -> dict[str, Any]:
  """As `seqio.Evaluator` computes one of `metric_objs`, of decoded texts."""
  rows: list[dict] = [{} for _ in targets]
  features = task.output_features
  made = metric.from_model_output(rows, np.array(texts, object), features)
  if not isinstance(made, seqio.metrics.CollectingMetric):
    return made.compute()
  return made.actual_compute(rows, features, cached_targets=list(targets))[0]
