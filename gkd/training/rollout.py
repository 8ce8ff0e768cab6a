"""Rollouts: targets of a step by the data set, the student or the teacher.

Algorithm 1 of GKD (arXiv:2306.13649): draw u ~ U(0, 1); if u < λ the targets of
the whole batch are sampled from the current student, otherwise they stay. Fixed
targets are the data set's or, with `off_policy_source="teacher"`, drawn
from the teacher at that step. λ may follow a schedule, and may be applied to
each example instead of the whole batch.

Sampling is a compiled program of its own; a failure in it is an error, never a
reason to train on something else.

  rolled = roll_out(batch, step=step, seed=seed, plan=Rollout(1.0), …)
  raise_failure(rolled.checks, step + 1)
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any
from typing import Literal
from typing import NamedTuple
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from gkd import keys
from gkd.metrics import Mean
from gkd.sampling import two_models
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import Strategy
from gkd.sampling.two_models import Proposal
from gkd.sampling.two_models import TwoModels
from gkd.structured_settings import setting
from gkd.text.vocabulary import Vocabulary
from gkd.training import sampled_targets
from gkd.training import schedules
from gkd.training.schedules import Adaptive
from gkd.training.schedules import Constant
from gkd.training.schedules import Schedule
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Model
from gkd.types import UserError

_COINS_AT_ONCE = 1024

Mixing = Literal["step", "example"]
OffPolicySource = Literal["dataset", "teacher"]
Staleness = Literal[0, 1]


@dataclasses.dataclass(frozen=True)
class Rollout:
  """Where the targets of each batch come from.

  Attributes:
    student_fraction: λ in [0, 1], or a `Schedule`.
    mixing: one draw for the whole batch of a step (the paper's) or one for
      each example.
    off_policy_source: what the rest is trained on: the data set's targets, or
      samples of the teacher at that step.
    decoding: how student and teacher draw.
    proposal: what the student's rows are drawn from, made of the student and
      the teacher; None for the student alone. Their source is the student.
    horizon: share of T after which the student's rows are truncated, a
      `Schedule`; never before the first token. None for T.
    staleness: 1 draws the texts of a step, but for the first, before the update
      of the step before, so that rewards on the host and that update need not
      wait for each other. 0 draws them after it.
    sampling_dtype: "bfloat16" rounds the weights that write the student's rows,
      and what they are multiplied with; sums stay in float32. None for not.
    input_buckets: static input lengths, increasing: prompts are cut to the
      smallest that holds the longest of the batch, one compile for each. The
      width of the batch is always one of them.
  """

  student_fraction: float | Schedule = setting("STUDENT_DATA_FRACTION")
  mixing: Mixing = setting("MIXING", default="step")
  off_policy_source: OffPolicySource = setting(
    "OFF_POLICY_SOURCE", default="dataset"
  )
  decoding: Strategy = setting("SAMPLING_", default_factory=SamplingParams)
  proposal: Proposal | None = setting("PROPOSAL", default=None)
  horizon: Schedule | None = setting("ROLLOUT_HORIZON", default=None)
  staleness: Staleness = setting("ROLLOUT_STALENESS", default=0)
  sampling_dtype: str | None = setting("SAMPLING_DTYPE", default=None)
  input_buckets: tuple[int, ...] = ()

  def __post_init__(self):
    if isinstance(self.horizon, Adaptive) or not isinstance(
      self.horizon, Callable | None
    ):
      raise UserError(
        f"ROLLOUT_HORIZON is {self.horizon!r}; expected @schedules.Linear() or"
        " another schedule by the step, of shares of the target length"
      )
    checked = {"student fraction": self.schedule}
    if self.horizon is not None:
      checked["rollout horizon"] = self.horizon
    for what, schedule in checked.items():
      for name in ("minimum", "maximum"):  # which a class has not, unmade
        value = getattr(schedule, name, None)
        schedules.check_fraction(f"{name} of the {what} {schedule!r}", value)
    for name, allowed in (
      ("mixing", get_args(Mixing)),
      ("off_policy_source", get_args(OffPolicySource)),
      ("staleness", get_args(Staleness)),
      ("sampling_dtype", (None, "bfloat16")),
    ):
      if getattr(self, name) not in allowed:
        raise UserError(
          f"{name} is {getattr(self, name)!r}; expected one of {allowed}"
        )
    if self.proposal is not None:
      self.proposal.validate()
    self.decoding.validate()
    if self.decoding.is_search:
      raise UserError(
        f"decoding of a rollout is {self.decoding}; expected SamplingParams:"
        " the targets of a step are drawn, beam search is for EVAL_BEAM_SIZE"
        " and for BEAM_SIZE of `gkd sample`"
      )
    buckets = tuple(self.input_buckets)
    if any(b < 1 for b in buckets) or list(buckets) != sorted(set(buckets)):
      raise UserError(
        f"input_buckets are {buckets}; expected increasing positive lengths"
      )
    object.__setattr__(self, "input_buckets", buckets)  # a list from a config

  def input_width(self, read: Callable[[], Batch]) -> int | None:
    """Bucket of a batch's longest prompt; None without buckets, for all of I.

    `read` gives the batch on the host; only called where there are buckets.
    """
    if not self.input_buckets:
      return None
    input_mask = read().input_mask
    width = input_mask.shape[1]
    used = np.flatnonzero(input_mask.any(axis=0))
    longest = int(used[-1]) + 1 if used.size else 0
    fits = [b for b in self.input_buckets if longest <= b < width]
    return min(fits, default=width)

  @property
  def schedule(self) -> Schedule:
    """λ as a schedule."""
    if isinstance(self.student_fraction, Callable):
      return self.student_fraction
    return Constant(self.student_fraction)

  @property
  def needs_targets(self) -> bool:
    """Whether some step may train on the data set's own targets."""
    return self.off_policy_source == "dataset" and self.schedule.minimum < 1

  @property
  def needs_teacher(self) -> bool:
    """Whether some step may sample from the teacher."""
    return self.off_policy_source == "teacher" and self.schedule.minimum < 1

  @property
  def keeps_log_probs(self) -> bool:
    """Whether another model than that in training writes the student's rows."""
    return bool(self.proposal or self.staleness or self.sampling_dtype)

  def check_num_ids(self, num_ids: int) -> None:
    """Refuses numbers that are too large for so many ids."""
    self.decoding.check_num_ids(num_ids)
    if self.proposal is not None:
      self.proposal.check_num_ids(num_ids)

  @property
  def uses_teacher(self) -> bool:
    """Whether a teacher writes, alone or with the student."""
    return self.needs_teacher or self.proposal is not None

  def check_teacher(self, teacher: Any) -> None:
    """Refuses text of a teacher where there is none, which is None."""
    if self.needs_teacher and teacher is None:
      raise UserError(
        "OFF_POLICY_SOURCE is 'teacher' but there is no teacher; use"
        " runs/distill.gin and set TEACHER_MODEL and TEACHER_CHECKPOINT_PATH"
      )
    if self.proposal is not None and teacher is None:
      raise UserError(
        f"PROPOSAL is {self.proposal}, which draws with a teacher, but there is"
        " none; give TEACHER_CHECKPOINT_PATH, or leave PROPOSAL out"
      )

  def student_sampler(
    self, student: Model, teacher: Model | None
  ) -> tuple[Model, Strategy]:
    """What writes the student's rows, and how."""
    writer, strategy = student, self.decoding
    if self.proposal is not None:
      writer = two_models.together(student, teacher)
      strategy = TwoModels(self.decoding, self.proposal)
    if self.sampling_dtype is not None:
      lm = dataclasses.replace(writer.lm, sampling_dtype=self.sampling_dtype)
      writer = dataclasses.replace(writer, lm=lm)
    return writer, strategy

  def stop_length(self, step: int, length: int) -> int | None:
    """Tokens at most of the student's rows at a step, for targets of `length`.

    None without a `horizon`: always `length`.
    """
    if self.horizon is None:
      return None
    return max(1, round(self.horizon(step) * length))

  def describe(self, targets: str = "the data set's targets") -> str:
    """One sentence for the start-up print; `targets` are those of the data."""
    decoding, schedule = self.decoding.describe(), self.schedule
    unit = "the whole batch" if self.mixing == "step" else "each example"
    student = f"answered by the current student {decoding}"
    if self.proposal is not None:
      student += f", {self.proposal.describe()}"
    if self.staleness:
      student += ", one update behind"
    if self.horizon is not None:
      student += f", up to {self.horizon.describe()} of the target length"
    if self.sampling_dtype is not None:
      student += f", with weights in {self.sampling_dtype}"
    fixed = {
      "dataset": f"trained on {targets}",
      "teacher": f"answered by the teacher {decoding}",
    }[self.off_policy_source]
    if schedule.minimum == 1:
      return f"on-policy: every batch is {student}"
    if schedule.maximum == 0:
      return f"off-policy: every batch is {fixed}"
    return (
      f"mixed: with probability λ = {schedule.describe()} {unit} is {student},"
      f" otherwise it is {fixed}"
    )


class RolledOut(NamedTuple):
  """What a step is trained on; its arrays may still be under way."""

  batch: Batch
  # `lambda` (realised student fraction), those of `replace_targets` of what the
  # student wrote, and the same with `teacher_` in front of what the teacher
  # wrote.
  metrics: dict[str, Mean]
  checks: dict[str, Array]  # for `raise_failure`
  rewards: np.ndarray | None = None  # [B], NaN for rows without one
  input_width: int = 0  # columns of the inputs that were sampled from


def roll_out(
  batch: Batch,
  *,
  step: int,
  seed: int,
  plan: Rollout,
  student: Model,
  teacher: Model | None,
  vocabulary: Vocabulary,
  input_width: int | None = None,
  staleness: int = 0,
) -> RolledOut:
  """Writes the targets of one step; launches programs and waits for none.

  Args:
    batch: the loader's batch of this step, of numpy or (sharded) jax arrays;
      sampled targets get its T and are placed as the given ones.
    step: of this run; with `seed` it fixes every draw.
    seed: of the run.
    plan: who writes what.
    student: the model in training, with its current parameters.
    teacher: may be None if the plan never samples from it.
    vocabulary: of the batch.
    input_width: see `Rollout.input_width`.
    staleness: of the texts; in batch and metrics where the plan has one.
  """
  fraction = _fraction(plan, step, seed)
  drawn, fixed, realised = _split(batch.rows, seed, step, fraction, plan.mixing)
  sample = functools.partial(
    sampled_targets.replace_targets,
    step=step,
    seed=seed,
    input_width=input_width,
    vocabulary=vocabulary,
  )
  means, checks = {"lambda": realised}, {}
  if fraction < 1 and plan.off_policy_source == "dataset":
    checks["without_targets"] = _count_without_targets(batch.weights, fixed)
  if plan.keeps_log_probs:
    batch = batch.replace(log_probs=0.0 * batch.weights)
  if plan.staleness:
    batch = batch.replace(staleness=0 * batch.source + staleness)
    means["staleness"] = Mean(staleness * realised.total, realised.total)
  if fraction > 0:
    writer, decoding = plan.student_sampler(student, teacher)
    check = "proposal_finite" if plan.proposal else "student_finite"
    batch, sampled, checks[check] = sample(
      *(batch, drawn, writer, decoding),
      role=keys.Role.STUDENT_SAMPLE,
      horizon=plan.stop_length(step, batch.targets.shape[1]),
    )
    means |= sampled
  if fraction < 1 and plan.off_policy_source == "teacher":
    assert teacher is not None, "a Run without a teacher refuses this"
    batch, sampled, checks["teacher_finite"] = sample(
      *(batch, fixed, teacher, plan.decoding), role=keys.Role.TEACHER_SAMPLE
    )
    means |= {f"teacher_{name}": mean for name, mean in sampled.items()}
  width = input_width or batch.inputs.shape[1]
  return RolledOut(batch, means, checks, input_width=width)


def _fraction(plan: Rollout, step: int, seed: int) -> float:
  """λ of a step; 0 or 1, both of them exact, where one coin is for all rows."""
  fraction = plan.schedule(step)
  assert 0 <= fraction <= 1, (step, fraction)
  if plan.mixing == "example":
    return fraction
  coins = _coins(seed, step // _COINS_AT_ONCE)
  return float(float(coins[step % _COINS_AT_ONCE]) < fraction)


def raise_failure(checks: Mapping[str, Array], done: int) -> None:
  """Raises what went wrong in the rollout of a step; waits for its checks.

  Args:
    checks: of the rollout.
    done: number of the step in metrics.jsonl, counted from 1.

  Raises:
    UserError: a row has to keep targets that it does not have.
    FloatingPointError: the logits of the sampled model were not finite.
  """
  if count := int(checks.get("without_targets", 0)):
    raise UserError(
      f"step {done} trains on the data set's targets, but {count} rows of its"
      " batch have none; give targets, or set the student fraction to 1 or"
      " off_policy_source to 'teacher'"
    )
  for role, whose, advice in (
    ("student", "the student's", "its checkpoint, or lower LEARNING_RATE"),
    ("teacher", "the teacher's", "its checkpoint"),
    (
      "proposal",
      "the student's or the teacher's",
      "their checkpoints, or lower LEARNING_RATE",
    ),
  ):
    if not checks.get(f"{role}_finite", True):
      raise FloatingPointError(
        f"step {done}: generation failed, {whose} logits are not finite;"
        f" look at {advice}"
      )


@functools.lru_cache(maxsize=8)
def _coins(seed: int, block: int) -> np.ndarray:
  """The u of Algorithm 1 of `_COINS_AT_ONCE` steps, on the host.

  Drawn for many steps at once: a step does not wait for the device to decide.
  """
  steps = block * _COINS_AT_ONCE + np.arange(_COINS_AT_ONCE, dtype=np.int32)
  return np.asarray(_draw_coins(seed, steps))


@jax.jit
def _draw_coins(seed, steps):
  return jax.vmap(
    lambda step: jax.random.uniform(keys.stream(seed, step, keys.Role.LAMBDA))
  )(steps)


@functools.partial(jax.jit, static_argnums=4)
def _split(example_ids, seed, step, fraction, mixing):
  """Rows [B] that the student writes, the other real ones, realised λ.

  Each row has its own u, made from its global id; exact for λ of 0 and 1, which
  it is where one coin was for all.
  """
  uniform = jnp.zeros(example_ids.shape)
  if mixing == "example":
    key = keys.stream(seed, step, keys.Role.LAMBDA)
    uniform = jax.vmap(jax.random.uniform)(keys.per_row(key, example_ids))
  by_student = uniform < fraction
  real = example_ids >= 0
  return by_student & real, ~by_student & real, Mean.of(by_student, real)


@jax.jit
def _count_without_targets(weights, fixed):
  return jnp.sum(fixed & ~jnp.any(weights > 0, axis=-1))
