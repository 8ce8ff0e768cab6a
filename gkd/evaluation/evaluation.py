"""What to evaluate on and how to decode: one split, one way of decoding."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from gkd.evaluation import predictions
from gkd.evaluation.bootstrap import RESAMPLES
from gkd.rewards.reward import Reward
from gkd.sampling.strategies import Strategy
from gkd.structured_settings import setting
from gkd.types import Model
from gkd.types import UserError


class FrozenCache:
  """Keeps results of frozen models: samples, scores and distances.

  Models are compared by identity: a new tree of parameters is another model.
  """

  def __init__(self):
    self._kept: dict[str, tuple[tuple, Sequence[Model], Any]] = {}

  def get(
    self,
    name: str,
    models: Sequence[Model],
    seed: int,
    compute: Callable[[], Any],
  ) -> Any:
    """The named result, computed at the first request for these models."""
    key = (seed, *((id(model.lm), id(model.params)) for model in models))
    if name not in self._kept or self._kept[name][0] != key:
      # With the models, so that nothing else can have their ids.
      self._kept[name] = key, models, compute()
    return self._kept[name][-1]


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What to evaluate on and how to decode.

  Attributes:
    name: task name, as it stands in the metric names.
    split: split of the task, as it stands in the names of prediction files.
    cache: tokens, references, postprocessor and metric functions of the split.
    lengths: {"inputs": I, "targets": T}; T is also the longest answer.
    decoding: how the answers come about: drawn, or the best of a search.
    batch_size: rows decoded at a time.
    num_examples: evaluate the first so many rows only; None for all.
    num_samples: answers to each prompt; metrics are means over them.
    label: added to the names of metrics that depend on the decoding
      (`eval/<name>/accuracy_<label>`), so that a task can be decoded in two
      ways in one run.
    name_split: metrics are `eval/<name>-<split>/…`, for a task of which several
      splits are evaluated.
    score_teacher: score the answers of the teacher, when there is one.
    sequence_kl: measure distances to the frozen models, where there are any.
    distances: names of those that are measured, see `sequence_distance`.
    chunk_size: positions whose logits exist at once when they are measured,
      None for all; set it where [B, T, V] of two models is too much.
    reward: judges the answers too; see `rewards.reward`.
    bootstrap: resamples for the confidence intervals; 0 for none.
    frozen_cache: results of frozen models; each evaluation has its own.
  """

  name: str = setting("EVAL_TASK")
  split: str
  cache: predictions.Cache
  lengths: Mapping[str, int]
  decoding: Strategy = setting("EVAL_")
  batch_size: int
  num_examples: int | None = setting("EVAL_EXAMPLES", default=None)
  num_samples: int = setting("EVAL_SAMPLES", default=1)
  label: str = ""
  name_split: bool = False
  score_teacher: bool = setting("EVAL_TEACHER", default=True)
  sequence_kl: bool = True
  distances: Sequence[str] = setting(
    "EVAL_DISTANCES", default=("forward_kl", "reverse_kl")
  )
  chunk_size: int | None = None
  bootstrap: int = RESAMPLES
  reward: Reward | None = setting("REWARD", default=None)
  # Not an argument of __init__: `dataclasses.replace` would hand results for
  # other rows and lengths on to the new evaluation.
  frozen_cache: FrozenCache = dataclasses.field(
    init=False, default_factory=FrozenCache, compare=False, repr=False
  )

  def __post_init__(self):
    self.decoding.validate()
    for field in ("batch_size", "num_examples", "num_samples"):
      value = getattr(self, field)
      if value is not None and value < 1:
        raise UserError(
          f"evaluation of {self.name}: {field} is {value}; expected 1 or more"
        )
    if self.num_samples > 1 and not self.decoding.is_random:
      raise UserError(
        f"evaluation of {self.name}: {self.num_samples} answers to each prompt"
        f" {self.decoding.describe()} are all the same; set num_samples to"
        " 1 or draw at a temperature above 0"
      )
    if self.bootstrap < 0:
      raise UserError(
        f"evaluation of {self.name}: bootstrap is {self.bootstrap}; expected a"
        " number of resamples, or 0 for no intervals"
      )
    if not len(self.cache):
      raise UserError(
        f"evaluation of {self.name}: split {self.split!r} has no rows; choose"
        " another split"
      )

  @property
  def num_rows(self) -> int:
    """Number of rows that are evaluated."""
    if self.num_examples is None:
      return len(self.cache)
    return min(self.num_examples, len(self.cache))

  @property
  def metric_part(self) -> str:
    """The part of the metric names between `eval/` and the metric."""
    return f"{self.name}-{self.split}" if self.name_split else self.name

  def metric_name(self, metric: str, label: str = "") -> str:
    """`eval/<part>/<metric>[_<label>]`."""
    suffix = f"_{label}" if label else ""
    return f"eval/{self.metric_part}/{metric}{suffix}"

  @property
  def file_parts(self) -> tuple[str, str, str]:
    """What tells the prediction files of a step apart."""
    return self.name, self.split, self.label
