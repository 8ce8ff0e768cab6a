"""Policy gradients on text that the student drew: rewards, sampled-token KL.

Each is a score-function estimator, sum of sg(weight) · ∇log p_S(y_t): nothing
is differentiated through the sampling. Tokens of other writers have weight 0.
Probabilities are over the ids that are drawn: no padding, start or control.

  objective = rewarded(alpha=0.5, distillation=Distillation(ReverseKL()))

Sources: GKD (arXiv 2306.13649), Eq. 5; RLEF (arXiv 2306.00186), whose anchor is
the initial student; Thinking Machines, On-Policy Distillation (2025); Schulman,
Approximating KL Divergence (2020), for k1, k2 and k3.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Literal
from typing import get_args

import jax
import jax.numpy as jnp

from gkd import masks
from gkd.errors import check_number
from gkd.losses import token_metrics
from gkd.losses.chunked import Sums
from gkd.losses.chunked import loss_over_chunks
from gkd.losses.likelihood import token_log_probs
from gkd.losses.objective import Distillation
from gkd.losses.objective import Objective
from gkd.losses.objective import Scored
from gkd.losses.weighted_sum import Term
from gkd.losses.weighted_sum import WeightedSum
from gkd.metrics import Mean
from gkd.structured_settings import setting
from gkd.types import Array
from gkd.types import Batch
from gkd.types import Source
from gkd.types import UserError

Estimator = Literal["k1", "k2", "k3"]

# d = log q - log p of the drawn token, q the student's with its gradient.
_SURROGATES: dict[str, Callable[[Array, Array], Array]] = {
  "k1": lambda d, log_q: (
    jax.lax.stop_gradient(d) * (1 + log_q - jax.lax.stop_gradient(log_q))
  ),
  "k2": lambda d, log_q: 0.5 * jnp.square(d),
  "k3": lambda d, log_q: jnp.expm1(-d) + d,
}


def rewarded(
  alpha: float, distillation: Distillation, anchor_share: float = 0.0
) -> WeightedSum:
  """(1 - α) · policy + α · distillation: Eq. 5 of GKD, to be minimised.

  Args:
    alpha: α in [0, 1]; 1 is `distillation` alone, which needs no reward, and 0
      the reward alone, which needs no teacher.
    distillation: keeps its own mean over the tokens of a sequence.
    anchor_share: part of α that goes to the role "anchor", the initial student,
      instead of the teacher: 1 is the paper's RLEF*.
  """
  for name, value in (("ALPHA", alpha), ("ANCHOR_SHARE", anchor_share)):
    check_number(name, value, lambda x: 0 <= x <= 1, "a number from 0 to 1")
  anchored = dataclasses.replace(distillation, role="anchor")
  return WeightedSum(
    (
      Term("distillation", alpha * (1 - anchor_share), distillation),
      Term("anchor", alpha * anchor_share, anchored),
      Term("policy", 1 - alpha, Policy(distillation.chunk_size)),
    )
  )


@dataclasses.dataclass(frozen=True)
class Policy(Objective):
  """-A · sum_t log p_S(y_t | y_<t, x), mean over the student's sequences.

  REINFORCE with the advantages A of the batch, constants that `scoring` fills
  in; whatever the reduction, a sequence counts by the sum of its tokens. With
  dropout, log p_S is that of the student in training, which drew without. Text
  that another distribution drew counts as `importance_weight` says.

  Attributes:
    chunk_size: see `Distillation`.
  """

  chunk_size: int | None = setting("CHUNK_SIZE", default=None)

  needs_samples = True
  weighs_samples = True
  needs_advantages = True

  def coefficients(self, batch: Batch, reduction: masks.Reduction) -> Array:
    """A / number of the student's sequences, [B, T]; 0 where none counts."""
    del reduction
    drawn = weights_of_student(batch)
    number = jnp.maximum(jnp.sum(jnp.any(drawn > 0, axis=-1)), 1)
    advantages = batch.advantages
    if advantages.ndim == 1:
      advantages = advantages[:, None]
    return drawn * advantages / number

  def describe(self) -> str:
    return "policy gradient: -advantage · sum of log q(token)"

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Array,
    vocabulary_size: int,
  ) -> Sums:
    """Loss sum(-coefficients * log q); arguments as of `Distillation`."""
    del frozen

    def of_positions(logits: Array, positions: tuple[Array, ...]) -> Sums:
      targets, weights, coefficients, log_probs = positions
      logits = masks.mask_padded_ids(
        logits.astype(jnp.float32), vocabulary_size
      )
      log_q = token_log_probs(student.drawn_from(logits), targets)
      weight, found = importance_weight(log_q, log_probs, coefficients != 0)
      metrics = token_metrics.compare(logits, None, weights, {}) | found
      return token_metrics.reduce(-weight * log_q, coefficients, {}, metrics)

    texts = (batch.targets, batch.weights, coefficients)
    positions = (*texts, batch.log_probs)
    return loss_over_chunks(
      of_positions, student.head, student.hidden, positions, self.chunk_size
    )


@dataclasses.dataclass(frozen=True)
class SampledTokenKL(Objective):
  """KL at each token that the student drew, of that token's two probabilities.

  With d = log q(y_t) - log p(y_t), the weight of ∇log q(y_t) and its mean over
  y_t ~ q, the student:

    k1   d               gradient of the reverse KL, KL(q||p)
    k2   d               the same; its value, d²/2, is what differs
    k3   1 - p/q         gradient of the forward KL, KL(p||q)

  The values are estimates of KL(q||p): d, d²/2 (biased) and p/q - 1 + d.
  Without the stop-gradient on d the teacher would drop out of k1's gradient. k1
  is Thinking Machines' advantage log p - log q. `sampled_kl` in the metrics is
  the mean of d. A token that another distribution drew counts as
  `importance_weight` says.

  Attributes:
    estimator: "k1", "k2" or "k3".
    chunk_size: see `Distillation`.
    role: the frozen model that is p.
  """

  estimator: Estimator = setting("KL_ESTIMATOR", default="k1")
  chunk_size: int | None = setting("CHUNK_SIZE", default=None)
  role: str = "teacher"

  needs_samples = True
  weighs_samples = True

  def __post_init__(self):
    if self.estimator not in get_args(Estimator):
      raise UserError(
        f"KL_ESTIMATOR is {self.estimator!r}; expected one of"
        f" {get_args(Estimator)}"
      )

  @property
  def roles(self) -> tuple[str, ...]:
    return (self.role,)

  def coefficients(self, batch: Batch, reduction: masks.Reduction) -> Array:
    """As of `Distillation`, over the student's own tokens, [B, T]."""
    return masks.coefficients(weights_of_student(batch), reduction)

  def describe(self) -> str:
    return (
      f"sampled-token KL ({self.estimator}) of q = student and"
      f" p = {self.role}, at temperature 1"
    )

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Array,
    vocabulary_size: int,
  ) -> Sums:
    """Loss sum(coefficients * estimate); arguments as of `Distillation`."""
    teacher = frozen[self.role]

    def of_positions(logits: Array, positions: tuple[Array, ...]) -> Sums:
      other, targets, weights, coefficients, log_probs = positions
      both = token_metrics.mask_padded_vocab(
        logits,
        jax.lax.stop_gradient(teacher.head(other)),
        vocabulary_size,
      )
      # What others wrote may hold ids that are never drawn: -inf - -inf.
      log_q, log_p = (
        jnp.where(
          coefficients != 0,
          token_log_probs(student.drawn_from(logits), targets),
          0.0,
        )
        for logits in both
      )
      values = _SURROGATES[self.estimator](log_q - log_p, log_q)
      weight, found = importance_weight(log_q, log_probs, coefficients != 0)
      metrics = token_metrics.compare(*both, weights, {}) | found
      sampled = jax.lax.stop_gradient(log_q - log_p)
      metrics["sampled_kl"] = Mean.of(sampled, coefficients != 0)
      return token_metrics.reduce(weight * values, coefficients, {}, metrics)

    texts = (batch.targets, batch.weights, coefficients)
    positions = (teacher.hidden, *texts, batch.log_probs)
    return loss_over_chunks(
      of_positions, student.head, student.hidden, positions, self.chunk_size
    )


def importance_weight(
  log_q: Array, log_probs: Array | None, counts: Array
) -> tuple[Array | float, dict[str, Mean]]:
  """sg(q(y_t) / m(y_t)) [B, T] of tokens that m drew, and its mean.

  The exact weight is the product over the tokens up to t: one for each token
  has less variance, and its bias is small where m is near q, as PPO has it.

  Args:
    log_q: [B, T] log q(y_t), q the student's.
    log_probs: [B, T] log m(y_t), see `Batch`; None where q itself drew: 1.
    counts: [B, T], where a token counts; elsewhere the weight is 1.
  """
  if log_probs is None:
    return 1.0, {}
  log_ratio = jnp.where(counts, jax.lax.stop_gradient(log_q) - log_probs, 0.0)
  weight = jnp.exp(log_ratio)
  return weight, {"importance_weight": Mean.of(weight, counts)}


def weights_of_student(batch: Batch) -> Array:
  """Weights [B, T] of the tokens that the student drew, 0 for the others."""
  own = batch.source == Source.STUDENT
  return batch.weights.astype(jnp.float32) * own[:, None]
