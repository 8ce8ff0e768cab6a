"""A divergence over the teacher's k most probable ids and one for the rest.

What a server of teacher log-probabilities can give. The rest is a bucket with
its full mass on both sides, so the value is never negative, never above that of
the whole vocabulary (data-processing inequality), and equal to it at k = V.
Sums over the top k alone go below 0 and leave the rest free.
"""

import dataclasses
import numbers

import jax
import jax.numpy as jnp

from gkd.errors import check_number
from gkd.losses.divergence import Divergence
from gkd.types import Array


@dataclasses.dataclass(frozen=True)
class TopK:
  """`divergence` of k + 1 probabilities.

  Attributes:
    k: number of ids; among equally probable ones the lower ids count.
    divergence: such as ForwardKL() or ReverseKL().
  """

  k: int
  divergence: Divergence

  def __post_init__(self):
    check_number(
      "TopK.k",
      self.k,
      lambda k: k >= 1,
      "a whole number of ids from 1 up, such as 32",
      numbers.Integral,
    )

  def __call__(self, log_p: Array, log_q: Array) -> Array:
    log_p, log_q = log_p.astype(jnp.float32), log_q.astype(jnp.float32)
    k = min(self.k, log_p.shape[-1])
    last = jax.lax.top_k(log_p, k)[0][..., -1:]
    # A mask, not the ids: the gradient of a gather is a scatter.
    above, equal = log_p > last, log_p == last
    free = k - jnp.sum(above, axis=-1, keepdims=True)
    top = above | (equal & (jnp.cumsum(equal, axis=-1) <= free))
    return self.divergence(_buckets(log_p, top), _buckets(log_q, top))

  def describe(self) -> str:
    return (
      f"{self.divergence.describe()}, over the teacher's top {self.k} and a"
      " bucket for the rest"
    )


def _buckets(log_w: Array, top: Array) -> Array:
  """[..., V + 1]: the ids of `top`, -inf for others, and the sum of those."""
  rest = jnp.where(top, -jnp.inf, log_w)
  none = jnp.all(jnp.isneginf(rest), axis=-1, keepdims=True)
  # The gradient of logsumexp is NaN where all is -inf.
  mass = jax.nn.logsumexp(jnp.where(none, 0.0, rest), axis=-1, keepdims=True)
  mass = jnp.where(none, -jnp.inf, mass)
  return jnp.concatenate([jnp.where(top, log_w, -jnp.inf), mass], axis=-1)
