"""MiniLLM: the gradient of the sequence-level reverse KL, KL(q||p).

Gu et al. (arXiv 2306.08543), section 2.2. With y drawn from m, and with

  r_t = log p(y_t) - log q(y_t),    w_t = q(y_t) / m(y_t),

the gradient (Eq. 7) is minus the mean of

  sum_t w_t · ∇ E_{v ~ q(.|y_<t)}[log p(v) - log q(v)]        single step, exact
        + w_t · R_{t+1} · ∇ log q(y_t)                              long term

R_{t+1} is the mean of r over the tokens after t, so that longer text is not
favoured, or their sum. w_t stands for the product over all tokens up to t, as
in the paper. The expectation is the exact gradient only where R is the sum, the
reduction "sum" and m the student itself. What is left out is the paper's
cross-entropy on pre-training text, for which a run has no second data set, and
the whitening and discount of the returns in the authors' code.

  objective = MiniLLM(ratio_clip=0.2, chunk_size=128)
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp

from gkd import masks
from gkd.errors import check_number
from gkd.losses import divergence
from gkd.losses import token_metrics
from gkd.losses.chunked import Sums
from gkd.losses.chunked import map_chunks
from gkd.losses.likelihood import token_log_probs
from gkd.losses.objective import Objective
from gkd.losses.objective import Scored
from gkd.losses.policy import weights_of_student
from gkd.metrics import Mean
from gkd.structured_settings import setting
from gkd.types import Array
from gkd.types import Batch


@dataclasses.dataclass(frozen=True)
class MiniLLM(Objective):
  """sg(w) · KL(q||p) - w · sg(R) at each token, w = q/m of that token.

  Learns from rows that the student wrote, alone or by a `Rollout.proposal` m,
  of which `Batch.log_probs` has log m(y_t); without them w is 1.

  Attributes:
    length_normalised: R is the mean over the tokens after t; else the sum.
    ratio_clip: ε of PPO: a token's long-term part is min(w R, clip(w) R), w
      clipped to 1 ± ε; None for no clipping. The paper: 0.2.
    chunk_size: see `Distillation`.
    role: the frozen model that is p.
  """

  length_normalised: bool = setting("LENGTH_NORMALISED", default=True)
  ratio_clip: float | None = setting("RATIO_CLIP", default=0.2)
  chunk_size: int | None = setting("CHUNK_SIZE", default=None)
  role: str = "teacher"

  needs_samples = True
  weighs_samples = True

  def __post_init__(self):
    if self.ratio_clip is not None:
      check_number(
        "RATIO_CLIP",
        self.ratio_clip,
        lambda clip: 0 < clip < 1,
        "a number between 0 and 1, such as 0.2, or None",
      )

  @property
  def roles(self) -> tuple[str, ...]:
    return (self.role,)

  def coefficients(self, batch: Batch, reduction: masks.Reduction) -> Array:
    """As of `Distillation`, over the student's own tokens, [B, T]."""
    return masks.coefficients(weights_of_student(batch), reduction)

  def describe(self) -> str:
    returns = "mean" if self.length_normalised else "sum"
    clip = self.ratio_clip
    clipped = "" if clip is None else f", ratios clipped to 1 ± {clip:g}"
    return (
      f"MiniLLM: reverse KL of sequences, q = student, p = {self.role}; single"
      f" step and {returns} of what follows{clipped}"
    )

  def __call__(
    self,
    student: Scored,
    frozen: Mapping[str, Scored],
    batch: Batch,
    coefficients: Array,
    vocabulary_size: int,
  ) -> Sums:
    """Loss sum(coefficients * value); arguments as of `Distillation`."""
    teacher = frozen[self.role]

    def of_positions(positions: tuple[Array, ...]):
      own, other, targets, weights = positions
      both = token_metrics.mask_padded_vocab(
        student.head(own),
        jax.lax.stop_gradient(teacher.head(other)),
        vocabulary_size,
      )
      drawn = [student.drawn_from(logits) for logits in both]
      log_q, log_p = (jax.nn.log_softmax(logits) for logits in drawn)
      sampled = (token_log_probs(logits, targets) for logits in drawn)
      values = (divergence.reverse_kl(log_p, log_q), *sampled)
      return values, token_metrics.compare(*both, weights, {})

    positions = (student.hidden, teacher.hidden, batch.targets, batch.weights)
    values, metrics = map_chunks(of_positions, positions, self.chunk_size)
    single, log_q, log_p = values
    counts = coefficients != 0
    held = jax.lax.stop_gradient(log_q)
    drawn_from = held if batch.log_probs is None else batch.log_probs
    ratio = jnp.exp(jnp.where(counts, log_q - drawn_from, 0.0))
    returns = self._returns(log_p - held, counts)
    long_term = ratio * returns
    if self.ratio_clip is not None:
      clipped = jnp.clip(ratio, 1 - self.ratio_clip, 1 + self.ratio_clip)
      long_term = jnp.minimum(long_term, clipped * returns)
    weight = jax.lax.stop_gradient(ratio)
    metrics["sampled_kl"] = Mean.of(held - log_p, counts)
    metrics["importance_weight"] = Mean.of(weight, counts)
    values = weight * single - long_term
    return token_metrics.reduce(values, coefficients, {}, metrics)

  def _returns(self, log_ratios: Array, counts: Array) -> Array:
    """R_{t+1} [B, T]: of log p - log q [B, T], over the tokens after t."""
    ratios = jnp.where(counts, log_ratios, 0.0)
    later = jax.lax.cumsum(ratios, axis=1, reverse=True) - ratios
    if not self.length_normalised:
      return later
    number = jax.lax.cumsum(counts.astype(jnp.float32), axis=1, reverse=True)
    return later / jnp.maximum(number - counts, 1.0)
