"""Between rollout and update: rewards and advantages of the student's texts.

Rows that the student did not write in a step (λ below 1) are not rewarded:
their advantage is 0, and no baseline counts them. Rewards are computed on the
host, so a step waits for its own rollout; each process computes all of them.

  rolled = scoring.score(rolled, examples, plan=Scoring(reward), …)
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any
from typing import Literal
from typing import Protocol
from typing import get_args

import jax
import numpy as np

from gkd import partitioning
from gkd import processes
from gkd.errors import check_number
from gkd.losses.objective import Objective
from gkd.losses.weighted_sum import WeightedSum
from gkd.masks import Reduction
from gkd.metrics import Mean
from gkd.rewards import reward as rewards
from gkd.rewards.reward import Reward
from gkd.rewards.reward import RewardModel
from gkd.sampling.params import SamplingParams
from gkd.structured_settings import setting
from gkd.text.vocabulary import Vocabulary
from gkd.training.rollout import RolledOut
from gkd.training.rollout import Rollout
from gkd.training.telemetry import PhaseTimer
from gkd.types import Source
from gkd.types import UserError

Baseline = Literal["leave_one_out", "batch", "none"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
  """What the student's texts are rewarded for: advantage = scale · (r - b).

  Attributes:
    reward: r of each text.
    scale: multiplies r - b; above 1 the reward is extrapolated (ExOPD).
    baseline: b of a text: the mean reward of the other samples of its prompt
      ("leave_one_out"), of all other texts of the global batch ("batch"), or 0
      ("none"). It does not depend on the text itself, and so adds no bias.
  """

  reward: Reward | RewardModel = setting("REWARD")
  scale: float = setting("REWARD_SCALE", default=1.0)
  baseline: Baseline = setting("BASELINE", default="leave_one_out")

  def __post_init__(self):
    check_number(
      "REWARD_SCALE",
      self.scale,
      lambda scale: 0 < scale < math.inf,
      "a number above 0",
    )
    if self.baseline not in get_args(Baseline):
      raise UserError(
        f"BASELINE is {self.baseline!r}; expected one of {get_args(Baseline)}"
      )

  def describe(self) -> str:
    """One phrase for the start-up print."""
    kind = type(self.reward)
    name = getattr(self.reward, "__qualname__", kind.__qualname__)
    return f"{self.scale:g} · ({name} - {self.baseline.replace('_', ' ')})"


class Example(Protocol):
  """What a reward is told of a row; `data.loader.Example`."""

  prompt: str
  reference: Any

  def postprocess(self, text: str) -> Any: ...


def check(
  plan: Scoring | None,
  objective: Objective,
  rollout: Rollout | None,
  reduction: Reduction,
  samples_per_prompt: int,
) -> None:
  """Refuses a run whose policy gradient would have nothing to learn from."""
  draws = rollout is not None and rollout.schedule.maximum > 0
  if samples_per_prompt > 1 and not draws:
    raise UserError(
      f"SAMPLES_PER_PROMPT is {samples_per_prompt} but the student writes no"
      " text; leave it out, or set STUDENT_DATA_FRACTION above 0"
    )
  if not objective.needs_samples:
    return
  if not draws:
    raise UserError(
      "the objective learns from text that the student draws, but"
      " STUDENT_DATA_FRACTION is 0; set it above 0"
    )
  if rollout.decoding != SamplingParams():
    raise UserError(
      f"texts are drawn {rollout.decoding.describe()}, but the objective is of"
      " the student's own distribution; leave SAMPLING_TEMPERATURE,"
      " SAMPLING_TOP_K and SAMPLING_TOP_P out"
    )
  if rollout.keeps_log_probs and not objective.weighs_samples:
    raise UserError(
      f"PROPOSAL is {rollout.proposal}, ROLLOUT_STALENESS {rollout.staleness}"
      f" and SAMPLING_DTYPE {rollout.sampling_dtype}; the objective is of text"
      " that the student draws alone; leave them out, or use MiniLLM"
    )
  terms = [objective]
  if isinstance(objective, WeightedSum):
    terms = [term.objective for term in objective.active]
  if rollout.schedule.minimum < 1 and all(x.needs_samples for x in terms):
    raise UserError(
      f"STUDENT_DATA_FRACTION is {rollout.schedule.describe()}, but the"
      " objective learns nothing from text that the student did not draw; set"
      " it to 1"
    )
  if not objective.needs_advantages:
    return
  if reduction == "sum":
    raise UserError(
      "REDUCTION is 'sum', but the policy gradient is a mean over sequences, to"
      " which a divergence of that size would not be in the proportion of"
      " ALPHA; set it to 'sequence' or 'token'"
    )
  if plan is None:
    raise UserError(
      "the objective needs a reward and there is none; use methods/rl_gkd.gin"
      " and give REWARD, see gkd list rewards"
    )
  if plan.baseline == "leave_one_out" and samples_per_prompt == 1:
    raise UserError(
      "BASELINE is 'leave_one_out' but SAMPLES_PER_PROMPT is 1; set it to 2 or"
      " more, or BASELINE to 'batch' or 'none'"
    )


def score(
  rolled: RolledOut,
  examples: Sequence[Example],
  *,
  plan: Scoring,
  samples_per_prompt: int,
  vocabulary: Vocabulary,
  timer: PhaseTimer,
) -> RolledOut:
  """Fills in the advantages of a batch; waits for its rollout.

  Args:
    rolled: the batch as written.
    examples: of all rows of the global batch, in order.
    plan: rewards and baseline.
    samples_per_prompt: so many rows, one after the other, have one prompt.
    vocabulary: of the batch.
    timer: takes the time of the rollout and of the "reward".

  Returns:
    The same with advantages, the rewards of the rows (NaN where there is none)
    and the metrics `reward` and `reward_variance`, that of a step's rewards.
  """
  batch = rolled.batch
  with timer("sample", waits=True):
    written = processes.replicate((batch.targets, batch.weights, batch.source))
    targets, weights, source = jax.device_get(written)
  with timer("reward"):
    found = np.full(len(examples), np.nan)
    rows = np.flatnonzero((source == Source.STUDENT) & (weights > 0).any(1))
    texts = [
      vocabulary.decode(targets[row][weights[row] > 0].tolist()) for row in rows
    ]
    own = [examples[row] for row in rows]
    if rewards.compares_answers(plan.reward):
      texts = [x.postprocess(t) for x, t in zip(own, texts, strict=True)]
    if own:
      found[rows] = rewards.compute(
        plan.reward, [x.prompt for x in own], texts, [x.reference for x in own]
      )
    # Of one set of numbers, whatever a reward of one's own does.
    found = np.array(processes.from_writer(found.tolist))
    made = advantages(found, plan.baseline, samples_per_prompt) * plan.scale
    made = partitioning.place(made.astype(np.float32), batch.rows.sharding)
  number = np.float32(len(own))
  total, deviation = found[rows].sum(), np.var(found[rows]) if own else 0.0
  return rolled._replace(
    batch=batch.replace(advantages=made),
    rewards=found,
    metrics=rolled.metrics
    | {
      "reward": Mean(np.float32(total), number),
      "reward_variance": Mean(np.float32(deviation * number), number),
    },
  )


def advantages(
  found: np.ndarray, baseline: Baseline, samples_per_prompt: int
) -> np.ndarray:
  """Rewards less their baseline; 0 for rows without one.

  Args:
    found: [B] rewards of the global batch, NaN for rows without one.
    baseline: see `Scoring`; 0 for a row that has no others to compare with.
    samples_per_prompt: so many rows, one after the other, have one prompt.

  Returns:
    [B] float64.

  >>> advantages(np.array([1.0, 0.0, 0.0, 0.0]), "leave_one_out", 2)
  array([ 1., -1.,  0.,  0.])
  """
  if baseline == "none":
    return np.nan_to_num(found)
  size = samples_per_prompt if baseline == "leave_one_out" else len(found)
  groups = found.reshape(-1, size)
  others = np.isfinite(groups).sum(axis=1, keepdims=True) - 1
  sums = np.nansum(groups, axis=1, keepdims=True) - groups
  less = groups - sums / np.maximum(others, 1)
  return np.nan_to_num(less).reshape(-1)
