"""What each value of an evaluation is, known before the evaluation runs.

Names of metrics are for people; whoever compares or plots values reads the
fields of a `MetricInfo` instead (`metric_info.json` in the folder of a run or
of `gkd evaluate`).

  metric_infos([evaluation], ["student", "teacher"])
  # {"eval/sums/accuracy": MetricInfo(task="sums", split="validation", …), …}
"""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import itertools
import os
from pathlib import Path

from gkd import files
from gkd.evaluation import comparisons
from gkd.evaluation import scores
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.sequence_distance import Distance
from gkd.metric_fields import MetricInfo
from gkd.sampling.params import SamplingParams

FILE_NAME = "metric_info.json"
_SHARE = "share of tokens"
_UNITS = {"": "nats per sequence", "_per_token": "nats per token"}


def metric_infos(
  evaluations: Iterable[Evaluation], roles: Collection[str]
) -> dict[str, MetricInfo]:
  """Descriptions of the values that `evaluate` returns, by full name.

  What stands beside a value under a name with one of `SUFFIXES` has no
  description of its own.

  Args:
    evaluations: the evaluations.
    roles: of the models that there are.
  """
  infos = {}
  for evaluation in evaluations:
    infos |= _infos(evaluation, roles)
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


def _infos(
  evaluation: Evaluation, roles: Collection[str]
) -> dict[str, MetricInfo]:
  strategy, num_samples = evaluation.decoding, evaluation.num_samples
  about = {"task": evaluation.name, "split": evaluation.split}
  drawn = about | {
    "label": evaluation.label,
    "decoding": strategy.settings() | {"num_samples": num_samples},
  }
  infos = {}
  metrics = scores.describe(
    evaluation.cache,
    num_samples,
    evaluation.num_rows,
    has_reward=evaluation.reward is not None,
  )
  answering = {"student": ""}
  if "teacher" in roles and evaluation.score_teacher:
    answering["teacher"] = "teacher_"
  for role, prefix in answering.items():
    for metric, fields in metrics.items():
      name = evaluation.metric_name(f"{prefix}{metric}", evaluation.label)
      infos[name] = MetricInfo(metric=metric, role=role, **fields, **drawn)
  if not evaluation.sequence_kl:
    return infos
  about["decoding"] = SamplingParams().settings() | {"num_samples": 1}
  distances = [Distance.named(name) for name in evaluation.distances]
  for pair in comparisons.comparisons(roles):
    described = [
      (f"{distance.name}{suffix}", unit, "min")
      for distance, (suffix, unit) in itertools.product(
        distances, _UNITS.items()
      )
    ]
    writers = comparisons.writers(distances)
    described += [
      (f"{share}_on_{pair.text_of(writer)}_text", _SHARE, "max")
      for writer in writers
      for share in ("agreement", "acceptance")
    ]
    if len(writers) == 2:
      described.append(("length_ratio", "", ""))
    for metric, unit, direction in described:
      infos[evaluation.metric_name(pair.metric_name(metric))] = MetricInfo(
        metric=metric,
        unit=unit,
        direction=direction,
        **pair._asdict(),
        **about,
      )
  return infos
