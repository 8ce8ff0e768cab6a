"""Which checkpoints of a run are kept."""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import math
from typing import Literal
from typing import get_args

from gkd.structured_settings import setting
from gkd.types import UserError

Mode = Literal["max", "min"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreservationPolicy:
  """The newest, the best, and some along the way; a checkpoint may be several.

  Attributes:
    latest: number of the newest, at least 1.
    every: also those whose step is a multiple of it; 0 for none.
    best: number of the best; 0 for none. Only checkpoints whose step was
      evaluated are candidates.
    metric: what "best" means, "eval/sums/accuracy"; required with `best`.
    mode: "max" if more is better, "min" if less is.
  """

  latest: int = setting("KEEP", default=3)
  every: int = setting("KEEP_EVERY", default=0)
  best: int = setting("KEEP_BEST", default=0)
  metric: str = setting("BEST_METRIC", default="")
  mode: Mode = setting("BEST_MODE", default="max")

  def __post_init__(self):
    for name, value, least in (
      ("KEEP", self.latest, 1),
      ("KEEP_EVERY", self.every, 0),
      ("KEEP_BEST", self.best, 0),
    ):
      if value < least:
        raise UserError(f"{name} is {value}; give at least {least}")
    if self.mode not in get_args(Mode):
      raise UserError(f"BEST_MODE is {self.mode!r}; give 'max' or 'min'")
    if self.best and not self.metric:
      raise UserError(
        f"KEEP_BEST is {self.best} but BEST_METRIC is empty; name the metric,"
        " such as 'eval/gsm8k/accuracy'"
      )
    if not self.best and (self.metric or self.mode != "max"):
      raise UserError(
        "BEST_METRIC and BEST_MODE have no effect without KEEP_BEST; set how"
        " many of the best to keep, or leave them out"
      )

  def choose(
    self, steps: Iterable[int], values: Mapping[int, float]
  ) -> set[int]:
    """Those of `steps` that are kept.

    Args:
      steps: of all finished checkpoints.
      values: {step: metric} where it was evaluated; of equals the earlier step
        is the better one, and NaN is never best.
    """
    steps = sorted(steps)
    kept = set(steps[-self.latest :])
    if self.every:
      kept |= {step for step in steps if step % self.every == 0}
    if self.best:
      sign = -1 if self.mode == "max" else 1
      judged = [s for s in steps if math.isfinite(values.get(s, math.nan))]
      judged.sort(key=lambda s: (sign * values[s], s))
      kept |= set(judged[: self.best])
    return kept
