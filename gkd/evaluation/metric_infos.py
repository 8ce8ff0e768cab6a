"""What each value of an evaluation is, known before the evaluation runs.

Names of metrics are for people; whoever compares or plots values reads the
fields of a `MetricInfo` instead (`metric_info.json` in the folder of a run or
of `gkd evaluate`).

  metric_infos(evaluation, teacher=True)
  # {"eval/sums/accuracy": MetricInfo(task="sums", split="validation", …), …}
"""

from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.evaluation import scores
from gkd.evaluation.evaluation import Evaluation
from gkd.metrics import MetricInfo
from gkd.sampling.params import SamplingParams

FILE_NAME = "metric_info.json"
_KL_UNITS = {"": "nats per sequence", "_per_token": "nats per token"}


def metric_infos(
  evaluation: Evaluation, *, teacher: bool
) -> dict[str, MetricInfo]:
  """Descriptions of the values that `evaluate` returns, by full name.

  The ends of confidence intervals, `<name>_ci_low` and `<name>_ci_high`, have
  no description of their own.

  Args:
    evaluation: the evaluation.
    teacher: whether the model is compared with a teacher.
  """
  suffix = f"_{evaluation.label}" if evaluation.label else ""
  about = {
    "task": evaluation.name,
    "split": evaluation.split,
    "decoding": _decoding(evaluation.decoding, evaluation.num_samples),
  }
  named = {}
  metrics = scores.describe(evaluation.cache, evaluation.num_samples)
  for role, prefix in (("student", ""), ("teacher", "teacher_")):
    if role == "teacher" and not (teacher and evaluation.score_teacher):
      continue
    for metric, (unit, direction) in metrics.items():
      named[f"{prefix}{metric}{suffix}"] = MetricInfo(
        metric=metric,
        unit=unit,
        direction=direction,
        role=role,
        label=evaluation.label,
        **about,
      )
  if teacher and evaluation.sequence_kl:
    about["decoding"] = _decoding(SamplingParams(), 1)
    for metric in ("forward_kl", "reverse_kl"):
      for ending, unit in _KL_UNITS.items():
        named[f"{metric}{ending}"] = MetricInfo(
          metric=f"{metric}{ending}",
          unit=unit,
          direction="min",
          compared_with="teacher",
          **about,
        )
  return {f"eval/{evaluation.metric_part}/{n}": i for n, i in named.items()}


def write(
  folder: str | os.PathLike, evaluations: Sequence[Evaluation], *, teacher: bool
) -> None:
  """Writes `metric_info.json`; descriptions of other metrics in it stay."""
  path = Path(folder) / FILE_NAME
  content = files.read_json(path, {}, "delete it") if path.exists() else {}
  for evaluation in evaluations:
    for name, info in metric_infos(evaluation, teacher=teacher).items():
      content[name] = dataclasses.asdict(info)
  if content:
    files.write_json(path, content)


def _decoding(strategy: Any, num_samples: int) -> dict[str, Any]:
  return strategy.settings() | {"num_samples": num_samples}
