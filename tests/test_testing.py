"""What `check_divergence` finds in divergences as they are often written."""

import jax
import jax.numpy as jnp
import pytest

from gkd.losses.divergence import forward_kl
from gkd.losses.divergence import log_mixture
from gkd.testing import check_divergence


def textbook_skew_kl(log_p, log_q):
  mixed = jnp.log(0.1 * jnp.exp(log_p) + 0.9 * jnp.exp(log_q))
  return jnp.sum(jnp.exp(log_p) * (log_p - mixed), axis=-1)


def outside_only(log_p, log_q):
  terms = jnp.exp(log_q) * (log_q - log_p)
  return jnp.sum(jnp.where(jnp.isnan(terms), 0.0, terms), axis=-1)


def top_2_alone(log_p, log_q):
  top, ids = jax.lax.top_k(log_p, 2)
  other = jnp.take_along_axis(log_q, ids, axis=-1)
  return jnp.sum(jnp.exp(top) * (top - other), axis=-1)


def detached(log_p, log_q):
  return forward_kl(log_p, log_q) * jax.lax.stop_gradient(
    forward_kl(log_p, log_q)
  )


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    (textbook_skew_kl, "with padded ids the value is .*nan.*log_mixture"),
    (outside_only, "its gradient is not; guard .* inside as well as outside"),
    (top_2_alone, "below 0; look at the order of the arguments, and sum over"),
    (lambda p, q: forward_kl(p, q)[0], r"values \(\), expected \(16,\)"),
    (lambda p, q: forward_kl(p, q) + 1, "not 0 for equal models"),
    (lambda p, q: forward_kl(p, q) * p.shape[-1], "padded ids change the val"),
    (detached, "the gradient is not that of the value.*finite_differences"),
  ],
)
def test_a_wrong_divergence_is_told_what_to_do(wrong, message):
  with pytest.raises(AssertionError, match=f"(?s){message}"):
    check_divergence(wrong)


def test_a_skew_kl_by_log_mixture_passes():
  check_divergence(lambda p, q: forward_kl(p, log_mixture(p, q, 0.1)))
