"""The sampler on a model whose probabilities are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd.sampling import sampler
from gkd.sampling.params import SamplingParams
from tests.sampling import toy_model as toy
from tests.sampling.toy_model import EOS_ID
from tests.sampling.toy_model import ToyConfig
from tests.sampling.toy_model import toy_model
from tests.tiny import log_softmax

T = 8
ROWS = 64  # most tests share one compiled shape
MODEL = toy_model()
PARAMS = MODEL.init(jax.random.key(3))
KEY = keys.stream(5, 7, keys.Role.STUDENT_SAMPLE)
PLAIN = SamplingParams()


def sample(params=PARAMS, decoding=PLAIN, rows=None, **options):
  """Samples of the prompts of some rows."""
  rows = np.arange(ROWS) if rows is None else np.asarray(rows)
  options = {"model": MODEL, "key": KEY, "max_length": T, **options}
  model, key = options.pop("model"), options.pop("key")
  inputs = options.pop("inputs", toy.make_inputs(len(rows)))
  return toy.sample(model, params, inputs, rows, key, decoding, **options)


@jax.jit
def choose(logits, row_keys, decoding=PLAIN):
  return sampler.choose(logits, sampler.uniforms(row_keys), **vars(decoding))


def row_keys(number):
  """Keys of rows that occur once; `per_row` compares each row with each."""
  return jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(number))


def reference(row, previous, temperature=1.0):
  """Log-probabilities [V] after a token, ids 0 and ≥ 10 forbidden."""
  prompt = toy.make_inputs(row + 1)[row]
  table = np.asarray(PARAMS["table"], np.float64)
  logits = table[prompt[0] % 3, previous].copy()
  logits[0] = logits[10:] = -np.inf
  return log_softmax(logits / temperature)


def assert_frequencies(tokens, probs):
  """A chi-square bound that chance passes once in a million."""
  counts = np.bincount(tokens, minlength=len(probs))
  expected = probs * counts.sum()
  used = expected > 0
  assert counts[~used].sum() == 0
  statistic = ((counts - expected)[used] ** 2 / expected[used]).sum()
  degrees = used.sum() - 1
  # Wilson–Hilferty approximation of the quantile, z = 4.75.
  share = 2 / (9 * degrees)
  assert statistic < degrees * (1 - share + 4.75 * share**0.5) ** 3


@pytest.mark.parametrize("width", [10, 500])
def test_frequencies_match_the_logits(width):
  num_rows = 40_000
  rng = np.random.default_rng(width)
  logits = rng.normal(scale=1.5, size=width).astype(np.float32)
  logits[[0, width - 1]] = -np.inf
  tokens, _ = choose(np.tile(logits, (num_rows, 1)), row_keys(num_rows))
  assert_frequencies(tokens, np.exp(log_softmax(logits)))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sequences_follow_the_model(temperature):
  """First tokens, and second tokens given the first."""
  inputs = np.tile(toy.make_inputs(1), (3000, 1))
  tokens = np.concatenate(
    [
      sample(
        decoding=SamplingParams(temperature), rows=rows, inputs=inputs
      ).tokens
      for rows in np.arange(30_000).reshape(10, -1)
    ]
  )
  assert_frequencies(tokens[:, 0], np.exp(reference(0, 0, temperature)))
  common = np.argsort(np.bincount(tokens[:, 0]))[::-1]
  common = common[common != EOS_ID][0]
  second = tokens[tokens[:, 0] == common, 1]
  assert_frequencies(second, np.exp(reference(0, common, temperature)))


def test_filtered_draws_stay_in_the_set_and_are_renormalised():
  num_rows = 20_000
  logits = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
  tokens, log_probs = choose(
    np.tile(logits, (num_rows, 1)),
    row_keys(num_rows),
    SamplingParams(1.0, 2, 1.0),
  )
  expected = np.array([4 / 7, 3 / 7, 0, 0])
  assert_frequencies(tokens, expected)
  np.testing.assert_allclose(
    np.exp(log_probs), expected[np.asarray(tokens)], rtol=1e-5
  )


def test_greedy_follows_the_argmax_path():
  got = sample(decoding=SamplingParams(0.0, 3, 0.1))
  for row in range(6):
    previous, expected, scores = 0, [], []
    while len(expected) < T and previous != EOS_ID:
      log_p = reference(row, previous)
      previous = int(log_p.argmax())
      expected.append(previous)
      scores.append(log_p[previous])
    length = len(expected)
    assert got.tokens[row, :length].tolist() == expected
    assert got.lengths[row] == length
    np.testing.assert_allclose(
      got.log_probs[row, :length], scores, rtol=1e-5, atol=1e-6
    )


def test_log_probs_are_those_of_the_distribution_drawn_from():
  got = sample(decoding=SamplingParams(0.7))
  for row in range(32):
    previous = 0
    for t in range(int(got.lengths[row])):
      log_p = reference(row, previous, 0.7)
      previous = int(got.tokens[row, t])
      np.testing.assert_allclose(
        got.log_probs[row, t], log_p[previous], rtol=1e-5, atol=1e-5
      )


def test_greedy_takes_the_first_of_equals_in_any_block():
  logits = np.zeros((3, 300), np.float32)
  logits[1, [250, 299]] = 2.0
  logits[2, [130, 131, 290]] = 3.0
  tokens, log_probs = choose(logits, row_keys(3), SamplingParams(0.0))
  assert tokens.tolist() == [0, 250, 130]
  expected = log_softmax(logits)[np.arange(3), [0, 250, 130]]
  np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


def with_bonus(ids, bonus=50.0):
  return {"table": PARAMS["table"].at[..., jnp.asarray(ids)].add(bonus)}


def counted(samples):
  return np.asarray(samples.tokens)[np.asarray(samples.weights) > 0]


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_pad_and_padded_ids_are_never_drawn_though_most_likely(temperature):
  got = sample(with_bonus([0, 10, 11]), SamplingParams(temperature))
  assert 1 <= counted(got).min() <= counted(got).max() <= 9
  assert np.isfinite(got.log_probs).all()


def test_an_id_is_forbidden_by_the_vocabulary_and_not_because_it_is_0():
  got = sample(with_bonus([0, 3]), eos_ids=(2,), forbidden_ids=(3,))
  assert (counted(got) == 0).all()
  assert got.truncated.all()


def test_ids_of_probability_zero_are_never_drawn_at_any_uniform():
  """Also where rounding leaves nothing, or a sum is not monotone."""
  mass = jnp.float32([[0, 0, 1e-30, 0, 0.5, 0, 0.5, 0, 0]])
  for uniform in np.float32([0, 2**-24, 0.25, 0.5, 0.75, 1 - 2**-24, 1.0]):
    index = int(sampler._inverse_cdf(mass, jnp.full(1, uniform))[0])
    assert mass[0, index] > 0, (uniform, index)
  assert sampler._inverse_cdf(mass, jnp.ones(1))[0] == 6
  # A huge number of ids whose sum rounds up and down.
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(64, 32128)).astype(np.float32)
  forbidden = rng.random(logits.shape) < 0.5
  logits[forbidden] = -np.inf
  tokens, log_probs = choose(logits, row_keys(64))
  assert not forbidden[np.arange(64), np.asarray(tokens)].any()
  assert np.isfinite(log_probs).all()


def test_a_sum_that_is_not_monotone_draws_no_id_of_probability_zero(
  monkeypatch,
):
  rounded = jnp.float32([[0.5, 0.75, 0.5, 1.0]])  # of a parallel scan
  monkeypatch.setattr(jnp, "cumsum", lambda mass, axis: rounded)
  mass = jnp.float32([[0.5, 0.0, 0.0, 0.5]])
  assert sampler._inverse_cdf(mass, jnp.full(1, 0.6))[0] == 3


def test_an_id_of_tiny_mass_is_not_drawn_because_it_comes_first(monkeypatch):
  """At u = 0 the first id with any mass would be taken."""
  logits = jnp.full((4, 256), -80.0).at[:, 200].set(0.0)
  some = row_keys(4)
  monkeypatch.setattr(
    jax.random, "uniform", lambda key, shape: jnp.zeros(shape)
  )
  tokens, _ = sampler.choose(logits, sampler.uniforms(some))
  assert tokens.tolist() == [200] * 4


@pytest.mark.parametrize("eos_ids", [(EOS_ID,), (5,), (0,), (5, 7)])
def test_any_eos_id_ends_a_row_and_lengths_count_it(eos_ids):
  got = jax.tree.map(np.asarray, sample(eos_ids=eos_ids, forbidden_ids=()))
  assert 0 < got.truncated.sum() < ROWS
  for row in range(ROWS):
    ends = np.flatnonzero(np.isin(got.tokens[row], eos_ids))
    ends = ends[got.weights[row, ends] > 0]  # a filler may be such an id
    assert got.truncated[row] == (len(ends) == 0)
    expected = T if got.truncated[row] else ends[0] + 1
    assert got.lengths[row] == expected
    np.testing.assert_array_equal(got.weights[row], np.arange(T) < expected)
    assert (got.tokens[row, expected:] == 0).all()
    assert (got.log_probs[row, expected:] == 0).all()
  last = got.tokens[np.arange(ROWS), got.lengths - 1]
  assert set(eos_ids) == set(last[~got.truncated])


def test_a_row_gets_the_same_sample_alone_and_in_any_batch():
  inputs, rows = toy.make_inputs(ROWS), np.arange(ROWS) + 1000
  whole = sample(rows=rows)
  order = np.random.default_rng(0).permutation(ROWS)
  shuffled = sample(rows=rows[order], inputs=inputs[order])
  expected = jax.tree.map(lambda array: array[order], whole)
  jax.tree.map(np.testing.assert_array_equal, shuffled, expected)
  for part in (slice(7, 8), slice(3, 8)):
    got = sample(rows=rows[part], inputs=inputs[part])
    np.testing.assert_array_equal(got.tokens, whole.tokens[part])


def test_a_row_that_occurs_again_is_drawn_anew():
  rows = np.array([5, -1, 7, 5, -1, 5, 5])
  inputs = np.tile(toy.make_inputs(1), (len(rows), 1))
  tokens = np.asarray(sample(rows=rows, inputs=inputs, max_length=40).tokens)
  again = np.flatnonzero(rows == 5)
  assert len(np.unique(tokens[again], axis=0)) == len(again)
  first = sample(rows=rows[:3], inputs=inputs[:3], max_length=40)
  np.testing.assert_array_equal(tokens[:3], first.tokens)


def test_a_longer_limit_only_appends():
  longer = sample(max_length=T + 5)
  np.testing.assert_array_equal(sample().tokens, longer.tokens[:, :T])


def test_steps_roles_seeds_rows_and_positions_draw_differently():
  model = toy_model(ToyConfig(num_prompts=1, width=1000, vocabulary_size=1000))
  params = {"table": jnp.zeros((1, 1000, 1000))}

  def draw(*stream, first=0):
    return np.asarray(
      sample(
        params,
        rows=np.arange(4) + first,
        model=model,
        key=keys.stream(*stream),
        inputs=np.ones((4, 1), np.int32),
        max_length=6,
      ).tokens
    )

  student, teacher = keys.Role.STUDENT_SAMPLE, keys.Role.TEACHER_SAMPLE
  base = draw(0, 0, student)
  assert len(np.unique(base)) > 20  # 24 draws out of 1,000
  for other in (
    draw(0, 1, student),
    draw(0, 0, teacher),
    draw(1, 0, student),
    draw(0, 0, student, first=4),
  ):
    assert (other == base).mean() < 0.2


def count_decodes(bonus, rows):
  calls = []
  model = toy_model(on_decode=lambda: calls.append(1))
  got = sample({"table": PARAMS["table"] + bonus}, rows=rows, model=model)
  jax.block_until_ready(got)
  jax.effects_barrier()
  return len(calls), got


def test_the_loop_stops_when_all_rows_are_done():
  bonus = np.zeros((3, 12, 12), np.float32)
  bonus[:, 0, 4] = bonus[:, 4, 5] = bonus[:, 5, EOS_ID] = 1000
  calls, got = count_decodes(bonus, [0, 1, 2])
  assert got.tokens[:, :4].tolist() == [[4, 5, 1, 0]] * 3
  assert calls == 2  # the first token comes from prefill
  never = np.zeros((3, 12, 12), np.float32)
  never[..., EOS_ID] = -1000
  calls, got = count_decodes(never, [0, 1, 2])
  assert calls == T - 1
  assert got.truncated.all()


def test_filler_rows_get_nothing_and_do_not_keep_the_loop_alive():
  bonus = np.zeros((3, 12, 12), np.float32)
  bonus[..., EOS_ID] = -1000
  bonus[2, :, EOS_ID] = 1000  # the first prompt ends at once
  calls, got = count_decodes(bonus, [0, -1, -1])
  assert calls == 0
  assert got.lengths.tolist() == [1, 0, 0]
  assert not np.asarray(got.tokens)[1:].any()
  assert not np.asarray(got.weights)[1:].any()
  assert not got.truncated.any()


def test_samples_have_no_gradient():
  # Forward mode: a while_loop has no reverse one.
  direction = MODEL.init(jax.random.key(8))
  _, tangent = jax.jvp(
    lambda params: jnp.sum(sample(params).log_probs), (PARAMS,), (direction,)
  )
  assert tangent == 0


def test_logits_that_are_not_finite_show_in_log_probs():
  params = {"table": PARAMS["table"].at[0].set(jnp.nan)}
  for temperature in (0.0, 1.0):
    got = sample(params, SamplingParams(temperature, 3, 0.9))
    finite = np.isfinite(got.log_probs).all(1)
    # The second of the three kinds of prompts has id 3, its table is the first.
    np.testing.assert_array_equal(finite, np.arange(ROWS) % 3 != 1)
    assert not got.is_finite
