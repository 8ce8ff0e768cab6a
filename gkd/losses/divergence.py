"""Divergences between the next-token distributions of teacher and student.

One copy of each equation, in log space and float32. `log_p` is the teacher,
`log_q` the student: log-probabilities [..., V], normalised over V. Results are
[...] in nats and never negative. Gradients are meant with respect to logits,
through `jax.nn.log_softmax`; ids that are -inf on both sides get gradient 0.

No temperature, mask or reduction here: see objective.py and masks.py. A new
divergence is a new file with a frozen dataclass like those at the end.

  log_p = jax.nn.log_softmax(teacher_logits)
  log_q = jax.nn.log_softmax(student_logits)
  values = generalized_jsd(log_p, log_q, beta=0.5)

Source: Agarwal et al., On-Policy Distillation of Language Models, ICLR 2024
(arXiv 2306.13649), Sections 2 and 3.
"""

import dataclasses
import numbers
from typing import Protocol

import jax
import jax.numpy as jnp

from gkd.errors import check_number
from gkd.types import Array


def forward_kl(log_p: Array, log_q: Array) -> Array:
  """KL(p||q) = sum_v p log(p/q): the student must cover the teacher.

  The gradient with respect to student logit j is q_j - p_j.

  Args:
    log_p: [..., V] teacher log-probabilities.
    log_q: [..., V] student log-probabilities.

  Returns:
    [...] float32 nats; +inf only where some p > 0 and q = 0.

  >>> half = jnp.log(jnp.array([0.5, 0.5]))
  >>> print(f"{forward_kl(jnp.array([0.0, -jnp.inf]), half):.4f}")
  0.6931
  """
  return _kl(log_p, log_q)


def reverse_kl(log_p: Array, log_q: Array) -> Array:
  """KL(q||p) = sum_v q log(q/p): the student seeks the teacher's modes.

  The gradient with respect to student logit j is
  q_j (log(q_j/p_j) - KL(q||p)).

  Args:
    log_p: [..., V] teacher log-probabilities.
    log_q: [..., V] student log-probabilities.

  Returns:
    [...] float32 nats; +inf only where some q > 0 and p = 0.

  >>> half = jnp.log(jnp.array([0.5, 0.5]))
  >>> print(f"{reverse_kl(half, jnp.array([0.0, -jnp.inf])):.4f}")
  0.6931
  """
  return _kl(log_q, log_p)


def generalized_jsd(log_p: Array, log_q: Array, beta: float | Array) -> Array:
  """JSD(beta) = beta KL(p||m) + (1-beta) KL(q||m), m = beta p + (1-beta) q.

  Eq. 1 of the GKD paper: beta is on the teacher, in the weight and in the
  mixture. The raw value tends to 0 at both ends (JSD(beta)/beta -> KL(p||q) as
  beta -> 0), so beta 0 and 1 are defined as the forward and the reverse KL.
  The gradient with respect to student logit j is
  (1-beta) q_j (log(q_j/m_j) - KL(q||m)).

  Args:
    log_p: [..., V] teacher log-probabilities.
    log_q: [..., V] student log-probabilities.
    beta: in [0, 1]; a Python number, or a traced scalar (three times the work).

  Returns:
    [...] float32 nats, at most H(beta) for 0 < beta < 1.

  >>> one, two = jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
  >>> print(f"{generalized_jsd(one, two, 0.1):.4f}")
  0.3251
  """
  if isinstance(beta, numbers.Real):
    if beta == 0:
      return forward_kl(log_p, log_q)
    if beta == 1:
      return reverse_kl(log_p, log_q)
    return _interior_jsd(log_p, log_q, beta)
  # A branch that is not selected still gets a cotangent of 0, and 0 * inf is
  # NaN: so it is fed two equal distributions.
  forward = forward_kl(log_p, jnp.where(beta == 0, log_q, log_p))
  reverse = reverse_kl(jnp.where(beta == 1, log_p, log_q), log_q)
  interior = _interior_jsd(log_p, log_q, beta)
  return jnp.where(beta == 0, forward, jnp.where(beta == 1, reverse, interior))


def total_variation(log_p: Array, log_q: Array) -> Array:
  """TV(p, q) = 1/2 sum_v |p - q|, in [0, 1] (f-distill's divergence).

  The gradient with respect to student logit j is
  1/2 q_j (s_j - sum_i q_i s_i) with s = sign(q - p).

  Args:
    log_p: [..., V] teacher log-probabilities.
    log_q: [..., V] student log-probabilities.

  Returns:
    [...] float32.

  >>> half = jnp.log(jnp.array([0.5, 0.5]))
  >>> print(f"{total_variation(half, jnp.array([0.0, -jnp.inf])):.4f}")
  0.5000
  """
  p = jnp.exp(log_p.astype(jnp.float32))
  q = jnp.exp(log_q.astype(jnp.float32))
  return 0.5 * jnp.sum(jnp.abs(p - q), axis=-1)


def log_mixture(log_p: Array, log_q: Array, alpha: float | Array) -> Array:
  """log(alpha p + (1-alpha) q), for divergences from or to a mixture.

  An id that is -inf on both sides stays -inf, with gradient 0: `forward_kl` and
  `reverse_kl` take such a mixture as it is.

  Args:
    log_p: [..., V] log-probabilities.
    log_q: [..., V] log-probabilities.
    alpha: weight of p, in [0, 1].

  Returns:
    [..., V] float32 log-probabilities.

  >>> one, two = jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
  >>> print(jnp.exp(log_mixture(one, two, 0.25)))
  [0.25 0.75]
  """
  log_p = log_p.astype(jnp.float32) + jnp.log(jnp.float32(alpha))
  log_q = log_q.astype(jnp.float32) + jnp.log1p(-jnp.float32(alpha))
  absent = jnp.isneginf(log_p) & jnp.isneginf(log_q)
  # Inside as well as outside: the gradient of logaddexp(-inf, -inf) is NaN.
  mixed = jnp.logaddexp(
    jnp.where(absent, 0.0, log_p), jnp.where(absent, 0.0, log_q)
  )
  return jnp.where(absent, -jnp.inf, mixed)


def entropy(log_p: Array) -> Array:
  """H(p) = -sum_v p log p, [..., V] -> [...] float32 nats."""
  log_p = log_p.astype(jnp.float32)
  p = jnp.exp(log_p)
  return -jnp.sum(p * jnp.where(p > 0, log_p, 0.0), axis=-1)


class Divergence(Protocol):
  """What an objective needs: a function of (log_p, log_q) and its formula."""

  def __call__(self, log_p: Array, log_q: Array) -> Array: ...

  def describe(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class ForwardKL:
  """KL(teacher||student), see `forward_kl`."""

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return forward_kl(log_p, log_q)

  def describe(self) -> str:
    return "forward KL, sum_v p log(p/q)"


@dataclasses.dataclass(frozen=True)
class ReverseKL:
  """KL(student||teacher), see `reverse_kl`."""

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return reverse_kl(log_p, log_q)

  def describe(self) -> str:
    return "reverse KL, sum_v q log(q/p)"


@dataclasses.dataclass(frozen=True)
class GeneralizedJSD:
  """JSD(beta), see `generalized_jsd`; beta weighs the teacher."""

  beta: float

  def __post_init__(self):
    check_number(
      "GeneralizedJSD.beta",
      self.beta,
      lambda beta: 0 <= beta <= 1,
      "a number from 0 (forward KL) to 1 (reverse KL), such as 0.5",
    )

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return generalized_jsd(log_p, log_q, self.beta)

  def describe(self) -> str:
    if self.beta == 0:
      return f"generalized JSD at beta 0 = {ForwardKL().describe()}"
    if self.beta == 1:
      return f"generalized JSD at beta 1 = {ReverseKL().describe()}"
    return (
      f"generalized JSD, beta KL(p||m) + (1-beta) KL(q||m), "
      f"m = beta p + (1-beta) q, beta = {self.beta:g}"
    )


@dataclasses.dataclass(frozen=True)
class TotalVariation:
  """Total variation distance, see `total_variation`."""

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return total_variation(log_p, log_q)

  def describe(self) -> str:
    return "total variation, 1/2 sum_v |p - q|"


def _kl(log_w: Array, log_r: Array) -> Array:
  """sum_v w log(w/r) over the entries with w > 0."""
  log_w = log_w.astype(jnp.float32)
  log_r = log_r.astype(jnp.float32)
  w = jnp.exp(log_w)
  # The ratio is masked before the product: masking the product would leave
  # 0 * inf in the gradient of w.
  ratio = jnp.where(w > 0, log_w - log_r, 0.0)
  return not_negative(jnp.sum(w * ratio, axis=-1))


# Where a/c exceeds e^40 the rarer side weighs less than 1e-17, far below
# float32's resolution of the sum, and exp stays far from overflow.
_MAX_LOG_RATIO = 40.0


def _interior_jsd(log_p: Array, log_q: Array, beta: float | Array) -> Array:
  """JSD(beta) for 0 < beta < 1; finite at the ends.

  With b <= 1/2 the smaller of the two weights, a the distribution that has it
  and c the other one, m = b a + (1-b) c gives
    log(m/c) = log1p(b (a/c - 1)),  log(m/a) = log(m/c) - log(a/c).
  Unlike logaddexp this keeps full relative precision as b -> 0, where the
  value and the gradient are themselves of order b.
  """
  swap = beta > 0.5
  # 1 - beta of a Python number is taken in float64, before rounding.
  b = jnp.where(swap, 1.0 - beta, beta).astype(jnp.float32)
  log_p = log_p.astype(jnp.float32)
  log_q = log_q.astype(jnp.float32)
  log_a = jnp.where(swap, log_q, log_p)
  log_c = jnp.where(swap, log_p, log_q)
  a, c = jnp.exp(log_a), jnp.exp(log_c)
  # Both -inf would be NaN; their weights are 0, any finite ratio will do.
  absent = jnp.isneginf(log_a) & jnp.isneginf(log_c)
  log_ratio = jnp.where(absent, 0.0, log_a - log_c)
  log_ratio = jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  log_m_over_c = jnp.log1p(b * jnp.expm1(log_ratio))
  log_m_over_a = log_m_over_c - log_ratio
  return not_negative(
    -jnp.sum(b * a * log_m_over_a + (1 - b) * c * log_m_over_c, axis=-1)
  )


def not_negative(value: Array) -> Array:
  """Lifts rounding below 0 to 0; unlike a maximum it keeps the gradient."""
  return value + jax.lax.stop_gradient(jnp.where(value < 0, -value, 0.0))
