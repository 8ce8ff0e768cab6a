"""When the loop reports, evaluates, saves and dumps samples."""

import dataclasses
import math

from gkd.structured_settings import setting
from gkd.types import UserError

_MOST_A_DECADE = 1 << 20  # far more of them are no float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Periods:
  """Steps between what a run does beside training; a resumed run may change it.

  Attributes:
    report: steps between lines of metrics.jsonl, at least 1.
    eval: steps between evaluations; 0 for the last step alone.
    eval_log_steps: also evaluate at so many steps a decade, see `log_spaced`; 0
      for none.
    eval_first: also evaluate before the first step.
    checkpoint: steps between checkpoints; 0 for the last step alone.
    sample: steps between dumps of the batch as trained; 0 for none.
    gradient_share: steps between measurements of the terms of a sum, which
      cost as much as a step, see `gradient_shares`; 0 for none.
  """

  report: int = setting("REPORT_PERIOD", default=50)
  eval: int = setting("EVAL_PERIOD", default=1000)
  eval_log_steps: int = setting("EVAL_LOG_STEPS", default=0)
  eval_first: bool = setting("EVAL_FIRST", default=False)
  checkpoint: int = setting("CHECKPOINT_PERIOD", default=1000)
  sample: int = setting("SAMPLE_PERIOD", default=0)
  gradient_share: int = setting("GRADIENT_SHARE_PERIOD", default=0)

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value, macro = getattr(self, field.name), field.metadata["macro"]
      if field.name == "report" and value < 1:
        raise UserError(f"{macro} is {value}; give at least 1")
      if field.name == "eval_log_steps" and value > _MOST_A_DECADE:
        raise UserError(f"{macro} is {value}; give at most {_MOST_A_DECADE:,}")
      if value < 0:
        raise UserError(
          f"{macro} is {value}; give a number of steps, or 0 for none"
        )

  def evaluates(self, done: int, train_steps: int) -> bool:
    """Whether an evaluation is due after `done` of `train_steps` steps."""
    if done == 0:
      return self.eval_first
    return (
      done == train_steps
      or due(done, self.eval)
      or log_spaced(done, self.eval_log_steps)
    )

  def saves(self, done: int, train_steps: int) -> bool:
    """Whether a checkpoint is due after `done` of `train_steps` steps."""
    return done > 0 and (done == train_steps or due(done, self.checkpoint))


def due(done: int, period: int) -> bool:
  """Whether something of this period happens after `done` steps; 0: never."""
  return bool(period) and done > 0 and done % period == 0


def log_spaced(done: int, per_decade: int) -> bool:
  """Whether `done` is one of the steps round(10^(k/n)), n of them a decade.

  Three a decade are 1, 2, 5, 10, 22, 46, 100, …; early on, where the steps
  would fall together, each comes once.

  Args:
    done: finished steps.
    per_decade: n; 0 for none.
  """
  if not per_decade or done < 1:
    return False
  nearest = round(per_decade * math.log10(done))
  # One to each side: the rounded step's logarithm may be nearer to another.
  return any(
    round(10 ** (k / per_decade)) == done
    for k in range(max(nearest - 1, 0), nearest + 2)
  )
