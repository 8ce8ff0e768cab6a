"""Names of the values that an evaluation reports, before it runs.

A run that keeps its best checkpoint by a name that nothing reports would find
out after the first evaluation, maybe hours later.

  metric_names(evaluation, teacher=True)  # ["eval/sums/accuracy", …]
"""

from gkd.evaluation import scores
from gkd.evaluation.evaluation import Evaluation


def metric_names(evaluation: Evaluation, *, teacher: bool) -> list[str]:
  """What `decode.evaluate` returns, the ends of the intervals left out.

  Args:
    evaluation: what will run.
    teacher: whether there is one to compare with.
  """
  suffix = f"_{evaluation.label}" if evaluation.label else ""
  own = [f"{name}{suffix}" for name in _scored(evaluation)]
  names = list(own)
  if teacher and evaluation.score_teacher:
    names += [f"teacher_{name}" for name in own]
  if teacher and evaluation.distance:
    for direction in ("forward_kl", "reverse_kl"):
      names += [direction, f"{direction}_per_token"]
  return [f"eval/{evaluation.metric_part}/{name}" for name in names]


def _scored(evaluation: Evaluation) -> list[str]:
  """Metrics of empty answers to the first examples: which, not how good."""
  cache = evaluation.cache
  prediction = ""
  if cache.postprocess is not None:
    prediction = cache.postprocess("", example=None, is_target=False)
  rows = cache.read(range(min(2, len(cache))))
  records = [
    {
      "reference": row.reference,
      "prediction": prediction,
      "length": 1,
      "truncated": False,
    }
    for row in rows
  ]
  answers = [records] * evaluation.num_samples
  return list(scores.scores(answers, cache, resamples=0, seed=0))
