"""ToDi: forward and reverse KL mixed anew for each id of the vocabulary.

Source: Jung et al., ToDi: Token-wise Distillation via Fine-Grained Divergence
Control, EMNLP 2025 (arXiv 2505.16297); the weight is detached in its code.
"""

import dataclasses

import jax
import jax.numpy as jnp

from gkd.losses.divergence import not_negative
from gkd.types import Array


@dataclasses.dataclass(frozen=True)
class ToDi:
  """sum_v w p log(p/q) + (1-w) q log(q/p), w = sigmoid(log p/q) = p/(p+q).

  No gradient flows through w, so that the gradient is not that of the value,
  which is KL(p||q) + KL(q||p) as w p - (1-w) q = p - q.
  """

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    log_p, log_q = log_p.astype(jnp.float32), log_q.astype(jnp.float32)
    absent = jnp.isneginf(log_p) & jnp.isneginf(log_q)
    log_p, log_q = (jnp.where(absent, 0.0, x) for x in (log_p, log_q))
    ratio = log_p - log_q
    weight = jax.lax.stop_gradient(jax.nn.sigmoid(ratio))
    other = jax.lax.stop_gradient(jax.nn.sigmoid(-ratio))
    terms = (weight * jnp.exp(log_p) - other * jnp.exp(log_q)) * ratio
    return not_negative(jnp.sum(jnp.where(absent, 0.0, terms), axis=-1))

  def describe(self) -> str:
    return "ToDi, sum_v w p log(p/q) + (1-w) q log(q/p), w = p/(p+q)"
