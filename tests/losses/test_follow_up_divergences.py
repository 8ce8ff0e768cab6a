"""Divergences after GKD against float64 NumPy, padded ids included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses import divergence
from gkd.losses.adaptive_kl import AdaptiveKL
from gkd.losses.alpha_beta import AlphaBeta
from gkd.losses.entropy_aware import EntropyAware
from gkd.losses.skew import SkewKL
from gkd.losses.skew import SkewReverseKL
from gkd.losses.todi import ToDi
from gkd.losses.top_k import TopK
from gkd.testing import check_divergence
from gkd.types import UserError
from tests.losses.test_divergence import numpy_kl
from tests.losses.test_divergence import of_logits
from tests.losses.test_divergence import pairs
from tests.tiny import log_softmax

REAL = 33  # ids of `pairs` that are not padded
FORWARD, REVERSE = divergence.ForwardKL(), divergence.ReverseKL()


def numpy_skew(log_p, log_q, _):
  return numpy_kl(log_p, np.log(0.1 * np.exp(log_p) + 0.9 * np.exp(log_q)))


def numpy_alpha_beta(a, b):
  """The formula of each case, as Cichocki et al. write it."""

  def value(log_p, log_q, _):
    pa, qa = np.exp(a * log_p), np.exp(a * log_q)
    pb, qb = np.exp(b * log_p), np.exp(b * log_q)
    if a == b == 0:
      terms = 0.5 * (log_p - log_q) ** 2
    elif b == 0:
      terms = (pa * np.log(pa / qa) - pa + qa) / a**2
    elif a == 0:
      terms = (qb * np.log(qb / pb) - qb + pb) / b**2
    elif a + b == 0:
      terms = (np.log(qa / pa) + pa / qa - 1) / a**2
    else:
      rest = (a * pa * pb + b * qa * qb) / (a + b)
      terms = -(pa * qb - rest) / (a * b)
    return terms.sum(axis=-1)

  return value


def numpy_adaptive(log_p, log_q, held):
  order = np.argsort(-log_p, axis=-1)
  p, q = (np.take_along_axis(np.exp(x), order, axis=-1) for x in (log_p, held))
  head = np.cumsum(p, axis=-1) <= 0.5
  head[:, 0] = True
  share = (abs(p - q) * head).sum(-1) / abs(p - q).sum(-1)
  return share * numpy_kl(log_p, log_q) + (1 - share) * numpy_kl(log_q, log_p)


def numpy_todi(log_p, log_q, held):
  w = 1 / (1 + np.exp(held - log_p))
  terms = w * np.exp(log_p) * (log_p - log_q)
  terms += (1 - w) * np.exp(log_q) * (log_q - log_p)
  return terms.sum(axis=-1)


def numpy_entropy_aware(log_p, log_q, _):
  uncertain = -(np.exp(log_p) * log_p).sum(axis=-1) > 1.5
  assert 0.2 < uncertain.mean() < 0.8
  return numpy_kl(log_q, log_p) + uncertain * numpy_kl(log_p, log_q)


def numpy_top_5(log_p, log_q, reverse):
  ids = np.argsort(-log_p, axis=-1)

  def buckets(x):
    x = np.take_along_axis(np.exp(x), ids, axis=-1)
    rest = x[:, 5:].sum(axis=-1, keepdims=True)
    return np.log(np.concatenate([x[:, :5], rest], axis=-1))

  log_p, log_q = buckets(log_p), buckets(log_q)
  return numpy_kl(log_q, log_p) if reverse else numpy_kl(log_p, log_q)


# (divergence, of float64 (log_p, log_q, log_q where no gradient flows)).
CASES = {
  "skew": (SkewKL(), numpy_skew),
  "skew_reverse": (SkewReverseKL(), lambda p, q, _: numpy_skew(q, p, _)),
  "adaptive": (AdaptiveKL(), numpy_adaptive),
  "todi": (ToDi(), numpy_todi),
  "entropy_aware": (EntropyAware(1.5), numpy_entropy_aware),
  "top_5": (TopK(5, FORWARD), lambda p, q, _: numpy_top_5(p, q, False)),
  "top_5_reverse": (TopK(5, REVERSE), lambda p, q, _: numpy_top_5(p, q, True)),
} | {
  f"alpha_beta_{a}_{b}": (AlphaBeta(a, b), numpy_alpha_beta(a, b))
  for a, b in [
    (0.8, 0.3), (0.2, 0.9), (0.5, 0), (0, 0.5), (0.5, -0.5), (-0.3, 0.3),
    (0, 0), (0.8, 1e-5), (0.4, -0.39999),
  ]
}  # fmt: skip
DETACHED = {"adaptive", "todi"}
# Powers of p/q, which at extreme logits are beyond float32.
RATIOS = {f"alpha_beta_{x}" for x in ("0.5_-0.5", "-0.3_0.3", "0.4_-0.39999")}
cases = pytest.mark.parametrize("case", CASES)


@cases
def test_value_and_gradient_equal_float64_and_padded_ids_are_left_out(case):
  function, reference = CASES[case]
  teacher, student = pairs(masked=True)
  (_, values), gradients = of_logits(function)(student, teacher)
  assert (np.asarray(gradients)[:, REAL:] == 0).all()
  logits = student[:, :REAL].astype(np.float64)
  log_p, held = log_softmax(teacher[:, :REAL]), log_softmax(logits)
  np.testing.assert_allclose(
    values, reference(log_p, held, held), rtol=1e-4, atol=1e-5
  )
  step, atol = 1e-5, 2e-5 + 1e-6 * np.abs(gradients).max()
  for j in range(REAL):
    shift = step * np.eye(REAL)[j]
    up, down = (
      reference(log_p, log_softmax(logits + x), held) for x in (shift, -shift)
    )
    np.testing.assert_allclose(
      gradients[:, j], (up - down) / (2 * step), rtol=1e-3, atol=atol
    )


@pytest.mark.parametrize("case", sorted(CASES.keys() - RATIOS))
def test_training_may_rely_on_it(case):
  check_divergence(CASES[case][0], finite_differences=case not in DETACHED)


@pytest.mark.parametrize(
  ("one", "other"),
  [
    (SkewKL(0), FORWARD),
    (SkewReverseKL(0), REVERSE),
    (SkewKL(1e-7), FORWARD),
    (SkewReverseKL(1e-7), REVERSE),
    (AlphaBeta(1, 0), FORWARD),
    (AlphaBeta(0, 1), REVERSE),
    (AlphaBeta(1, 1e-7), FORWARD),
    (AlphaBeta(1e-7, 1), REVERSE),
    (TopK(40, FORWARD), FORWARD),
    (TopK(50, REVERSE), REVERSE),
    (EntropyAware(9), REVERSE),
    (EntropyAware(0), ToDi()),  # both have the value KL(p||q) + KL(q||p)
  ],
  ids=str,
)
def test_limits_are_the_divergences_they_tend_to(one, other):
  teacher, student = map(jax.nn.log_softmax, pairs(masked=True, scale=1.0))
  np.testing.assert_allclose(
    one(teacher, student), other(teacher, student), rtol=1e-4, atol=1e-6
  )


def test_top_k_takes_k_of_equally_probable_ids_and_is_at_most_the_whole():
  teacher, student = pairs(scale=1.0)
  log_p, log_q = jax.nn.log_softmax(0 * teacher), jax.nn.log_softmax(student)
  q = np.exp(np.asarray(log_q, np.float64))
  expected = -np.log(q[:, :3] * 40).sum(axis=-1) / 40
  expected += 37 / 40 * np.log(37 / 40 / q[:, 3:].sum(axis=-1))
  top = TopK(3, FORWARD)(log_p, log_q)
  np.testing.assert_allclose(top, expected, rtol=1e-4, atol=1e-6)
  assert (top <= FORWARD(log_p, log_q)).all()


def test_log_mixture_equals_float64_and_its_gradient_is_finite():
  teacher, student = pairs(masked=True)
  teacher[:, 3] = student[:, 4] = -np.inf
  log_p, log_q = log_softmax(teacher), log_softmax(student)
  for alpha in (0.0, 0.3, 1.0):

    def total(student, alpha):
      mixed = divergence.log_mixture(
        jax.nn.log_softmax(teacher), jax.nn.log_softmax(student), alpha
      )
      return jnp.sum(jnp.exp(mixed)), mixed

    step = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, mixed), gradient = step(student, alpha)
    np.testing.assert_allclose(
      np.exp(np.asarray(mixed, np.float64)),
      alpha * np.exp(log_p) + (1 - alpha) * np.exp(log_q),
      rtol=1e-4,
      atol=1e-9,
    )
    np.testing.assert_allclose(gradient, 0, atol=1e-6)  # the sum stays 1


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: SkewKL(1.0), "SkewKL.alpha is 1.0; expected a number from 0"),
    (lambda: SkewReverseKL(-1), "SkewReverseKL.alpha is -1; expected"),
    (lambda: AlphaBeta(-1, 0), "alpha -1 and beta 0; expected one of them ab"),
    (lambda: AlphaBeta("a", 0), "AlphaBeta.alpha is 'a'; expected a finite nu"),
    (lambda: AdaptiveKL(1.0), "AdaptiveKL.head_mass is 1.0; expected a number"),
    (lambda: EntropyAware(-1), "EntropyAware.threshold is -1; expected an ent"),
    (lambda: TopK(0, FORWARD), "TopK.k is 0; expected a whole number of ids"),
  ],
)
def test_settings_out_of_range_are_user_errors(make, message):
  with pytest.raises(UserError, match=message):
    make()
