"""Skew KL divergences: KL to a mixture that has a little of the other model.

Bounded by -log alpha, unlike the KLs, which they tend to as alpha goes to 0.

Source: Ko et al., DistiLLM, ICML 2024 (arXiv 2402.03898).
"""

import dataclasses

from gkd.errors import check_number
from gkd.losses.divergence import forward_kl
from gkd.losses.divergence import log_mixture
from gkd.types import Array


@dataclasses.dataclass(frozen=True)
class SkewKL:
  """KL(p || alpha p + (1-alpha) q); alpha is on the teacher."""

  alpha: float = 0.1

  def __post_init__(self):
    _check(self)

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return forward_kl(log_p, log_mixture(log_p, log_q, self.alpha))

  def describe(self) -> str:
    return f"skew KL, KL(p||alpha p + (1-alpha) q), alpha = {self.alpha:g}"


@dataclasses.dataclass(frozen=True)
class SkewReverseKL:
  """KL(q || (1-alpha) p + alpha q); alpha is on the student."""

  alpha: float = 0.1

  def __post_init__(self):
    _check(self)

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    return forward_kl(log_q, log_mixture(log_q, log_p, self.alpha))

  def describe(self) -> str:
    return (
      f"skew reverse KL, KL(q||(1-alpha) p + alpha q), alpha = {self.alpha:g}"
    )


def _check(record: SkewKL | SkewReverseKL) -> None:
  check_number(
    f"{type(record).__name__}.alpha",
    record.alpha,
    lambda alpha: 0 <= alpha < 1,
    "a number from 0 (the plain KL) to below 1, such as 0.1",
  )
