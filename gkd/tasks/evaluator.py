"""seqio.Evaluator over texts that a model has already generated.

It gives the numbers that evaluation computes without TensorFlow, for those who
report through seqio: `gkd evaluate --through_seqio`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os

from absl import logging
import numpy as np
import seqio

from gkd.tasks import features
from gkd.text import task_modules
from gkd.types import UserError


def register(
  task_name: str,
  task_module: str,
  data_dir: str | os.PathLike | None,
  vocabulary: features.AnyVocabulary,
) -> None:
  """Registers the tasks of a module; refuses one without `task_name`."""
  task_modules.register(task_module, data_dir, vocabulary)
  if task_name not in seqio.TaskRegistry.names():
    raise UserError(
      f"task {task_name!r} is not registered by {task_module}; expected one of"
      f" {sorted(seqio.TaskRegistry.names())}"
    )


def seqio_metrics(
  task_name: str,
  split: str,
  draws: Sequence[Sequence[Sequence[int]]],
  lengths: Mapping[str, int] | None = None,
  target_scores: Sequence[float] | None = None,
) -> dict[str, float]:
  """Metrics of seqio.Evaluator for generated ids.

  Args:
    task_name: a registered task.
    split: its split.
    draws: several generations of ids for the rows of the split, decoded by the
      task's vocabulary; fewer ids than rows evaluate the first rows. The result
      is the mean over the generations.
    lengths: {"inputs": I, "targets": T}; only a task whose preprocessors build
      rows by them needs any.
    target_scores: log-probabilities of the targets of these rows, for a task
      with metrics of (targets, scores).
  """
  with _quiet():
    evaluator = seqio.Evaluator(
      task_name,
      feature_converter=seqio.EncDecFeatureConverter(pack=False),
      eval_split=split,
      num_examples=len(draws[0]),
      sequence_length=lengths,
      async_compute_metrics=False,
    )
    scores = []
    for predictions in draws:
      width = max(map(len, predictions))
      # seqio makes one array of them, as it gets from a model: right-padded.
      padded = [
        [*map(int, ids), *[0] * (width - len(ids))] for ids in predictions
      ]
      future, _ = evaluator.evaluate(
        compute_metrics=True,
        predict_fn=_model_fn(padded, task_name),
        score_fn=target_scores and _model_fn(target_scores, task_name),
      )
      scores.append(future.result()[task_name])
  # seqio wraps numbers as `metrics.Scalar` of clu on their way out.
  return {
    name: float(
      np.mean([float(getattr(s[name], "value", s[name])) for s in scores])
    )
    for name in scores[0]
  }


def _model_fn(outputs: Sequence, name: str):
  """What a model would be to seqio: rows of a dataset to its outputs."""

  def outputs_of(dataset):
    indices = [int(index) for index, _ in dataset.as_numpy_iterator()]
    if len(indices) != len(outputs):
      raise UserError(
        f"{len(outputs)} predictions for {len(indices)} rows of {name}:"
        " expected at most one a row; pass fewer"
      )
    return [(index, outputs[index]) for index in indices]

  return outputs_of


@contextlib.contextmanager
def _quiet():
  """Without seqio's advice on lengths and loggers: they are as they must be."""
  before = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(before)
