"""The alpha-beta divergence, between forward KL (1, 0) and reverse KL (0, 1).

Source: Wang et al., ABKD, ICML 2025 (arXiv 2505.04560), whose limits at 0 are
those of Cichocki, Cruces and Amari, Entropy 13 (2011). ABKD's code lacks a
factor 1/alpha or 1/beta in three of them.
"""

import dataclasses

import jax.numpy as jnp

from gkd.errors import check_number
from gkd.losses.divergence import not_negative
from gkd.types import Array
from gkd.types import UserError


@dataclasses.dataclass(frozen=True)
class AlphaBeta:
  """D(alpha, beta) of the powers of p and q, see `__call__`.

  Attributes:
    alpha: of the teacher; more of it lets the student cover more.
    beta: of the student; more of it trusts the student's own modes.
  """

  alpha: float
  beta: float

  def __post_init__(self):
    for name in ("alpha", "beta"):
      check_number(
        f"AlphaBeta.{name}",
        getattr(self, name),
        lambda x: abs(x) < float("inf"),
        "a finite number, such as 0.8 for alpha and 0.3 for beta",
      )
    if max(self.alpha, self.beta) <= 0 and (self.alpha or self.beta):
      raise UserError(
        f"AlphaBeta has alpha {self.alpha:g} and beta {self.beta:g}; expected"
        " one of them above 0, or both 0"
      )

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    """-1/(ab) sum_v p^a q^b - a/(a+b) p^(a+b) - b/(a+b) q^(a+b).

    With d_k = (p^k - q^k) / k, and d_0 = log(p/q), that is
      1/a sum_v p^a d_b - d_(a+b),
    which is also the limit at b = 0 and at a + b = 0. D(a, b) from p to q is
    D(b, a) from q to p, so the larger one can stand in the denominator.
    The gradient with respect to log q_v is (q^(a+b) - p^a q^b) / a.
    """
    log_p, log_q = log_p.astype(jnp.float32), log_q.astype(jnp.float32)
    absent = jnp.isneginf(log_p) & jnp.isneginf(log_q)
    log_p, log_q = (jnp.where(absent, 0.0, x) for x in (log_p, log_q))
    if self.alpha == self.beta == 0:
      return 0.5 * jnp.sum(jnp.square(log_p - log_q), axis=-1)
    a, b = self.alpha, self.beta
    if a < b:
      a, b, log_p, log_q = b, a, log_q, log_p
    # Where p is 0 so is the product, also where d_0 is not finite.
    given = jnp.where(jnp.isneginf(log_p), 0.0, log_p)
    other = jnp.where(jnp.isneginf(log_p), 0.0, log_q)
    terms = jnp.exp(a * log_p) * _difference(given, other, b)
    terms -= _difference(log_p, log_q, a + b)
    return not_negative(jnp.sum(terms, axis=-1) / a)

  def describe(self) -> str:
    return (
      f"alpha-beta divergence, alpha = {self.alpha:g}, beta = {self.beta:g}"
    )


def _difference(log_p: Array, log_q: Array, k: float) -> Array:
  """(p^k - q^k) / k to full precision for small k; log(p/q) at k = 0."""
  ratio = log_p - log_q
  if k == 0:
    return ratio
  # From the larger of the two, so that nothing overflows for k > 0.
  up = ratio > 0
  from_q = jnp.exp(k * log_q) * jnp.expm1(k * jnp.where(up, 0.0, ratio))
  from_p = jnp.exp(k * log_p) * -jnp.expm1(-k * jnp.where(up, ratio, 0.0))
  return jnp.where(up, from_p, from_q) / k
