"""Sequence KL against the sum over every sequence that exists."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.evaluation import sequence_kl
from gkd.types import Batch
from tests.evaluation.table_model import MODEL

REAL, T = 3, 3
NUM_PREFIXES = sum(REAL**t for t in range(T))


def next_prefix(prefix, token):
  """The prefix that is one token longer; prefixes count up by their length."""
  return prefix * REAL + 1 + token


def table_model(rows):
  """A model that is a table: logits [rows] for each prefix of real ids."""

  def hidden(params, inputs, targets, **unused):
    del params, inputs
    states, prefix = [], jnp.zeros(targets.shape[0], jnp.int32)
    for t in range(targets.shape[1]):
      states.append(jax.nn.one_hot(prefix, NUM_PREFIXES))
      prefix = next_prefix(prefix, targets[:, t])
    return jnp.stack(states, axis=1)

  model = dataclasses.replace(
    MODEL,
    vocabulary_size=REAL,
    hidden=hidden,
    head=lambda params, hidden: hidden @ params,
  )
  seed = np.random.RandomState(rows)
  return model, jnp.asarray(seed.randn(NUM_PREFIXES, rows), jnp.float32)


P_MODEL, P_PARAMS = table_model(REAL + 2)  # tables padded differently
Q_MODEL, Q_PARAMS = table_model(REAL + 1)
MODELS = (P_MODEL, P_PARAMS, Q_MODEL, Q_PARAMS)
SEQUENCES = np.array(list(itertools.product(range(REAL), repeat=T)))


sequence_estimates = jax.jit(
  sequence_kl.sequence_estimates,
  static_argnums=(0, 2),
  static_argnames=("direction", "chunk_size"),
)


def kl(*batches, direction="forward"):
  """What `statistics` makes of batches."""
  rows = [sequence_estimates(*MODELS, b, direction=direction) for b in batches]
  return sequence_kl.statistics(rows, direction).compute()


def sequence_log_probs(table):
  """Log p(y) of every sequence in float64."""
  table = np.asarray(table, np.float64)[:, :REAL]
  log_p = table - np.log(np.exp(table).sum(axis=-1, keepdims=True))
  scores = []
  for sequence in SEQUENCES:
    prefix, score = 0, 0.0
    for token in sequence:
      score += log_p[prefix, token]
      prefix = next_prefix(prefix, token)
    scores.append(score)
  return np.array(scores)


def make_batch(targets, weights=None):
  targets = jnp.asarray(targets, jnp.int32)
  rows = jnp.arange(targets.shape[0])
  return Batch(
    inputs=jnp.ones((targets.shape[0], 1), jnp.int32),
    input_mask=jnp.ones((targets.shape[0], 1), bool),
    targets=targets,
    weights=jnp.ones(targets.shape) if weights is None else weights,
    rows=rows,
    source=0 * rows,
  )


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_token_sum_has_the_exact_kl_as_expectation(direction):
  log_p = sequence_log_probs(P_PARAMS)
  log_q = sequence_log_probs(Q_PARAMS)
  if direction == "reverse":
    log_p, log_q = log_q, log_p
  exact = np.sum(np.exp(log_p) * (log_p - log_q))
  batch = make_batch(SEQUENCES)
  estimates = sequence_estimates(*MODELS, batch, direction=direction)
  np.testing.assert_allclose(
    np.sum(np.exp(log_p) * np.asarray(estimates.token_sum)), exact, rtol=1e-5
  )


def test_the_token_sum_is_positive_and_varies_less_than_the_log_ratio():
  log_p = sequence_log_probs(P_PARAMS)
  log_ratio = log_p - sequence_log_probs(Q_PARAMS)
  estimates = sequence_estimates(*MODELS, make_batch(SEQUENCES))
  token_sum = np.asarray(estimates.token_sum)
  assert token_sum.min() > 0 > log_ratio.min()

  def variance(values):
    mean = np.sum(np.exp(log_p) * values)
    return np.sum(np.exp(log_p) * (values - mean) ** 2)

  assert variance(token_sum) < variance(log_ratio) / 2


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_means_are_per_sequence_and_per_token(direction):
  weights = jnp.asarray(
    [[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]  # the last is a filler row
  )
  batch = make_batch(SEQUENCES[[5, 7, 0]], weights)
  measured = kl(batch, direction=direction)
  name = f"{direction}_kl"
  assert measured.keys() == {name, f"{name}_per_token"}
  short = make_batch(SEQUENCES[[7]][:, :1])
  parts = [
    sequence_estimates(*MODELS, part, direction=direction)
    for part in (make_batch(SEQUENCES[[5]]), short)
  ]
  total = sum(float(part.token_sum[0]) for part in parts)
  np.testing.assert_allclose(measured[name], total / 2, rtol=1e-6)
  np.testing.assert_allclose(measured[f"{name}_per_token"], total / 4, 1e-6)


def test_batches_make_the_whole():
  whole = kl(make_batch(SEQUENCES))
  parts = map(make_batch, np.split(SEQUENCES, 3))
  assert kl(*parts) == pytest.approx(whole, rel=1e-6)


def test_rows_without_tokens_are_no_prompts_to_resample():
  weights = jnp.asarray([[1.0, 1, 1], [0, 0, 0], [1, 1, 0]])
  rows = sequence_estimates(*MODELS, make_batch(SEQUENCES[[5, 7, 0]], weights))
  assert len(sequence_kl.statistics([rows], "forward").values) == 2


@pytest.mark.parametrize("chunk_size", [1, 2, 8])
def test_chunks_change_nothing(chunk_size):
  batch = make_batch(SEQUENCES)
  dense = sequence_estimates(*MODELS, batch)
  chunked = sequence_estimates(*MODELS, batch, chunk_size=chunk_size)
  for ours, expected in zip(chunked, dense, strict=True):
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
