"""T5 against outputs of transformers (golden/transformers)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd.losses import likelihood
from gkd.models import t5
from tests import encoder_states
from tests.golden_transformers import load

FILES = (
  "t5_1_0",
  "t5_1_1",
  "umt5",
  "ul2",
  "gated_gelu_tied",
  "t5_1_0_odd",
)


@pytest.fixture(params=FILES)
def path(golden, request):
  return golden / "transformers" / f"{request.param}.npz"


def test_states_logits_and_loss_equal_transformers(path):
  options, params, want = load(path)
  model = t5.encoder_decoder(t5.T5Config.from_size(options))

  @jax.jit
  def run(params, inputs, targets):
    states = encoder_states.encode(model.config, params, inputs)
    return states, model.logits(params, inputs, targets)

  encoded, logits = map(
    np.asarray, run(params, want["inputs"], want["targets"])
  )
  real = want["inputs"] > 0
  np.testing.assert_allclose(encoded[real], want["encoded"][real], atol=1e-5)
  real = want["targets"] > 0
  np.testing.assert_allclose(logits[real], want["logits"][real], atol=1e-5)
  # Labels of −100 there are weights of 0 here.
  share = masks.coefficients(jnp.asarray(real), "token")
  got = jnp.sum(share * likelihood.cross_entropy(logits, want["targets"]))
  np.testing.assert_allclose(got, want["loss"], rtol=1e-6)


def test_greedy_tokens_equal_transformers(path):
  options, params, want = load(path)
  model = t5.encoder_decoder(t5.T5Config.from_size(options))
  length = want["greedy"].shape[1]

  @jax.jit
  def greedy(params, inputs):
    def step(carry, _):
      cache, logits = carry
      allowed = masks.mask_padded_ids(
        logits, model.vocabulary_size, forbidden_ids=(0,)
      )
      token = jnp.argmax(allowed, axis=-1)
      return model.decode(params, cache, token), token

    start = model.prefill(params, inputs, length)
    return jax.lax.scan(step, start, length=length)[1].T

  tokens = np.asarray(greedy(params, want["inputs"]))
  ended = np.cumsum(tokens == 1, axis=-1) - (tokens == 1) > 0
  np.testing.assert_array_equal(np.where(ended, 0, tokens), want["greedy"])


def test_bfloat16_rounds_no_more_than_transformers_does(golden):
  options, params, want = load(golden / "transformers" / "ul2.npz")
  config = t5.T5Config.from_size(options, dtype="bfloat16")
  logits = jax.jit(t5.encoder_decoder(config).logits)
  real = want["targets"] > 0

  def error(logits):
    """Root mean square distance from the float32 logits of transformers."""
    return np.sqrt(np.mean(np.square(logits - want["logits"])[real]))

  bound = error(want["logits_bfloat16"])
  got = error(np.asarray(logits(params, want["inputs"], want["targets"])))
  # Half precision is really used, but norms, softmax and logits are float32
  # here, where transformers rounds them too.
  assert 0.2 * bound < got < bound
  # One bit less in the weights alone would be seen.
  coarse = jax.tree.map(lambda w: jax.lax.reduce_precision(w, 8, 6), params)
  assert error(logits(coarse, want["inputs"], want["targets"])) > bound
