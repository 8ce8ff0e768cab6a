"""Sampler and beam search on T5: equal to T5X and teacher-forced scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd import masks
from gkd import trees
from gkd.models import t5
from gkd.sampling import beam_search
from gkd.sampling.params import SamplingParams
from tests import golden_t5x
from tests import golden_transformers
from tests.sampling import toy_model

PLAIN = SamplingParams()
KEY = keys.stream(0, 0, keys.Role.STUDENT_SAMPLE)
load = functools.cache(golden_t5x.load)


def sample(model, params, inputs, rows, decoding=PLAIN, **options):
  options = {"max_length": 12, **options}
  return toy_model.sample(
    model, params, inputs, np.array(rows), KEY, decoding, **options
  )


def search(model, params, inputs, rows, alpha, num_beams=4):
  """As the fixtures were made: T5X masks nothing."""
  return toy_model.search(
    model,
    params,
    inputs,
    np.array(rows),
    num_beams=num_beams,
    alpha=alpha,
    max_length=10,
    forbidden_ids=(),
  )


def make_model(name, **overrides):
  options, _ = golden_t5x.MODELS[name]
  config = t5.T5Config.from_size(golden_t5x.SIZE, **options, **overrides)
  return t5.encoder_decoder(config)


def params_of(golden, name, which):
  return trees.unflatten(load(golden / "t5x" / name / f"params_{which}.npz"))


def inputs_of(golden):
  return load(golden / "t5x" / "batch.npz")["encoder_input_tokens"]


def teacher_forced(model, params, inputs, tokens, **mask):
  """[B, T] log-probabilities of the tokens."""
  logits = jax.jit(model.logits)(params, inputs, tokens)
  logits = masks.mask_padded_ids(logits, model.vocabulary_size, **mask)
  return jnp.take_along_axis(
    jax.nn.log_softmax(logits), tokens[..., None], axis=-1
  )[..., 0]


@pytest.mark.parametrize("name", golden_t5x.MODELS)
@pytest.mark.parametrize("which", ["start", "trained160"])
def test_greedy_decodes_equal_t5x(golden, name, which):
  expected = load(golden / "t5x" / name / f"decode_{which}.npz")
  got = sample(
    make_model(name),
    params_of(golden, name, which),
    inputs_of(golden),
    range(4),
    SamplingParams(temperature=0.0),
    max_length=10,
    forbidden_ids=(),  # T5X masks nothing
  )
  # T5X sorts its decodes by score: with one per prompt there is one order.
  np.testing.assert_array_equal(got.tokens, expected["greedy_tokens"][:, 0])
  np.testing.assert_allclose(
    np.sum(got.log_probs, axis=-1), expected["greedy_logprob"][:, 0], atol=1e-4
  )
  if which == "trained160":
    assert not np.asarray(got.truncated).all()


def sampled_case(golden, name):
  """Model with padded ids, parameters and prompts of golden/{t5x,transformers}.

  umT5 is the one with a bias per layer.
  """
  if name in golden_t5x.MODELS:
    model = make_model(name, vocabulary_size=127)
    return model, params_of(golden, name, "trained160"), inputs_of(golden)
  file = golden / "transformers" / f"{name}.npz"
  options, params, arrays = golden_transformers.load(file)
  config = t5.T5Config.from_size(options, vocabulary_size=39)
  return t5.encoder_decoder(config), params, arrays["inputs"]


@pytest.mark.parametrize("name", [*golden_t5x.MODELS, "umt5"])
def test_cached_log_probs_equal_teacher_forced_ones(golden, name):
  """Also for a row that ends early, and with padded ids masked."""
  model, params, inputs = sampled_case(golden, name)
  got = sample(model, params, inputs, range(4))
  assert len(set(np.asarray(got.lengths).tolist())) > 1
  log_probs = teacher_forced(
    model, params, inputs, got.tokens, forbidden_ids=(0,)
  )
  np.testing.assert_allclose(
    got.log_probs,
    np.where(np.asarray(got.weights) > 0, log_probs, 0.0),
    atol=2e-5,
  )


@pytest.mark.parametrize(
  "generate", [sample, functools.partial(search, alpha=0.6)]
)
def test_a_row_of_t5_is_the_same_in_any_batch_and_width(golden, generate):
  model, params, inputs = sampled_case(golden, "t5_1_1_tiny")
  whole = generate(model, params, inputs, range(4))
  wide = np.pad(inputs[2:3], ((0, 0), (0, 5)))
  alone = generate(model, params, wide, [2])
  np.testing.assert_array_equal(alone.tokens[0], whole.tokens[2])


@pytest.mark.parametrize("name", golden_t5x.MODELS)
@pytest.mark.parametrize("which", ["start", "trained160"])
@pytest.mark.parametrize(("num_beams", "alpha"), [(4, 0.6), (4, 0.0), (1, 0.6)])
def test_all_beams_equal_t5x(golden, name, which, num_beams, alpha):
  expected = load(golden / "t5x" / name / f"decode_{which}.npz")
  label = f"beam{num_beams}_alpha0p{alpha * 10:.0f}"
  params = params_of(golden, name, which)
  got = search(
    make_model(name), params, inputs_of(golden), range(4), alpha, num_beams
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
  model, inputs = make_model(name), inputs_of(golden)
  kinds = set()
  for which in ("trained160", "start"):
    params = params_of(golden, name, which)
    got = search(model, params, inputs, range(4), 0.8)
    for k in range(4):
      log_probs = teacher_forced(model, params, inputs, got.tokens[:, k])
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


def test_encoder_output_is_not_gathered_and_the_rest_follows(golden):
  """What decode hands on as it is stays; what a token changed follows it."""
  model = make_model("t5_1_1_tiny")
  params = params_of(golden, "t5_1_1_tiny", "start")
  parents = jnp.asarray([[1, 0]])
  seen = {}

  @jax.jit
  def step(params, inputs):
    cache, _ = model.prefill(params, inputs, 4)
    fed, _ = model.decode(params, cache, jnp.asarray([5, 9]))
    followed = beam_search._follow(cache, fed, parents)
    seen["kept"] = followed.memory[0].keys is cache.memory[0].keys
    return fed, followed

  fed, followed = step(params, inputs_of(golden)[:2])
  assert seen["kept"]
  assert not np.array_equal(*fed.past[0].keys)
  np.testing.assert_array_equal(followed.past[0].keys, fed.past[0].keys[::-1])
  assert followed.index == fed.index
