"""Reverse KL, and forward KL beside it where the teacher is uncertain.

Source: Jin et al., Entropy-Aware On-Policy Distillation of Language Models,
ICML 2026 (arXiv 2603.07079). The authors' forward KL runs over the teacher's
top k and their reverse KL is the sampled one; here both are exact, and nothing
was compared with their code in numbers.
"""

import dataclasses

import jax.numpy as jnp

from gkd.errors import check_number
from gkd.losses import divergence
from gkd.types import Array


@dataclasses.dataclass(frozen=True)
class EntropyAware:
  """KL(q||p) + [H(p) > threshold] KL(p||q).

  Attributes:
    threshold: entropy of the teacher in nats.
  """

  threshold: float = 0.8

  def __post_init__(self):
    check_number(
      "EntropyAware.threshold",
      self.threshold,
      lambda threshold: 0 <= threshold < float("inf"),
      "an entropy in nats from 0 up, such as 0.8",
    )

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    uncertain = divergence.entropy(log_p) > self.threshold
    # Not where(uncertain, forward, 0): 0 * inf would be NaN in the gradient.
    wanted = jnp.where(uncertain[..., None], log_q, log_p)
    forward = divergence.forward_kl(log_p, wanted)
    return divergence.reverse_kl(log_p, log_q) + forward

  def describe(self) -> str:
    return (
      "reverse KL, plus forward KL where the teacher's entropy is above"
      f" {self.threshold:g} nats"
    )
