"""Policy gradients: their expectations are gradients, in float64 by NumPy."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses.divergence import ReverseKL
from gkd.losses.objective import Distillation
from gkd.losses.objective import Scored
from gkd.losses.policy import Policy
from gkd.losses.policy import SampledTokenKL
from gkd.losses.policy import rewarded
from gkd.training.scoring import advantages
from gkd.types import UserError
from tests import tiny
from tests.losses import test_objective as cases

V, T, EOS = 4, 3, 1  # real ids; the table has two more
WIDTH = V + 2
# All sequences: an end at 1, 2 or 3 tokens, or none within T.
SEQUENCES = [
  y
  for n in range(1, T + 1)
  for y in itertools.product(range(V), repeat=n)
  if EOS not in y[:-1] and (y[-1] == EOS or n == T)
]


def contexts(sequence):
  """Row of the table for each token: place and the token before."""
  return [t * V + (sequence[t - 1] if t else 0) for t in range(len(sequence))]


def expectation(table, rewards, forbidden=()):
  """E[r] over all sequences, float64, and their probabilities."""
  table = np.where(np.isin(np.arange(WIDTH), forbidden), -np.inf, table)
  log_q = tiny.log_softmax(table[:, :V])
  probabilities = np.exp([log_q[contexts(y), list(y)].sum() for y in SEQUENCES])
  return probabilities @ rewards, probabilities


def gradient_of(table, sequences, advantages, objective, forbidden=()):
  """-gradient of the loss by the table, of a batch of sequences."""
  targets, places = (np.zeros((len(sequences), T), np.int32) for _ in range(2))
  weights = np.zeros((len(sequences), T), np.float32)
  for row, y in enumerate(sequences):
    targets[row, : len(y)], weights[row, : len(y)] = y, 1
    places[row, : len(y)] = contexts(y)
  batch = dataclasses.replace(
    cases.make_batch(),
    targets=jnp.asarray(targets),
    weights=jnp.asarray(weights),
    source=jnp.ones(len(sequences), jnp.int32),
    advantages=jnp.asarray(advantages, jnp.float32),
  )

  def loss(table):
    scored = Scored(table[places], lambda hidden: hidden, forbidden)
    weighed = objective.coefficients(batch, "sequence")
    return objective(scored, {}, batch, weighed, V)[0]

  return -jax.grad(loss)(jnp.asarray(table, jnp.float32))


@pytest.mark.parametrize("baseline", ["none", "leave_one_out", "batch"])
@pytest.mark.parametrize(
  ("chunk_size", "forbidden"), [(None, ()), (2, ()), (2, (0,))]
)
def test_expected_gradient_is_that_of_the_expected_reward(
  baseline, chunk_size, forbidden
):
  """Summed over all pairs of samples of a prompt with their probabilities."""
  rng = np.random.default_rng(0)
  table = rng.normal(size=(T * V, WIDTH))
  rewards = rng.normal(size=len(SEQUENCES)) + 1
  _, p = expectation(table, rewards, forbidden)
  assert p.sum() == pytest.approx(1, abs=1e-12)
  exact = np.zeros_like(table)
  for place in np.ndindex(T * V, V):
    step = np.zeros_like(table)
    step[place] = 1e-5
    ends = [
      expectation(table + s * step, rewards, forbidden)[0] for s in (1, -1)
    ]
    exact[place] = (ends[0] - ends[1]) / 2e-5
  pairs = np.array([*np.ndindex(len(p), len(p))])
  found = np.concatenate(
    [advantages(rewards[pair], baseline, 2) for pair in pairs]
  )
  weighed = found * np.repeat(p[pairs].prod(axis=1), 2) * len(pairs)
  rows = [SEQUENCES[i] for i in pairs.reshape(-1)]
  mean = gradient_of(table, rows, weighed, Policy(chunk_size), forbidden)
  np.testing.assert_allclose(mean, exact, atol=2e-6)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
@pytest.mark.parametrize("lowest", [0, 1])  # ids below are never drawn
def test_a_sampled_token_has_the_expected_value_and_gradient_of_the_kl(
  estimator, lowest
):
  rng = np.random.default_rng(1)
  student, teacher = rng.normal(size=WIDTH), rng.normal(size=WIDTH + 1)
  log_q, log_p = (tiny.log_softmax(x[lowest:V]) for x in (student, teacher))
  q, p, d = np.exp(log_q), np.exp(log_p), log_q - log_p
  forward, reverse = q - p, q * (d - q @ d)
  objective = SampledTokenKL(estimator)
  batch = dataclasses.replace(  # a row for each token, weighed as likely
    cases.make_batch(), targets=jnp.arange(V)[:, None], weights=jnp.ones((V, 1))
  )

  def loss(logits):
    never = tuple(range(lowest))
    both = (
      Scored(jnp.broadcast_to(x, (V, 1, len(x))), lambda hidden: hidden, never)
      for x in (logits, jnp.asarray(teacher, jnp.float32))
    )
    student, frozen = both
    weighed = jnp.asarray(np.pad(q, (lowest, 0)), jnp.float32)[:, None]
    return objective(student, {"teacher": frozen}, batch, weighed, V)[0]

  value, found = jax.value_and_grad(loss)(jnp.asarray(student, jnp.float32))
  expected = {"k3": forward}.get(estimator, reverse)
  np.testing.assert_allclose(found, np.pad(expected, (lowest, 2)), atol=1e-6)
  estimate = q @ np.square(d) / 2 if estimator == "k2" else q @ d
  assert value == pytest.approx(estimate, rel=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 1])
@pytest.mark.parametrize("kind", [Policy, SampledTokenKL])
def test_tokens_that_another_distribution_drew_have_the_same_expected_gradient(
  kind, chunk_size
):
  """E_m[q/m · f] = E_q[f], with padded ids, one never drawn, and filler."""
  rng = np.random.default_rng(2)
  student, teacher, other = rng.normal(size=(3, WIDTH))
  log_q, log_p, log_m = (
    tiny.log_softmax(x[1:V]) for x in (student, teacher, other)
  )
  q, m = np.exp(log_q), np.exp(log_m)
  rewards = rng.normal(size=V - 1)
  f = -rewards if kind == Policy else log_q - log_p
  expected = np.pad(q * (f - q @ f), (1, WIDTH - V))
  own = jnp.asarray([[0.0, 1.0]] * (V - 1) + [[1.0, 1.0]])
  batch = dataclasses.replace(  # a row for each token, then one of the data set
    cases.make_batch(),
    targets=jnp.asarray([[0, y] for y in range(1, V)] + [[0, 1]]),
    weights=own,
    log_probs=jnp.asarray(np.append(log_m, 0.0)[:, None] * own, jnp.float32),
  )
  weighed = m * rewards if kind == Policy else m
  coefficients = jnp.asarray(np.append(weighed, 0.0)[:, None] * own)

  def loss(logits):
    by_student, by_teacher = (
      Scored(jnp.broadcast_to(x, (V, 2, WIDTH)), lambda hidden: hidden, (0,))
      for x in (logits, jnp.asarray(teacher, jnp.float32))
    )
    objective, frozen = kind(chunk_size=chunk_size), {"teacher": by_teacher}
    return objective(by_student, frozen, batch, coefficients, V)

  differentiate = jax.value_and_grad(loss, has_aux=True)
  (_, metrics), found = differentiate(jnp.asarray(student, jnp.float32))
  np.testing.assert_allclose(found, expected, atol=1e-6)
  mean = metrics["importance_weight"].compute()
  np.testing.assert_allclose(mean, np.mean(q / m), rtol=1e-5)


@pytest.mark.parametrize("objective", [Policy(), SampledTokenKL()])
def test_only_tokens_that_the_student_drew_weigh_anything(objective):
  batch = dataclasses.replace(
    cases.make_batch(), advantages=jnp.array([5.0, 2.0, 3.0, -1.0])
  )
  found = objective.coefficients(batch, "sequence")
  expected = np.zeros_like(batch.weights)
  expected[1, :3], expected[3, :1] = (
    (1.0, -0.5) if objective == Policy() else (1 / 6, 1 / 2)
  )
  np.testing.assert_allclose(found, expected)
  if objective == Policy():
    by_token = batch.replace(
      advantages=jnp.broadcast_to(batch.advantages[:, None], expected.shape)
    )
    again = objective.coefficients(by_token, "sum")
    np.testing.assert_array_equal(found, again)


def test_the_ends_of_alpha_need_neither_reward_nor_teacher():
  own = Distillation(ReverseKL(), chunk_size=2)
  terms = rewarded(0.25, own, anchor_share=0.5)
  weights = {term.name: term.weight for term in terms.terms}
  expected = {"distillation": 0.125, "anchor": 0.125, "policy": 0.75}
  assert weights == expected
  assert terms.needs_samples
  assert terms.roles == ("teacher", "anchor")
  (alone,) = rewarded(1.0, own).active
  assert alone.objective == own
  assert not rewarded(1.0, own).needs_advantages
  assert rewarded(0.0, own).roles == ()
  assert rewarded(0.5, own, 1.0).roles == ("anchor",)
  with pytest.raises(UserError, match=r"ALPHA is 1\.5; expected a number"):
    rewarded(1.5, own)
  with pytest.raises(UserError, match="KL_ESTIMATOR is 'k4'"):
    SampledTokenKL("k4")
