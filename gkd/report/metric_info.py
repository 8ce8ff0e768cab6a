"""What a value of an evaluation is: task, split, decoding, unit, direction.

`metric_info.json` of a run describes each value by fields, see
`gkd.metrics.MetricInfo`; nothing is read out of names. Values that depend on
another model (its own scores, or a divergence to it) carry the content hash of
that model as `run.json` has it, so that only values of one model are compared.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any
from typing import Literal

from gkd.report import formats

# Steps, ascending, and a value for each; NaN where a value was not finite.
Curve = tuple[Sequence[int], Sequence[float]]
# `gkd evaluate` and the training loop add these to the name of a value.
_BOUNDS = {"low": "_ci_low", "high": "_ci_high"}
# Values that are shown as curves but have no column of their own.
_SECONDARY = (
  "length",
  "truncation_rate",
  "forward_kl_per_token",
  "reverse_kl_per_token",
)
DECIMALS = {"%": 1, "s": 1, "nats per sequence": 2, "nats per token": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """One value of an evaluation, equal between runs that can be compared.

  Attributes:
    metric: with the fields below it as in `gkd.metrics.MetricInfo`.
    decoding: as JSON text.
    model: beginning of the content hash of the model that is not the student
      and that the value belongs to or is compared with; "" for none.
    bound: end of the confidence interval; "" for the value itself.
  """

  metric: str
  task: str = ""
  split: str = ""
  decoding: str = ""
  label: str = ""
  unit: str = dataclasses.field(default="", compare=False)
  direction: str = dataclasses.field(default="", compare=False)
  role: str = "student"
  compared_with: str = ""
  model: str = ""
  bound: Literal["low", "high", ""] = ""

  @property
  def group(self) -> str:
    """Task and split: scores of one group are of the same examples."""
    return f"{self.task} {self.split}".strip()

  @property
  def bounds(self) -> tuple["Score", "Score"]:
    """The ends of its confidence interval."""
    low, high = (dataclasses.replace(self, bound=end) for end in _BOUNDS)
    return low, high

  @property
  def decimals(self) -> int | None:
    """Digits after the point in a column; None for as many as needed."""
    return DECIMALS.get(self.unit)

  @property
  def slug(self) -> str:
    """Names a file of it; unique among the scores of one decoding label."""
    parts = ("eval", self.task, self.split, self.metric, self.label)
    return "_".join(filter(None, (*parts, self.model)))


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
    curves: {name: curve}.
    infos: content of metric_info.json.
    about: content of run.json; its `roles` have the hashes of models.
    path: of the run. A model without a hash is taken for one of its own.
  """
  fields = {field.name for field in dataclasses.fields(Score)}
  roles = about.get("roles") or {}
  described: dict[str, Score] = {}
  for name, info in infos.items():
    known = {key: info[key] for key in fields & info.keys()}
    known["decoding"] = json.dumps(info.get("decoding"), sort_keys=True)
    other = info.get("compared_with") or info.get("role", "student")
    if other != "student":
      sha256 = roles.get(other, {}).get("content_sha256")
      known["model"] = sha256[:8] if sha256 else f"of {path}"
    described[name] = score = Score(**known)
    for suffix, bound in zip(_BOUNDS.values(), score.bounds, strict=True):
      described[name + suffix] = bound

  def key(name: str) -> Metric:
    if name in described:
      return described[name]
    return Score(metric=name) if name.startswith("eval/") else name

  return {key(name): curve for name, curve in curves.items()}


def scores(metrics: Iterable[Metric]) -> list[Score]:
  """The student's scores, group by group, divergences last."""
  found = {
    score
    for score in metrics
    if isinstance(score, Score) and score.role == "student" and not score.bound
  }
  return sorted(
    found,
    key=lambda s: (s.group, bool(s.compared_with), s.metric, s.label, s.model),
  )


def is_headline(score: Score) -> bool:
  """Whether it belongs into a summary."""
  return score.metric not in _SECONDARY


def groups(found: Iterable[Score]) -> set[str]:
  return {score.group for score in found}


def title(score: Score, others: Sequence[Score] = ()) -> str:
  """`describe` with the unit: forward KL (nats per sequence)."""
  words = describe(score, others)
  return f"{words} ({score.unit})" if score.unit else words


def describe(score: Score, others: Sequence[Score] = ()) -> str:
  """Words for a score: accuracy, T = 0.7.

  Args:
    score: to be described.
    others: beside which it stands; group and compared model are said where
      these have several.
  """
  words = formats.plain(score.metric) if score.task else score.metric
  models = {s.model for s in others if s.compared_with == score.compared_with}
  if score.compared_with and len(models) > 1:
    words += f" to the {score.compared_with} {score.model}"
  if score.label:
    words += f", {_decoding(score)}"
  return words if len(groups(others)) == 1 else f"{score.group} {words}".strip()


def _decoding(score: Score) -> str:
  """T = 0.7, top-p 0.9; beam size 4."""
  numbers = json.loads(score.decoding) or {}
  parts = []
  if "temperature" in numbers:
    parts.append(f"T = {numbers['temperature']:g}")
  if numbers.get("top_k"):
    parts.append(f"top-k {numbers['top_k']}")
  if numbers.get("top_p", 1) < 1:
    parts.append(f"top-p {numbers['top_p']:g}")
  if "beam_size" in numbers:
    parts.append(f"beam size {numbers['beam_size']}")
  if numbers.get("num_samples", 1) > 1:
    parts.append(f"{numbers['num_samples']} samples")
  return ", ".join(parts) or score.label


def best(direction: str, values: Iterable[float]) -> float:
  """The best finite value; NaN where none is better than another."""
  different = {value for value in values if abs(value) < float("inf")}
  if len(different) < 2 or direction not in ("max", "min"):
    return float("nan")
  return max(different) if direction == "max" else min(different)
