"""Divergences against float64 NumPy: values, gradients, limits, edge cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses import divergence
from gkd.types import UserError
from tests.tiny import log_softmax

BETAS = (0.001, 0.1, 0.5, 0.9, 0.999)


def expectation(weights, values):
  """Sum of weights * values where the weight is not 0."""
  return (weights * np.where(weights > 0, values, 0)).sum(axis=-1)


def numpy_kl(log_p, log_q):
  with np.errstate(invalid="ignore"):
    return expectation(np.exp(log_p), log_p - log_q)


def numpy_jsd(log_p, log_q, beta):
  with np.errstate(divide="ignore"):
    log_m = np.log(beta * np.exp(log_p) + (1 - beta) * np.exp(log_q))
  return beta * numpy_kl(log_p, log_m) + (1 - beta) * numpy_kl(log_q, log_m)


def numpy_tv(log_p, log_q):
  return 0.5 * np.abs(np.exp(log_p) - np.exp(log_q)).sum(axis=-1)


# The gradients with respect to student logits of the GKD paper's divergences.
def forward_gradient(log_p, log_q):
  return np.exp(log_q) - np.exp(log_p)


def centred(log_q, values):
  """q_j (v_j - sum_i q_i v_i), 0 where q is 0."""
  q = np.exp(log_q)
  values = np.where(q > 0, values, 0)
  return q * (values - (q * values).sum(axis=-1, keepdims=True))


def reverse_gradient(log_p, log_q):
  with np.errstate(invalid="ignore"):
    return centred(log_q, log_q - log_p)


def jsd_gradient(log_p, log_q, beta):
  with np.errstate(divide="ignore", invalid="ignore"):
    log_m = np.log(beta * np.exp(log_p) + (1 - beta) * np.exp(log_q))
    return (1 - beta) * centred(log_q, log_q - log_m)


def tv_gradient(log_p, log_q):
  return 0.5 * centred(log_q, np.sign(np.exp(log_q) - np.exp(log_p)))


def with_beta(function, beta):
  return lambda log_p, log_q: function(log_p, log_q, beta)


CASES = {
  "forward_kl": (divergence.forward_kl, numpy_kl, forward_gradient),
  "reverse_kl": (
    divergence.reverse_kl,
    lambda log_p, log_q: numpy_kl(log_q, log_p),
    reverse_gradient,
  ),
  "total_variation": (divergence.total_variation, numpy_tv, tv_gradient),
} | {
  f"jsd_{beta}": tuple(
    with_beta(function, beta)
    for function in (divergence.generalized_jsd, numpy_jsd, jsd_gradient)
  )
  for beta in BETAS
}
cases = pytest.mark.parametrize("case", CASES)


def pairs(seed=0, scale=3.0, masked=False, rows=60, width=40):
  """Teacher and student logits [rows, width] in float32."""
  rng = np.random.RandomState(seed)
  teacher, student = scale * rng.randn(2, rows, width).astype(np.float32)
  if masked:
    teacher[:, 33:] = student[:, 33:] = -np.inf
  return teacher, student


@functools.cache
def of_logits(function):
  """((sum, values), gradient) of student and teacher logits, compiled once."""

  def value(student, teacher):
    values = function(jax.nn.log_softmax(teacher), jax.nn.log_softmax(student))
    return values.sum(), values

  return jax.jit(jax.value_and_grad(value, has_aux=True))


@cases
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_value_and_gradient_equal_the_papers_in_float64(case, masked, scale):
  function, reference, gradient = CASES[case]
  teacher, student = pairs(scale=scale, masked=masked)
  (_, values), gradients = of_logits(function)(student, teacher)
  log_p, log_q = log_softmax(teacher), log_softmax(student)
  # log-probabilities near 100 carry an error of 1e-5 in float32.
  atol = 1e-6 * max(1.0, scale)
  np.testing.assert_allclose(
    values, reference(log_p, log_q), rtol=1e-5, atol=atol
  )
  np.testing.assert_allclose(
    gradients, gradient(log_p, log_q), rtol=1e-4, atol=atol
  )
  if masked:
    assert (np.asarray(gradients)[:, 33:] == 0).all()


@cases
def test_gradient_equals_finite_differences_in_float64(case):
  function, reference, _ = CASES[case]
  teacher, student = pairs(seed=1)
  _, gradients = of_logits(function)(student, teacher)
  log_p, step = log_softmax(teacher), 1e-6
  for j in range(student.shape[-1]):
    shift = step * np.eye(student.shape[-1])[j]
    up = reference(log_p, log_softmax(student.astype(np.float64) + shift))
    down = reference(log_p, log_softmax(student.astype(np.float64) - shift))
    np.testing.assert_allclose(
      gradients[:, j], (up - down) / (2 * step), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
  ("end", "rest"),
  # Closer to 1, float32 itself cannot hold 1 - beta.
  [(0, 1e-2), (0, 1e-4), (0, 1e-6), (1, 2.0**-7), (1, 2.0**-14), (1, 2.0**-20)],
)
def test_jsd_over_the_distance_to_an_end_tends_to_its_kl(end, rest):
  teacher, student = pairs(scale=0.5)
  log_p, log_q = log_softmax(teacher), log_softmax(student)
  beta = abs(end - rest)
  scaled = of_logits(lambda p, q: divergence.generalized_jsd(p, q, beta) / rest)
  (_, values), gradients = scaled(student, teacher)
  tolerance = {"rtol": 10 * rest + 1e-4, "atol": 10 * rest + 1e-6}
  _, value, gradient = CASES["reverse_kl" if end else "forward_kl"]
  np.testing.assert_allclose(values, value(log_p, log_q), **tolerance)
  np.testing.assert_allclose(gradients, gradient(log_p, log_q), **tolerance)


@pytest.mark.parametrize("beta", [1e-9, *BETAS])
def test_jsd_of_disjoint_distributions_is_the_entropy_of_beta(beta):
  one, two = jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
  expected = -beta * np.log(beta) - (1 - beta) * np.log1p(-beta)
  np.testing.assert_allclose(
    divergence.generalized_jsd(one, two, beta), expected, rtol=2e-5
  )


@pytest.mark.parametrize("beta", BETAS)
def test_jsd_never_exceeds_the_entropy_of_beta(beta):
  log_p, log_q = map(jax.nn.log_softmax, pairs(scale=50.0))
  bound = -beta * np.log(beta) - (1 - beta) * np.log(1 - beta)
  values = np.asarray(divergence.generalized_jsd(log_p, log_q, beta))
  assert values.max() <= bound * (1 + 1e-5)
  assert values.max() > 0.9 * bound


@pytest.mark.parametrize("beta", [0, 0.1, 0.5, 0.9, 1])
def test_swapping_the_models_mirrors_beta(beta):
  log_p, log_q = map(jax.nn.log_softmax, pairs())
  np.testing.assert_allclose(
    divergence.generalized_jsd(log_p, log_q, beta),
    divergence.generalized_jsd(log_q, log_p, 1 - beta),
    rtol=1e-6,
  )


def test_beta_is_on_the_teacher():
  """Worked by hand: m = 0.1 p + 0.9 q at p = (1, 0), q = (0.5, 0.5)."""
  log_p = jnp.array([0.0, -jnp.inf])
  log_q = jnp.log(jnp.array([0.5, 0.5]))
  expected = 0.1 * np.log(1 / 0.55) + 0.9 * (
    0.5 * np.log(0.5 / 0.55) + 0.5 * np.log(0.5 / 0.45)
  )
  np.testing.assert_allclose(
    divergence.generalized_jsd(log_p, log_q, 0.1), expected, rtol=1e-5
  )


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_beta_at_an_end_selects_the_pure_kl(beta, traced):
  teacher, student = pairs(masked=True)
  # One zero that makes the KL of the other direction infinite.
  (student if beta else teacher)[:, 5] = -np.inf
  log_p, log_q = log_softmax(teacher), log_softmax(student)

  def total(student, beta):
    values = divergence.generalized_jsd(
      jax.nn.log_softmax(teacher), jax.nn.log_softmax(student), beta
    )
    return values.sum(), values

  compiled = jax.jit(
    jax.value_and_grad(total, has_aux=True),
    static_argnums=() if traced else 1,
  )
  (_, values), gradients = compiled(student, beta)
  value = numpy_kl(log_q, log_p) if beta else numpy_kl(log_p, log_q)
  gradient = reverse_gradient if beta else forward_gradient
  np.testing.assert_allclose(values, value, rtol=1e-5)
  np.testing.assert_allclose(
    gradients, gradient(log_p, log_q), rtol=1e-4, atol=1e-6
  )


def test_traced_beta_inside_equals_static_beta():
  log_p, log_q = map(jax.nn.log_softmax, pairs())
  traced = jax.jit(divergence.generalized_jsd)
  for beta in (2.0**-10, 0.125, 0.5, 0.875, 1 - 2.0**-10):
    np.testing.assert_allclose(
      traced(log_p, log_q, beta),
      divergence.generalized_jsd(log_p, log_q, beta),
      rtol=1e-5,
    )


@cases
def test_no_divergence_is_negative_and_clamping_keeps_the_gradient(case):
  function, _, gradient = CASES[case]
  teacher, _ = pairs()
  noise = np.random.RandomState(2).randn(*teacher.shape).astype(np.float32)
  student = teacher + 1e-4 * noise
  (_, values), gradients = of_logits(function)(student, teacher)
  assert np.asarray(values).min() >= 0
  expected = gradient(log_softmax(teacher), log_softmax(student))
  error = np.abs(np.asarray(gradients) - expected).max(axis=-1)
  assert (error < 0.05 * np.abs(expected).max(axis=-1) + 1e-7).mean() > 0.9
  same = function(jax.nn.log_softmax(teacher), jax.nn.log_softmax(teacher))
  np.testing.assert_allclose(same, 0, atol=1e-9)


@cases
def test_zero_weights_and_shared_zeros_contribute_nothing(case):
  """A zero of one side is met where the divergence stays finite."""
  function, reference, gradient = CASES[case]
  teacher, student = pairs(masked=True)
  if case != "reverse_kl":
    teacher[:, 3] = -np.inf
  if case != "forward_kl":
    student[:, 4] = -np.inf
  (_, values), gradients = of_logits(function)(student, teacher)
  log_p, log_q = log_softmax(teacher), log_softmax(student)
  np.testing.assert_allclose(values, reference(log_p, log_q), rtol=1e-5)
  np.testing.assert_allclose(
    gradients, gradient(log_p, log_q), rtol=1e-4, atol=1e-6
  )


def test_kl_is_infinite_only_where_the_other_side_has_no_mass():
  half = jnp.log(jnp.array([0.5, 0.5]))
  first = jnp.array([0.0, -jnp.inf])
  assert divergence.forward_kl(half, first) == jnp.inf
  assert divergence.reverse_kl(first, half) == jnp.inf
  np.testing.assert_allclose(
    [divergence.forward_kl(first, half), divergence.reverse_kl(half, first)],
    np.log(2),
    rtol=1e-6,
  )


def test_a_weight_that_underflows_contributes_nothing():
  log_p = jnp.array([0.0, -200.0, -300.0])
  log_q = jnp.array([0.0, -jnp.inf, -jnp.inf])
  value, gradient = jax.value_and_grad(divergence.forward_kl, 1)(log_p, log_q)
  assert value == 0
  assert np.isfinite(np.asarray(gradient)).all()


@cases
def test_bfloat16_inputs_are_computed_in_float32(case):
  function, reference, _ = CASES[case]
  log_p, log_q = (
    jax.nn.log_softmax(logits).astype(jnp.bfloat16) for logits in pairs()
  )
  values = function(log_p, log_q)
  assert values.dtype == jnp.float32
  expected = reference(
    np.asarray(log_p, np.float64), np.asarray(log_q, np.float64)
  )
  np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6)


def test_leading_axes_are_kept():
  log_p, log_q = (
    jax.nn.log_softmax(logits.reshape(3, 20, 40)) for logits in pairs()
  )
  for function, _, _ in CASES.values():
    assert jax.eval_shape(function, log_p, log_q).shape == (3, 20)


def test_entropy_equals_numpy_and_ignores_zeros():
  teacher, _ = pairs(masked=True)
  log_p = log_softmax(teacher)
  np.testing.assert_allclose(
    divergence.entropy(jax.nn.log_softmax(teacher)),
    -expectation(np.exp(log_p), log_p),
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  ("record", "function"),
  [
    (divergence.ForwardKL(), divergence.forward_kl),
    (divergence.ReverseKL(), divergence.reverse_kl),
    (divergence.TotalVariation(), divergence.total_variation),
    (
      divergence.GeneralizedJSD(0.9),
      with_beta(divergence.generalized_jsd, 0.9),
    ),
  ],
)
def test_record_computes_its_function(record, function):
  log_p, log_q = map(jax.nn.log_softmax, pairs())
  np.testing.assert_array_equal(record(log_p, log_q), function(log_p, log_q))
  assert hash(record) == hash(type(record)(**vars(record)))


def test_words_name_the_direction_and_the_formula():
  assert divergence.ForwardKL().describe() == "forward KL, sum_v p log(p/q)"
  assert divergence.ReverseKL().describe() == "reverse KL, sum_v q log(q/p)"
  assert "forward KL" in divergence.GeneralizedJSD(0.0).describe()
  assert "reverse KL" in divergence.GeneralizedJSD(1.0).describe()
  assert "beta = 0.3" in divergence.GeneralizedJSD(0.3).describe()


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan"), "0.5", True, None])
def test_beta_outside_its_range_is_a_user_error(beta):
  with pytest.raises(UserError, match=r"beta is .* expected a number from 0"):
    divergence.GeneralizedJSD(beta)
