"""What each value of an evaluation is, known before the evaluation runs.

Names of metrics are for people; whoever compares or plots values reads the
fields of a `MetricInfo` instead (`metric_info.json` in the folder of a run or
of `gkd evaluate`).

  metric_infos([evaluation], teacher=True)
  # {"eval/sums/accuracy": MetricInfo(task="sums", split="validation", …), …}
"""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import os
from pathlib import Path

from gkd import files
from gkd.evaluation import scores
from gkd.evaluation.evaluation import Evaluation
from gkd.metrics import MetricInfo
from gkd.sampling.params import SamplingParams

FILE_NAME = "metric_info.json"
_KL_UNITS = {
  "forward_kl": "nats per sequence",
  "forward_kl_per_token": "nats per token",
  "reverse_kl": "nats per sequence",
  "reverse_kl_per_token": "nats per token",
}


def metric_infos(
  evaluations: Iterable[Evaluation], *, teacher: bool
) -> dict[str, MetricInfo]:
  """Descriptions of the values that `evaluate` returns, by full name.

  The ends of confidence intervals, `<name>_ci_low` and `<name>_ci_high`, have
  no description of their own.

  Args:
    evaluations: the evaluations.
    teacher: whether the model is compared with a teacher.
  """
  infos = {}
  for evaluation in evaluations:
    infos |= _infos(evaluation, teacher)
  return infos


def write(folder: str | os.PathLike, infos: Mapping[str, MetricInfo]) -> None:
  """Writes `metric_info.json`; descriptions of other metrics in it stay."""
  path = Path(folder) / FILE_NAME
  content = files.read_json(path, {}, "delete it") if path.exists() else {}
  for name, info in infos.items():
    content[name] = dataclasses.asdict(info)
    if not info.signature:
      del content[name]["signature"]
  if content:
    files.write_json(path, content)


def _infos(evaluation: Evaluation, teacher: bool) -> dict[str, MetricInfo]:
  strategy, num_samples = evaluation.decoding, evaluation.num_samples
  about = {"task": evaluation.name, "split": evaluation.split}
  drawn = about | {
    "label": evaluation.label,
    "decoding": strategy.settings() | {"num_samples": num_samples},
  }
  infos = {}
  metrics = scores.describe(evaluation.cache, num_samples, evaluation.num_rows)
  roles = {"student": ""}
  if teacher and evaluation.score_teacher:
    roles["teacher"] = "teacher_"
  for role, prefix in roles.items():
    for metric, fields in metrics.items():
      name = evaluation.metric_name(f"{prefix}{metric}", evaluation.label)
      infos[name] = MetricInfo(metric=metric, role=role, **fields, **drawn)
  if teacher and evaluation.sequence_kl:
    about["decoding"] = SamplingParams().settings() | {"num_samples": 1}
    for metric, unit in _KL_UNITS.items():
      infos[evaluation.metric_name(metric)] = MetricInfo(
        metric=metric,
        unit=unit,
        direction="min",
        compared_with="teacher",
        **about,
      )
  return infos
