"""What a value of an evaluation is: task, split, decoding, unit, direction.

`metric_info.json` of a run describes each value by fields, see
`gkd.metric_fields`; nothing is read out of names. Values that depend on
another model (its own scores, or a divergence to it) carry the content hash of
that model as `run.json` has it, so that only values of one model are compared.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
import re
from typing import Any
from typing import Literal

from gkd.metric_fields import SUFFIXES
from gkd.report import formats

# {step: value} in order of steps; NaN where a value was not finite.
Curve = Mapping[int, float]
# `gkd evaluate` and the training loop add these to the name of a value.
_PARTS = dict(zip(("low", "high", "error"), SUFFIXES, strict=True))
# Values that are shown as curves but have no column of their own: these, and
# those of a distance beside its sum over a sequence.
_SECONDARY = ("length", "truncation_rate")
_SECONDARY_ENDINGS = ("_per_token", "_log_ratio")
# Numbers of a decoding strategy: name, value that is not shown, text.
_DECODING = (
  ("temperature", None, "T = {:g}"),
  ("top_k", 0, "top-k {}"),
  ("top_p", 1, "top-p {:g}"),
  ("beam_size", None, "beam size {}"),
  ("num_samples", 1, "{} samples"),
)
# Digits after the point in a column; others have as many as they need.
DECIMALS = {
  "%": 1,
  "s": 1,
  "nats per sequence": 2,
  "nats per token": 2,
  "share of tokens": 3,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """One value of an evaluation, equal between runs that can be compared.

  The fields up to `compared_with` are those of `gkd.metric_fields.MetricInfo`.
  """

  metric: str
  task: str = ""
  split: str = ""
  decoding: str = ""  # as JSON text
  label: str = ""
  unit: str = dataclasses.field(default="", compare=False)
  direction: str = dataclasses.field(default="", compare=False)
  role: str = "student"
  compared_with: str = ""
  # Beginning of the content hash of the model that it is compared with.
  model: str = ""
  # The same of the model that it belongs to, where that is not the student.
  owner: str = ""
  # End of the confidence interval or standard error; "" for the value itself.
  bound: Literal["low", "high", "error", ""] = ""

  @property
  def group(self) -> str:
    """Task and split: scores of one group are of the same examples."""
    return f"{self.task} {self.split}".strip()

  @property
  def bounds(self) -> tuple["Score", "Score"]:
    """The ends of its confidence interval."""
    low, high = (dataclasses.replace(self, bound=x) for x in ("low", "high"))
    return low, high


# A value of an evaluation, or the name of any other metric.
Metric = Score | str


def structured(
  curves: Mapping[str, Curve],
  infos: Mapping[str, Mapping[str, Any]],
  about: Mapping[str, Any],
  path: str,
) -> dict[Metric, Curve]:
  """Curves by `Score` for the values of evaluations, by name for the others.

  A value that metric_info.json does not describe (an earlier version wrote the
  folder) is a score without task, called by its whole name.

  Args:
    curves: by name.
    infos: content of metric_info.json.
    about: content of run.json; its `roles` have the hashes of models.
    path: of the run; a model without a hash is taken for one of its own.
  """
  fields = {field.name for field in dataclasses.fields(Score)}
  roles = about.get("roles") or {}
  described: dict[str, Metric] = {}
  for name, info in infos.items():
    known = {key: info[key] for key in fields & info.keys()}
    known["decoding"] = json.dumps(info.get("decoding"), sort_keys=True)
    for field, role in (("model", "compared_with"), ("owner", "role")):
      if (other := info.get(role) or "student") != "student":
        sha256 = roles.get(other, {}).get("content_sha256")
        known[field] = sha256[:8] if sha256 else f"of {path}"
    described[name] = score = Score(**known)
    for bound, suffix in _PARTS.items():
      described[name + suffix] = dataclasses.replace(score, bound=bound)
  for name in curves.keys() - described.keys():
    described[name] = Score(metric=name) if name.startswith("eval/") else name
  return {described[name]: curve for name, curve in curves.items()}


def scores(metrics: Iterable[Metric]) -> list[Score]:
  """The student's scores, group by group, divergences last."""
  return sorted(
    {
      score
      for score in metrics
      if isinstance(score, Score)
      and score.role == "student"
      and not score.bound
    },
    key=lambda s: (s.group, bool(s.compared_with), s.metric, s.label, s.model),
  )


def is_headline(score: Score) -> bool:
  """Whether it belongs into a summary."""
  return score.metric not in _SECONDARY and not score.metric.endswith(
    _SECONDARY_ENDINGS
  )


def title(score: Score, others: Sequence[Score] = ()) -> str:
  """`describe` with the unit: forward KL (nats per sequence)."""
  text = describe(score, others)
  return f"{text} ({score.unit})" if score.unit else text


def describe(score: Score, others: Sequence[Score] = ()) -> str:
  """A score by name and decoding: accuracy, T = 0.7.

  The group and the hash of the compared model are added where the `others`,
  beside which it stands, have several.
  """
  text = formats.plain(score.metric) if score.task else score.metric
  models = {s.model for s in others if s.compared_with == score.compared_with}
  if score.compared_with and (len(models) > 1 or _is_named(score)):
    text += f" to the {score.compared_with}"
    text += f" {score.model}" if len(models) > 1 else ""
  if score.label:
    text += f", {_decoding(score)}"
  if len({other.group for other in others}) == 1:
    return text
  return f"{score.group} {text}".strip()


def _is_named(score: Score) -> bool:
  """Whether its name says what it is compared with: not of the teacher."""
  return score.compared_with not in ("", "teacher")


def _decoding(score: Score) -> str:
  """T = 0.7, top-p 0.9; beam size 4."""
  numbers = json.loads(score.decoding) or {}
  parts = [
    text.format(numbers[name])
    for name, usual, text in _DECODING
    if numbers.get(name, usual) != usual
  ]
  return ", ".join(parts) or score.label


def slug(metric: Metric) -> str:
  """Names a file of it; unique among the scores of one decoding label."""
  if isinstance(metric, Score):
    parts = (metric.task, metric.split, metric.metric, metric.label)
    other = metric.compared_with if _is_named(metric) else ""
    metric = "_".join(filter(None, ("eval", *parts, other, metric.model)))
  return re.sub(r"\W+", "_", metric)


def best(direction: str, values: Iterable[float]) -> float:
  """The best finite value; NaN where none is better than another."""
  different = {value for value in values if math.isfinite(value)}
  if len(different) < 2 or direction not in ("max", "min"):
    return math.nan
  return max(different) if direction == "max" else min(different)
