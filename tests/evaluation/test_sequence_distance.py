"""Sequence distances against the sum over every sequence that exists."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.evaluation import sequence_distance
from gkd.evaluation.sequence_distance import Distance
from gkd.types import Batch
from gkd.types import UserError
from tests.evaluation.table_model import MODEL
from tests.tiny import log_softmax

REAL, T = 3, 3  # id 0 ends a sequence
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


P = table_model(REAL + 2)  # tables padded differently
Q = table_model(REAL + 1)
# Every sequence once: those that end early filled up with EOS.
SEQUENCES = np.array(
  [
    sequence
    for sequence in itertools.product(range(REAL), repeat=T)
    if all(x or not any(sequence[t:]) for t, x in enumerate(sequence))
  ]
)
WEIGHTS = 1.0 - (np.cumsum(SEQUENCES == 0, axis=1) - (SEQUENCES == 0) > 0)


def sequence_log_probs(model):
  """Log p(y) of every sequence in float64."""
  table = np.asarray(model[1], np.float64)[:, :REAL]
  log_p = table - np.log(np.exp(table).sum(axis=-1, keepdims=True))
  scores = []
  for sequence, weights in zip(SEQUENCES, WEIGHTS, strict=True):
    prefix, score = 0, 0.0
    for token, weight in zip(sequence, weights, strict=True):
      score += weight * log_p[prefix, token]
      prefix = next_prefix(prefix, token)
    scores.append(score)
  return np.array(scores)


LOG_P, LOG_Q = sequence_log_probs(P), sequence_log_probs(Q)
BETAS = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd_0.1": 0.1, "jsd_0.5": 0.5}
HALVES = slice(0, 5), slice(5, None)
NAMES = [name + end for name in BETAS for end in ("", "_log_ratio")]
ALL_WEIGHTS = (0.0, 0.1, 0.5, 0.9)


def exact(beta):
  """The distance, in float64."""

  def kl(log_a, log_b):
    return np.sum(np.exp(log_a) * (log_a - log_b))

  if beta in (0, 1):
    return kl(LOG_Q, LOG_P) if beta else kl(LOG_P, LOG_Q)
  log_m = np.log(beta * np.exp(LOG_P) + (1 - beta) * np.exp(LOG_Q))
  return beta * kl(LOG_P, log_m) + (1 - beta) * kl(LOG_Q, log_m)


estimates = jax.jit(
  sequence_distance.estimates,
  static_argnums=(0, 2),
  static_argnames=("weights", "log_probs", "chunk_size"),
)


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


def of(batch, writer="p", **options):
  """Everything that any distance needs."""
  a, b = (P, Q) if writer == "p" else (Q, P)
  options = {"weights": ALL_WEIGHTS, "log_probs": True, **options}
  return estimates(*a, *b, batch, **options)


@pytest.fixture(scope="module")
def everything():
  """Estimates of every sequence, by both writers."""
  batch = make_batch(SEQUENCES, jnp.asarray(WEIGHTS))
  return {writer: jax.device_get(of(batch, writer)) for writer in "pq"}


def values_of(name, everything, places):
  """[N, 3] nats, sequences and tokens of pairs of places (of p's, of q's)."""
  pairs = dict(zip("pq", places, strict=True))
  parts = {
    writer: [jax.tree.map(lambda x, at=at: x[at], everything[writer])]
    for writer, at in pairs.items()
  }
  return Distance.named(name).statistics(parts)


@pytest.fixture(scope="module")
def moments(everything):
  """{name: exact mean and standard deviation of one prompt's nats, tokens}."""
  pairs = np.divmod(np.arange(len(SEQUENCES) ** 2), len(SEQUENCES))
  probability = np.exp(LOG_P[pairs[0]] + LOG_Q[pairs[1]])
  found = {}
  for name in NAMES:
    nats, _, tokens = values_of(name, everything, pairs).values.T
    mean = probability @ nats
    deviation = np.sqrt(probability @ (nats - mean) ** 2)
    found[name] = mean, deviation, probability @ tokens
  return found


@pytest.mark.parametrize("name", NAMES)
def test_the_expectation_is_the_exact_distance(name, moments):
  distance = Distance.named(name)
  expected = exact(distance.beta)
  assert moments[name][0] == pytest.approx(expected, rel=1e-5)
  if 0 < distance.beta < 1:
    beta = np.array([distance.beta, 1 - distance.beta])
    assert 0 < expected < -np.sum(beta * np.log(beta))  # H(beta)


@pytest.mark.parametrize("name", BETAS)
def test_the_token_sum_varies_less_than_the_log_ratio(name, moments):
  assert moments[name][1] < 0.8 * moments[f"{name}_log_ratio"][1]


@pytest.mark.parametrize("name", NAMES)
def test_samples_estimate_it_within_the_standard_error(
  name, everything, moments
):
  generator = np.random.default_rng(0)
  number = 4000

  def draw():
    return values_of(
      name,
      everything,
      [
        generator.choice(
          len(SEQUENCES), number, p=np.exp(log) / np.exp(log).sum()
        )
        for log in (LOG_P, LOG_Q)
      ],
    )

  drawn = draw()
  errors, values = drawn.standard_errors(), drawn.compute()
  mean, deviation, tokens = moments[name]
  assert errors[name] == pytest.approx(deviation / np.sqrt(number), rel=0.1)
  assert abs(values[name] - mean) < 4 * errors[name]
  # All nats over all tokens; its error by the spread of repeated estimates.
  per_token = f"{name}_per_token"
  assert abs(values[per_token] - mean / tokens) < 4 * errors[per_token]
  repeated = [draw().compute()[per_token] for _ in range(200)]
  assert errors[per_token] == pytest.approx(np.std(repeated), rel=0.2)


def test_a_small_share_of_one_side_makes_a_kl_of_the_jsd(everything):
  pairs = np.divmod(np.arange(len(SEQUENCES) ** 2), len(SEQUENCES))
  probability = np.exp(LOG_P[pairs[0]] + LOG_Q[pairs[1]])
  small = 1e-3
  for beta, kl in ((small, "forward_kl"), (1 - small, "reverse_kl")):
    name = f"jsd_{beta}_log_ratio"
    nats = values_of(name, everything, pairs).values[:, 0]
    assert probability @ nats / small == pytest.approx(
      exact(BETAS[kl]), rel=0.01
    )


def test_shares_of_agreeing_and_of_accepted_tokens():
  tables = [np.asarray(table, np.float64)[:, :REAL] for _, table in (P, Q)]
  equal = np.equal(*(table.argmax(axis=-1) for table in tables))
  weights = WEIGHTS.copy()
  weights[3] = 0.0  # a filler row
  overlap = np.minimum(*(np.exp(log_softmax(x)) for x in tables)).sum(-1)
  found = []
  for sequence, row in zip(SEQUENCES, weights, strict=True):
    prefix = 0
    for token, weight in zip(sequence, row, strict=True):
      found += [(equal[prefix], overlap[prefix])] if weight else []
      prefix = next_prefix(prefix, token)
  batch = make_batch(SEQUENCES, jnp.asarray(weights))
  for writer, chunk_size in (("p", None), ("q", 2)):
    part = jax.device_get(of(batch, writer, chunk_size=chunk_size))
    halves = [jax.tree.map(lambda x, at=at: x[at], part) for at in HALVES]
    measured = sequence_distance.shares("own", halves)
    agreeing, accepted = np.mean(found, axis=0)
    assert measured.compute() == {
      "agreement_on_own_text": pytest.approx(agreeing),
      "acceptance_on_own_text": pytest.approx(accepted),
    }
    assert len(measured.values) == len(SEQUENCES) - 1
  assert 0 < agreeing < 1


def test_the_length_ratio_is_that_of_all_tokens_of_rows_with_text():
  own, other = (
    [sequence_distance.Estimates(np.array(lengths), {}, None, None, ())]
    for lengths in ([4, 2, 0], [1, 2, 5])
  )
  measured = sequence_distance.length_ratio(own, other)
  assert measured.compute() == {"length_ratio": 2.0}


def test_the_token_sum_is_never_negative(everything):
  for part in everything.values():
    for sums in part.token_sums.values():
      assert sums.min() >= 0
  log_p, log_q = everything["p"].log_probs
  assert (log_p - log_q).min() < 0


def test_means_are_per_sequence_and_per_token_without_fillers():
  weights = jnp.asarray(
    [[1.0, 1, 1], [1, 0, 0], [0, 0, 0]]  # the last is a filler row
  )
  whole = make_batch(SEQUENCES[[5, 7, 0]], weights)
  parts = [make_batch(SEQUENCES[[5]]), make_batch(SEQUENCES[[7]][:, :1])]
  for name in NAMES:
    distance = Distance.named(name)

    def estimated(batches, distance=distance):
      by_writer = {w: [of(b, w) for b in batches] for w in distance.terms}
      return distance.statistics(by_writer)

    measured, alone = estimated([whole]), estimated(parts)
    assert len(measured.values) == 2
    assert measured.compute() == pytest.approx(alone.compute(), rel=1e-5)
    nats = alone.values[:, 0].sum()
    assert measured.compute()[name] == pytest.approx(nats / 2, rel=1e-5)
    per_token = measured.compute()[f"{name}_per_token"]
    assert per_token == pytest.approx(nats / 4, rel=1e-5)


@pytest.mark.parametrize("chunk_size", [1, 2, 8])
def test_chunks_change_nothing(chunk_size, everything):
  batch = make_batch(SEQUENCES, jnp.asarray(WEIGHTS))
  chunked = of(batch, chunk_size=chunk_size)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, chunked, everything["p"])


@pytest.mark.parametrize(
  "name", ["kl", "jsd", "jsd_0", "jsd_1.5", "jsd_0.5_kl"]
)
def test_an_unknown_distance_is_refused_with_those_that_there_are(name):
  message = f"EVAL_DISTANCES has '{name}'; expected forward_kl, reverse_kl, "
  with pytest.raises(UserError, match=message):
    Distance.named(name)
