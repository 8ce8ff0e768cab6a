"""Adaptive KL: forward or reverse KL, as head or tail of the teacher are off.

Source: Wu et al., Rethinking Kullback-Leibler Divergence in Knowledge
Distillation for Large Language Models, COLING 2025 (arXiv 2404.02657).
"""

import dataclasses

import jax
import jax.numpy as jnp

from gkd.errors import check_number
from gkd.losses.divergence import forward_kl
from gkd.losses.divergence import reverse_kl
from gkd.types import Array


@dataclasses.dataclass(frozen=True)
class AdaptiveKL:
  """(g_head KL(p||q) + g_tail KL(q||p)) / (g_head + g_tail), g = sum |p - q|.

  The head is the most probable ids of the teacher as long as they have at most
  `head_mass` together, the first one in any case, and ids as probable as its
  last one. No gradient flows through g, as in the authors' code.
  """

  head_mass: float = 0.5

  def __post_init__(self):
    check_number(
      "AdaptiveKL.head_mass",
      self.head_mass,
      lambda mass: 0 < mass < 1,
      "a number between 0 and 1, such as 0.5",
    )

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    p, q = (jnp.exp(x.astype(jnp.float32)) for x in (log_p, log_q))
    p, q = jax.lax.stop_gradient((p, q))
    falling = jnp.flip(jnp.sort(p, axis=-1), axis=-1)
    within = jnp.cumsum(falling, axis=-1) <= self.head_mass
    size = jnp.maximum(jnp.sum(within, axis=-1, keepdims=True), 1)
    last = jnp.take_along_axis(falling, size - 1, axis=-1)
    gap = jnp.abs(p - q)
    total = jnp.sum(gap, axis=-1)
    head = jnp.sum(jnp.where(p >= last, gap, 0.0), axis=-1)
    share = jnp.where(total > 0, head / jnp.where(total > 0, total, 1.0), 0.5)
    forward, reverse = forward_kl(log_p, log_q), reverse_kl(log_p, log_q)
    return share * forward + (1 - share) * reverse

  def describe(self) -> str:
    return (
      "adaptive KL, forward KL by the share of |p - q| in the teacher's head of"
      f" mass {self.head_mass:g}, reverse KL by the rest"
    )
