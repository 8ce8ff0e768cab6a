"""Beam search on T5: equal to T5X's, and to teacher-forced scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import trees
from gkd.models import t5
from gkd.sampling import beam_search
from tests import golden_t5x
from tests.sampling import toy_model


def _found(model, params, inputs, rows, alpha, num_beams=4):
  """As the fixtures were made: all tests share a few compiled programs."""
  return toy_model.search(
    model,
    params,
    inputs,
    rows,
    num_beams=num_beams,
    alpha=alpha,
    max_length=10,
    forbidden_ids=(),  # T5X masks nothing
  )


def _model(name):
  options, _ = golden_t5x.MODELS[name]
  config = t5.T5Config.from_size(golden_t5x.SIZE, **options)
  return t5.encoder_decoder(config)


@functools.cache
def _load(path):
  return golden_t5x.load(path)


def _params(golden, name, which):
  return trees.unflatten(_load(golden / "t5x" / name / f"params_{which}.npz"))


def _inputs(golden):
  return _load(golden / "t5x" / "batch.npz")["encoder_input_tokens"]


@pytest.mark.parametrize("name", golden_t5x.MODELS)
@pytest.mark.parametrize("which", ["start", "trained160"])
@pytest.mark.parametrize(("num_beams", "alpha"), [(4, 0.6), (4, 0.0), (1, 0.6)])
def test_all_beams_equal_t5x(golden, name, which, num_beams, alpha):
  expected = _load(golden / "t5x" / name / f"decode_{which}.npz")
  label = f"beam{num_beams}_alpha0p{alpha * 10:.0f}"
  got = _found(
    _model(name),
    _params(golden, name, which),
    _inputs(golden),
    np.arange(4),
    alpha,
    num_beams,
  )
  # T5X has the best one last.
  tokens = expected[f"{label}_tokens"][:, ::-1]
  scores = expected[f"{label}_scores"][:, ::-1]
  np.testing.assert_array_equal(got.tokens, tokens)
  empty = np.isneginf(np.asarray(got.scores))
  np.testing.assert_array_equal(empty, scores < -9e6)
  np.testing.assert_allclose(
    np.asarray(got.scores)[~empty], scores[~empty], atol=1e-4
  )
  np.testing.assert_array_equal(got.lengths, (tokens > 0).sum(-1))
  np.testing.assert_array_equal(got.truncated, ~empty & ~(tokens == 1).any(-1))


@pytest.mark.parametrize("name", golden_t5x.MODELS)
def test_scores_are_teacher_forced_log_probs_over_the_penalty(golden, name):
  """For finished beams; for live ones without the penalty."""
  model = _model(name)
  inputs = _inputs(golden)
  teacher_forced = jax.jit(model.logits)
  kinds = set()
  for which in ("trained160", "start"):
    params = _params(golden, name, which)
    got = _found(model, params, inputs, np.arange(4), 0.8)
    for k in range(4):
      tokens = got.tokens[:, k]
      log_probs = jnp.take_along_axis(
        jax.nn.log_softmax(teacher_forced(params, inputs, tokens)),
        tokens[..., None],
        axis=-1,
      )[..., 0]
      sums = np.where(np.asarray(got.weights[:, k]) > 0, log_probs, 0).sum(-1)
      penalty = ((5 + np.asarray(got.lengths[:, k])) / 6) ** 0.8
      cut = np.asarray(got.truncated[:, k])
      there = np.asarray(got.lengths[:, k]) > 0
      kinds |= set(cut[there].tolist())
      expected = np.where(cut, sums, sums / penalty)
      np.testing.assert_allclose(
        got.scores[:, k][there], expected[there], atol=5e-5
      )
  assert kinds == {True, False}


def test_a_row_of_t5_is_searched_alike_in_any_batch_and_width(golden):
  model = _model("t5_1_1_tiny")
  params = _params(golden, "t5_1_1_tiny", "trained160")
  inputs = _inputs(golden)
  whole = _found(model, params, inputs, np.arange(4), 0.6)
  alone = _found(
    model, params, np.pad(inputs[2:3], ((0, 0), (0, 5))), np.array([2]), 0.6
  )
  np.testing.assert_array_equal(alone.tokens[0], whole.tokens[2])
  np.testing.assert_allclose(alone.scores[0], whole.scores[2], atol=1e-5)


def test_encoder_output_is_not_gathered_and_the_rest_follows(golden):
  """What decode hands on as it is stays; what a token changed follows it."""
  model = _model("t5_1_1_tiny")
  params = _params(golden, "t5_1_1_tiny", "start")
  parents = jnp.asarray([[1, 0]])
  seen = {}

  @jax.jit
  def step(params, inputs):
    cache, _ = model.prefill(params, inputs, 4)
    fed, _ = model.decode(params, cache, jnp.asarray([5, 9]))
    followed = beam_search._follow(cache, fed, parents)
    seen["kept"] = followed.memory[0].keys is cache.memory[0].keys
    return fed, followed

  fed, followed = step(params, _inputs(golden)[:2])
  assert seen["kept"]
  assert not np.array_equal(*fed.past[0].keys)
  np.testing.assert_array_equal(followed.past[0].keys, fed.past[0].keys[::-1])
  assert followed.index == fed.index
