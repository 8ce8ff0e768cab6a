"""The sampler on T5: equal to T5X's decodes, and to teacher-forced scores."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd import masks
from gkd import trees
from gkd.models import t5
from gkd.sampling.params import SamplingParams
from tests.sampling import toy_model

_SIZE = {
  "vocab_size": 128,
  "emb_dim": 32,
  "num_heads": 2,
  "num_encoder_layers": 2,
  "num_decoder_layers": 2,
  "head_dim": 16,
  "dropout_rate": 0.0,
}
_MODELS = {
  "t5_1_1_tiny": {"mlp_dim": 48, "mlp_activations": ("gelu", "linear")},
  "t5_1_0_tiny": {
    "mlp_dim": 64,
    "mlp_activations": ("relu",),
    "logits_via_embedding": True,
  },
}

_sample = toy_model.sample


def _model(name, **overrides):
  config = t5.T5Config.from_size(_SIZE, **_MODELS[name], **overrides)
  return t5.encoder_decoder(config)


@functools.cache
def _load(path):
  with np.load(path) as file:
    return dict(file)


def _params(golden, name, which):
  return trees.unflatten(_load(golden / "t5x" / name / f"params_{which}.npz"))


@pytest.mark.parametrize("name", _MODELS)
@pytest.mark.parametrize("which", ["start", "trained160"])
def test_greedy_decodes_equal_t5x(golden, name, which):
  expected = _load(golden / "t5x" / name / f"decode_{which}.npz")
  inputs = _load(golden / "t5x" / "batch.npz")["encoder_input_tokens"]
  got = _sample(
    _model(name),
    _params(golden, name, which),
    inputs,
    np.arange(4),
    keys.stream(0, 0, keys.Role.EVALUATION),
    SamplingParams(temperature=0.0),
    max_length=10,
    forbidden_ids=(),  # T5X masks nothing
  )
  tokens = expected["greedy_tokens"]
  # T5X sorts its decodes by score: with one per prompt there is one order.
  np.testing.assert_array_equal(got.tokens, tokens[:, 0])
  np.testing.assert_allclose(
    np.sum(got.log_probs, axis=-1), expected["greedy_logprob"][:, 0], atol=1e-4
  )
  if which == "trained160":
    assert not np.asarray(got.truncated).all()


def _case(golden, name):
  """Model with padded ids, parameters and prompts of golden/{t5x,transformers}.

  umT5 is the one with a bias per layer.
  """
  if name in _MODELS:
    model = _model(name, vocabulary_size=127)
    inputs = _load(golden / "t5x" / "batch.npz")["encoder_input_tokens"]
    return model, _params(golden, name, "trained160"), inputs
  arrays = _load(golden / "transformers" / f"{name}.npz")
  config = t5.T5Config.from_size(
    json.loads(str(arrays["options"])), vocabulary_size=39
  )
  params = {
    path.removeprefix("params/"): array.astype(np.float32)
    for path, array in arrays.items()
    if path.startswith("params/")
  }
  return t5.encoder_decoder(config), trees.unflatten(params), arrays["inputs"]


@pytest.mark.parametrize("name", [*_MODELS, "umt5"])
def test_cached_log_probs_equal_teacher_forced_ones(golden, name):
  """Also for a row that ends early, and with padded ids masked."""
  model, params, inputs = _case(golden, name)
  temperature = 0.8
  got = _sample(
    model,
    params,
    inputs,
    np.arange(4),
    keys.stream(0, 0, keys.Role.STUDENT_SAMPLE),
    SamplingParams(temperature),
    max_length=12,
  )
  assert len(set(np.asarray(got.lengths).tolist())) > 1
  logits = jax.jit(model.logits)(params, inputs, got.tokens) / temperature
  logits = masks.mask_padded_ids(
    logits, model.vocabulary_size, forbidden_ids=(0,)
  )
  log_probs = jnp.take_along_axis(
    jax.nn.log_softmax(logits), got.tokens[..., None], axis=-1
  )[..., 0]
  np.testing.assert_allclose(
    got.log_probs,
    np.where(np.asarray(got.weights) > 0, log_probs, 0.0),
    atol=2e-5,
  )


def test_a_row_of_t5_is_answered_alike_in_any_batch_and_width(golden):
  model = _model("t5_1_1_tiny", vocabulary_size=127)
  params = _params(golden, "t5_1_1_tiny", "trained160")
  inputs = _load(golden / "t5x" / "batch.npz")["encoder_input_tokens"]
  key = keys.stream(0, 0, keys.Role.STUDENT_SAMPLE)
  draw = functools.partial(_sample, model, params)
  whole = draw(inputs, np.arange(4), key, SamplingParams(), max_length=12)
  alone = draw(
    np.pad(inputs[2:3], ((0, 0), (0, 5))),
    np.array([2]),
    key,
    SamplingParams(),
    max_length=12,
  )
  np.testing.assert_array_equal(alone.tokens[0], whole.tokens[2])
