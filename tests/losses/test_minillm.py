"""MiniLLM: its expectation is a gradient, and the parts against NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses.minillm import MiniLLM
from gkd.losses.objective import Scored
from gkd.types import UserError
from tests import tiny
from tests.losses import test_objective as cases
from tests.losses import test_policy as policy

V, SEQUENCES = policy.V, policy.SEQUENCES


def sequence_kl(student, teacher):
  """KL(q||p) over all sequences, float64, and their probabilities under q."""
  log_q, log_p = (
    np.array([table[policy.contexts(y), list(y)].sum() for y in SEQUENCES])
    for table in (tiny.log_softmax(x[:, :V]) for x in (student, teacher))
  )
  return np.exp(log_q) @ (log_q - log_p), np.exp(log_q)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_expected_gradient_is_that_of_the_reverse_kl_of_sequences(chunk_size):
  """Every sequence weighed with its probability; the mean of one is its sum."""
  rng = np.random.default_rng(0)
  shape = policy.T * V, policy.WIDTH
  student, teacher = rng.normal(size=shape), rng.normal(size=shape)
  _, q = sequence_kl(student, teacher)
  exact = np.zeros_like(student)
  for place in np.ndindex(policy.T * V, V):
    step = np.zeros_like(student)
    step[place] = 1e-5
    ends = [sequence_kl(student + s * step, teacher)[0] for s in (1, -1)]
    exact[place] = (ends[0] - ends[1]) / 2e-5
  objective = MiniLLM(
    length_normalised=False, ratio_clip=0.2, chunk_size=chunk_size
  )
  weigh = _Weighed(objective, jnp.asarray(teacher, jnp.float32))
  found = -policy.gradient_of(student, SEQUENCES, q, weigh)
  np.testing.assert_allclose(found, exact, atol=2e-6)


@dataclasses.dataclass(frozen=True, eq=False)
class _Weighed:
  """Sums of sequences that count as their advantage, of a table's teacher."""

  objective: MiniLLM
  teacher: jax.Array

  def coefficients(self, batch, reduction):
    return self.objective.coefficients(batch, "sum") * batch.advantages[:, None]

  def __call__(self, student, frozen, batch, coefficients, vocabulary_size):
    before = jnp.pad(batch.targets[:, :-1], ((0, 0), (1, 0)))
    places = V * jnp.arange(policy.T) + before * (jnp.arange(policy.T) > 0)
    frozen = {"teacher": Scored(self.teacher[places], student.head)}
    return self.objective(student, frozen, batch, coefficients, vocabulary_size)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("clip", [None, 0.2])
def test_weights_returns_and_clipping_are_those_of_the_equation(
  normalised, clip
):
  rng = np.random.default_rng(1)
  batch = cases.make_batch(lengths=(5, 4, 0, 1))
  student, teacher = cases.make_logits(batch)
  log_probs = rng.uniform(-3, -1, batch.targets.shape).astype(np.float32)
  batch = batch.replace(log_probs=jnp.asarray(log_probs))
  objective = MiniLLM(length_normalised=normalised, ratio_clip=clip)
  coefficients = objective.coefficients(batch, "sequence")
  (loss, metrics), gradient = cases.measure(
    objective, student, teacher, batch, coefficients
  )
  log_q, log_p = (
    tiny.log_softmax(logits[..., : cases.REAL]) for logits in (student, teacher)
  )
  q, expected, value, weights = np.exp(log_q), np.zeros(student.shape), 0.0, []
  for row in (1, 3):  # the student's; each counts one half
    length = cases.LENGTHS[row] if row == 3 else 4
    r = [(log_p - log_q)[row, t, batch.targets[row, t]] for t in range(length)]
    for t in range(length):
      token, rest = int(batch.targets[row, t]), r[t + 1 :]
      w = np.exp(log_q[row, t, token] - log_probs[row, t])
      future = sum(rest) / (max(len(rest), 1) if normalised else 1)
      ratio = log_q[row, t] - log_p[row, t]
      kl = q[row, t] @ ratio
      part = w * q[row, t] * (ratio - kl)
      kept = w if clip is None else np.clip(w, 1 - clip, 1 + clip)
      if w * future <= kept * future:
        part -= w * future * (np.eye(cases.REAL)[token] - q[row, t])
      expected[row, t, : cases.REAL] = part / length / 2
      value += (w * kl - min(w * future, kept * future)) / length / 2
      weights.append(w)
  np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=1e-6)
  assert loss == pytest.approx(value, rel=1e-5)
  mean = metrics["importance_weight"].compute()
  assert mean == pytest.approx(np.mean(weights), rel=1e-5)


def test_a_ratio_clip_that_is_none_of_ppos_is_named():
  with pytest.raises(UserError, match=r"RATIO_CLIP is 1\.2; expected a number"):
    MiniLLM(ratio_clip=1.2)
