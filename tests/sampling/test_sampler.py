import dataclasses
import functools

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

T = 8
ROWS = 64  # most tests share one compiled shape
MODEL = toy_model()
PARAMS = MODEL.init(jax.random.key(3))
KEY = keys.stream(5, 7, keys.Role.STUDENT_SAMPLE)

_sample = toy.sample
sample = functools.partial(_sample, MODEL, max_length=T)


@jax.jit
def choose(logits, row_keys, decoding):
  return sampler.choose(
    logits,
    row_keys,
    temperature=decoding.temperature,
    top_k=decoding.top_k,
    top_p=decoding.top_p,
  )


def _prompts(num_rows):
  inputs = np.zeros((num_rows, 4), np.int32)
  inputs[:, 0] = 2 + np.arange(num_rows) % 3
  inputs[:, 1] = EOS_ID
  return inputs


def _log_softmax(x):
  x = np.asarray(x, np.float64)
  x = x - x.max(-1, keepdims=True)
  with np.errstate(divide="ignore"):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _reference(params, inputs, previous, temperature=1.0):
  """Log-probabilities [V] after a token, ids 0 and ≥ 10 forbidden."""
  table = np.asarray(params["table"], np.float64)
  logits = table[inputs[0] % 3, previous].copy()
  logits[0] = logits[10:] = -np.inf
  return _log_softmax(logits / temperature)


def _chi_square(counts, probs):
  """Statistic and an upper bound that chance passes once in a million."""
  expected = probs * counts.sum()
  used = expected > 0
  assert counts[~used].sum() == 0
  statistic = ((counts - expected)[used] ** 2 / expected[used]).sum()
  degrees = used.sum() - 1
  # Wilson–Hilferty approximation of the quantile, z = 4.75.
  share = 2 / (9 * degrees)
  return statistic, degrees * (1 - share + 4.75 * share**0.5) ** 3


@pytest.mark.parametrize("width", [10, 500])
def test_frequencies_match_the_logits(width):
  num_rows = 40_000
  rng = np.random.default_rng(width)
  logits = rng.normal(scale=1.5, size=width).astype(np.float32)
  logits[[0, width - 1]] = -np.inf
  tokens, _ = choose(
    np.tile(logits, (num_rows, 1)),
    keys.per_row(KEY, jnp.arange(num_rows)),
    SamplingParams(),
  )
  counts = np.bincount(tokens, minlength=width)
  statistic, bound = _chi_square(counts, np.exp(_log_softmax(logits)))
  assert statistic < bound


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sequences_follow_the_model(temperature):
  """First tokens, and second tokens given the first."""
  num_rows = 30_000
  inputs = np.tile(_prompts(1), (num_rows, 1))
  got = sample(
    PARAMS, inputs, np.arange(num_rows), KEY, SamplingParams(temperature)
  )
  tokens = np.asarray(got.tokens)
  first = np.bincount(tokens[:, 0], minlength=12)
  probs = np.exp(_reference(PARAMS, inputs[0], 0, temperature))
  statistic, bound = _chi_square(first, probs)
  assert statistic < bound
  common = np.argsort(first)[::-1]
  common = common[common != EOS_ID][0]
  second = np.bincount(tokens[tokens[:, 0] == common, 1], minlength=12)
  probs = np.exp(_reference(PARAMS, inputs[0], common, temperature))
  statistic, bound = _chi_square(second, probs)
  assert statistic < bound


def test_filtered_draws_stay_in_the_set_and_are_renormalised():
  num_rows = 20_000
  probs = np.float32([0.4, 0.3, 0.2, 0.1])
  tokens, log_probs = choose(
    np.tile(np.log(probs), (num_rows, 1)),
    keys.per_row(KEY, jnp.arange(num_rows)),
    SamplingParams(1.0, 2, 1.0),
  )
  expected = np.array([4 / 7, 3 / 7, 0, 0])
  statistic, bound = _chi_square(np.bincount(tokens, minlength=4), expected)
  assert statistic < bound
  np.testing.assert_allclose(
    np.exp(log_probs), expected[np.asarray(tokens)], rtol=1e-5
  )


def test_greedy_follows_the_argmax_path():
  inputs = _prompts(ROWS)
  got = sample(
    PARAMS, inputs, np.arange(ROWS), KEY, SamplingParams(0.0, 3, 0.1)
  )
  for row in range(6):
    previous, expected, scores = 0, [], []
    while len(expected) < T and previous != EOS_ID:
      log_p = _reference(PARAMS, inputs[row], previous)
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
  inputs = _prompts(ROWS)
  got = sample(PARAMS, inputs, np.arange(ROWS), KEY, SamplingParams(0.7))
  for row in range(32):
    previous = 0
    for t in range(int(got.lengths[row])):
      log_p = _reference(PARAMS, inputs[row], previous, 0.7)
      previous = int(got.tokens[row, t])
      np.testing.assert_allclose(
        got.log_probs[row, t], log_p[previous], rtol=1e-5, atol=1e-5
      )


def test_greedy_takes_the_first_of_equals_in_any_block():
  logits = np.zeros((3, 300), np.float32)
  logits[1, [250, 299]] = 2.0
  logits[2, [130, 131, 290]] = 3.0
  tokens, log_probs = choose(
    logits, keys.per_row(KEY, jnp.arange(3)), SamplingParams(0.0)
  )
  assert tokens.tolist() == [0, 250, 130]
  expected = _log_softmax(logits)[np.arange(3), [0, 250, 130]]
  np.testing.assert_allclose(log_probs, expected, rtol=1e-5)


def _with_bonus(ids, bonus=50.0):
  return {"table": PARAMS["table"].at[..., jnp.asarray(ids)].add(bonus)}


@pytest.mark.parametrize("temperature", [0.0, 1.0, 100.0])
def test_pad_and_padded_ids_are_never_drawn_though_most_likely(temperature):
  params = _with_bonus([0, 10, 11])
  inputs = _prompts(ROWS)
  got = sample(
    params, inputs, np.arange(ROWS), KEY, SamplingParams(temperature)
  )
  counted = np.asarray(got.tokens)[np.asarray(got.weights) > 0]
  assert counted.min() >= 1
  assert counted.max() <= 9
  assert np.isfinite(got.log_probs).all()


def test_an_id_is_forbidden_by_the_vocabulary_and_not_because_it_is_0():
  got = sample(
    _with_bonus([0, 3]),
    _prompts(ROWS),
    np.arange(ROWS),
    KEY,
    SamplingParams(),
    eos_ids=(2,),
    forbidden_ids=(3,),
  )
  counted = np.asarray(got.tokens)[np.asarray(got.weights) > 0]
  assert (counted == 0).all()
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
  rows = keys.per_row(KEY, jnp.arange(64))
  tokens, log_probs = choose(logits, rows, SamplingParams())
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
  row_keys = keys.per_row(KEY, jnp.arange(4))
  monkeypatch.setattr(
    jax.random, "uniform", lambda key, shape: jnp.zeros(shape)
  )
  tokens, _ = sampler.choose(logits, row_keys)
  assert tokens.tolist() == [200] * 4


def test_nothing_after_eos_and_lengths_count_it():
  num_rows = ROWS
  got = sample(
    PARAMS, _prompts(num_rows), np.arange(num_rows), KEY, SamplingParams()
  )
  tokens, weights = np.asarray(got.tokens), np.asarray(got.weights)
  lengths, truncated = np.asarray(got.lengths), np.asarray(got.truncated)
  assert truncated.any()
  assert not truncated.all()
  for row in range(num_rows):
    ends = np.flatnonzero(tokens[row] == EOS_ID)
    assert truncated[row] == (len(ends) == 0)
    expected = T if truncated[row] else ends[0] + 1
    assert lengths[row] == expected
    np.testing.assert_array_equal(weights[row], np.arange(T) < expected)
    assert (tokens[row, expected:] == 0).all()
    assert (tokens[row, :expected] > 0).all()
    assert (np.asarray(got.log_probs)[row, expected:] == 0).all()


@pytest.mark.parametrize("eos_ids", [(5,), (0,), (5, 7)])
def test_any_of_the_callers_eos_ids_ends_a_row(eos_ids):
  got = sample(
    PARAMS,
    _prompts(ROWS),
    np.arange(ROWS),
    KEY,
    SamplingParams(),
    eos_ids=eos_ids,
    forbidden_ids=(),
  )
  tokens, weights = np.asarray(got.tokens), np.asarray(got.weights)
  lengths = np.asarray(got.lengths)
  assert ((tokens == EOS_ID) & (weights > 0)).any()
  last = tokens[np.arange(ROWS), lengths - 1]
  for index in eos_ids:
    assert (last == index).any()
  ended = np.isin(last, eos_ids)
  np.testing.assert_array_equal(ended, ~np.asarray(got.truncated))
  ends = np.isin(tokens, eos_ids) & (weights > 0)
  np.testing.assert_array_equal(ends.sum(1), ended)
  np.testing.assert_array_equal(weights, np.arange(T) < lengths[:, None])


def test_a_row_is_answered_alike_alone_and_in_any_batch():
  num_rows = ROWS
  inputs = _prompts(num_rows)
  rows = np.arange(num_rows) + 1000
  whole = sample(PARAMS, inputs, rows, KEY, SamplingParams())
  order = np.random.default_rng(0).permutation(num_rows)
  shuffled = sample(PARAMS, inputs[order], rows[order], KEY, SamplingParams())
  for name in ("tokens", "weights", "lengths", "truncated", "log_probs"):
    np.testing.assert_array_equal(
      getattr(shuffled, name), getattr(whole, name)[order]
    )
  alone = sample(PARAMS, inputs[7:8], rows[7:8], KEY, SamplingParams())
  np.testing.assert_array_equal(alone.tokens[0], whole.tokens[7])
  part = sample(PARAMS, inputs[3:8], rows[3:8], KEY, SamplingParams())
  np.testing.assert_array_equal(part.tokens, whole.tokens[3:8])


def test_a_longer_limit_only_appends():
  inputs = _prompts(ROWS)
  short = sample(PARAMS, inputs, np.arange(ROWS), KEY, SamplingParams())
  long = _sample(
    MODEL,
    PARAMS,
    inputs,
    np.arange(ROWS),
    KEY,
    SamplingParams(),
    max_length=T + 5,
  )
  np.testing.assert_array_equal(short.tokens, long.tokens[:, :T])


def test_steps_roles_seeds_rows_and_positions_draw_differently():
  config = ToyConfig(num_prompts=1, width=1000, vocabulary_size=1000)
  model = toy_model(config)
  params = {"table": jnp.zeros((1, 1000, 1000))}

  def draw(key, rows):
    inputs = np.ones((4, 1), np.int32)
    got = _sample(
      model, params, inputs, rows, key, SamplingParams(), max_length=6
    )
    return np.asarray(got.tokens)

  rows = np.arange(4)
  base = draw(keys.stream(0, 0, keys.Role.STUDENT_SAMPLE), rows)
  assert len(np.unique(base)) > 20  # 24 draws out of 1,000
  for other in (
    draw(keys.stream(0, 1, keys.Role.STUDENT_SAMPLE), rows),
    draw(keys.stream(0, 0, keys.Role.TEACHER_SAMPLE), rows),
    draw(keys.stream(1, 0, keys.Role.STUDENT_SAMPLE), rows),
    draw(keys.stream(0, 0, keys.Role.STUDENT_SAMPLE), rows + 4),
  ):
    assert (other == base).mean() < 0.2


def _count_decodes(bonus, rows):
  calls = []
  model = toy_model(on_decode=lambda: calls.append(1))
  params = {"table": PARAMS["table"] + bonus}
  got = _sample(
    model,
    params,
    _prompts(len(rows)),
    np.asarray(rows),
    KEY,
    SamplingParams(),
    max_length=T,
  )
  jax.block_until_ready(got)
  jax.effects_barrier()
  return len(calls), got


def test_the_loop_stops_when_all_rows_are_done():
  bonus = np.zeros((3, 12, 12), np.float32)
  bonus[:, 0, 4] = bonus[:, 4, 5] = bonus[:, 5, EOS_ID] = 1000
  calls, got = _count_decodes(bonus, [0, 1, 2])
  assert got.tokens[:, :4].tolist() == [[4, 5, 1, 0]] * 3
  assert calls == 2  # the first token comes from prefill
  never = np.zeros((3, 12, 12), np.float32)
  never[..., EOS_ID] = -1000
  calls, got = _count_decodes(never, [0, 1, 2])
  assert calls == T - 1
  assert got.truncated.all()


def test_filler_rows_get_nothing_and_do_not_keep_the_loop_alive():
  bonus = np.zeros((3, 12, 12), np.float32)
  bonus[..., EOS_ID] = -1000
  bonus[2, :, EOS_ID] = 1000  # the first prompt ends at once
  calls, got = _count_decodes(bonus, [0, -1, -1])
  assert calls == 0
  assert got.lengths.tolist() == [1, 0, 0]
  assert not np.asarray(got.tokens)[1:].any()
  assert not np.asarray(got.weights)[1:].any()
  assert not got.truncated.any()


def test_samples_have_no_gradient():
  def total(params):
    got = sample(params, _prompts(ROWS), np.arange(ROWS), KEY, SamplingParams())
    return jnp.sum(got.log_probs)

  # Forward mode: a while_loop has no reverse one.
  direction = MODEL.init(jax.random.key(8))
  _, tangent = jax.jvp(total, (PARAMS,), (direction,))
  assert tangent == 0


def test_logits_that_are_not_finite_show_in_log_probs():
  params = {"table": PARAMS["table"].at[0].set(jnp.nan)}
  for temperature in (0.0, 1.0):
    decoding = SamplingParams(temperature, 3, 0.9)
    got = sample(params, _prompts(ROWS), np.arange(ROWS), KEY, decoding)
    finite = np.isfinite(got.log_probs).all(1)
    # The second of the three kinds of prompts has id 3, its table is the first.
    np.testing.assert_array_equal(finite, np.arange(ROWS) % 3 != 1)


def test_a_new_decoding_or_key_does_not_compile():
  count = _sample._cache_size
  inputs, rows = _prompts(ROWS), np.arange(ROWS)
  sample(PARAMS, inputs, rows, KEY, SamplingParams())
  before = count()
  other = keys.stream(1, 1, keys.Role.EVALUATION)
  sample(PARAMS, inputs, rows, other, SamplingParams(0.0, 4, 0.5))
  assert count() == before


def test_equal_models_share_a_program():
  inputs, rows = _prompts(ROWS), np.arange(ROWS)
  sample(PARAMS, inputs, rows, KEY, SamplingParams())
  before = _sample._cache_size()
  again = dataclasses.replace(MODEL)
  _sample(again, PARAMS, inputs, rows, KEY, SamplingParams(), max_length=T)
  assert _sample._cache_size() == before
