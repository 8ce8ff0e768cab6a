import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.sampling import filters
from gkd.sampling.params import SamplingParams
from gkd.types import UserError
from tests.tiny import log_softmax


def _filter_logits(logits, params):
  return filters.filter_logits(
    logits, params.temperature, params.top_k, params.top_p
  )


_apply = jax.jit(_filter_logits)
_top_k = jax.jit(filters.keep_top_k)
_top_p = jax.jit(filters.keep_top_p)


def _reference_top_k(logits, k):
  """Kept ids by a full sort: all that reach the k-th largest."""
  kth = np.sort(logits, axis=-1)[:, ::-1][:, min(k, logits.shape[1]) - 1]
  return logits >= kth[:, None]


def _reference_top_p(logits, p):
  """Kept ids by a full sort in float64."""
  kept = np.zeros(logits.shape, bool)
  probs = np.exp(log_softmax(logits))
  for row in range(len(logits)):
    order = np.argsort(-probs[row], kind="stable")
    mass = np.cumsum(probs[row][order])
    last = order[min(np.searchsorted(mass, p), len(order) - 1)]
    kept[row] = probs[row] >= probs[row][last]
  return kept


def _logits(rng, shape=(16, 300), forbidden=0.1):
  logits = rng.normal(scale=4, size=shape).astype(np.float32)
  logits[rng.random(shape) < forbidden] = -np.inf
  logits[:, 3] = 1.5  # always something to draw
  return logits


@pytest.mark.parametrize("k", [1, 2, 7, 40, 299, 300, 1000])
def test_top_k_equals_a_sort(k):
  logits = _logits(np.random.default_rng(k))
  got = np.asarray(_top_k(logits, k))
  kept = _reference_top_k(logits, k) & np.isfinite(logits)
  np.testing.assert_array_equal(np.isfinite(got), kept)
  np.testing.assert_array_equal(got[kept], logits[kept])


def test_top_k_keeps_ties_and_signed_zeros():
  logits = np.float32([[2, 1, 1, 1, 0], [0.0, -0.0, -1, -2, -3]])
  got = np.isfinite(_top_k(logits, 2))
  expected = [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]
  np.testing.assert_array_equal(got, np.bool_(expected))
  got = np.isfinite(_top_k(logits, 1))
  expected = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]
  np.testing.assert_array_equal(got, np.bool_(expected))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.8, 0.95, 0.999])
def test_top_p_equals_a_sort(p):
  logits = _logits(np.random.default_rng(int(p * 1000)))
  got = np.asarray(_top_p(logits, p))
  kept = _reference_top_p(logits, p)
  np.testing.assert_array_equal(np.isfinite(got), kept)
  np.testing.assert_array_equal(got[kept], logits[kept])


def test_top_p_is_the_smallest_set_that_reaches_p_and_keeps_ties():
  logits = np.log(np.float32([[0.5, 0.25, 0.125, 0.125]]))
  for p, expected in (
    (0.4, [1, 0, 0, 0]),
    (0.51, [1, 1, 0, 0]),
    (0.76, [1, 1, 1, 1]),  # the last two are tied
  ):
    got = np.isfinite(_top_p(logits, p))[0]
    np.testing.assert_array_equal(got, np.bool_(expected), err_msg=str(p))


def test_top_p_applies_to_what_top_k_left():
  probs = np.float32([[0.4, 0.3, 0.2, 0.1]])
  got = _apply(np.log(probs), SamplingParams(1.0, 2, 0.5))
  # 0.4 / 0.7 > 0.5: one id is enough once the others are gone; 0.4 < 0.5.
  np.testing.assert_array_equal(np.isfinite(got)[0], np.bool_([1, 0, 0, 0]))
  alone = _apply(np.log(probs), SamplingParams(1.0, 0, 0.5))
  np.testing.assert_array_equal(
    np.isfinite(alone), [[True, True, False, False]]
  )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_divides_logits(temperature):
  logits = _logits(np.random.default_rng(5))
  got = jax.nn.log_softmax(_apply(logits, SamplingParams(temperature)))
  expected = log_softmax(np.float64(logits) / temperature)
  np.testing.assert_allclose(got, expected, atol=2e-5)


def test_greedy_leaves_the_distribution_of_the_model():
  logits = _logits(np.random.default_rng(6))
  got = jax.nn.log_softmax(_apply(logits, SamplingParams(0.0, 5, 0.5)))
  np.testing.assert_allclose(got, log_softmax(logits), atol=2e-5)


def test_never_nan_with_one_finite_logit_or_extreme_temperatures():
  logits = np.full((2, 9), -np.inf, np.float32)
  logits[0, 4] = -3e4
  logits[1] = np.linspace(-3e38, 3e38, 9)
  for decoding in (
    SamplingParams(1e-4, 3, 0.5),
    SamplingParams(1.0, 1, 0.9),
    SamplingParams(1e9, 9, 0.1),
    SamplingParams(0.0),
  ):
    got = np.asarray(_apply(logits, decoding))
    assert not np.isnan(got).any()
    assert (got.max(-1) == 0).all()
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(got[0])), [4])


def test_filters_work_on_one_id_and_on_bfloat16():
  assert _apply(jnp.zeros((2, 1)), SamplingParams(0.5, 3, 0.5)).shape == (2, 1)
  logits = jnp.asarray([[1.0, 2.0, 3.0]], jnp.bfloat16)
  assert _apply(logits, SamplingParams()).dtype == jnp.float32


@pytest.mark.parametrize(
  ("decoding", "message"),
  [
    (SamplingParams(temperature=-1.0), "temperature is -1.0; expected 0"),
    (SamplingParams(temperature=1e-5), "temperature is 1e-05; expected 0"),
    (
      SamplingParams(temperature=float("nan")),
      "temperature is nan; expected 0",
    ),
    (SamplingParams(temperature="1"), "temperature is '1'; expected 0"),
    (SamplingParams(top_k=1.5), "top_k is 1.5; expected a whole"),
    (SamplingParams(top_k=-1), "top_k is -1; expected a whole"),
    (SamplingParams(top_k=True), "top_k is True; expected a whole"),
    (SamplingParams(top_p=0.0), "top_p is 0.0; expected a probability"),
    (SamplingParams(top_p=1.1), "top_p is 1.1; expected a probability"),
  ],
)
def test_wrong_values_are_named(decoding, message):
  with pytest.raises(UserError, match=message.replace(".", r"\.")):
    decoding.validate()


def test_words_say_what_is_on():
  assert SamplingParams().describe() == "at temperature 1"
  assert SamplingParams(0.0, 4).describe() == "greedily"
  words = SamplingParams(0.7, 40, 0.9).describe()
  assert words == "at temperature 0.7, top-k 40, top-p 0.9"
