"""Beam search on T5: equal to T5X's, and to teacher-forced scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd import trees
from gkd.models import t5
from gkd.sampling import beam
from tests import golden_t5x

search = jax.jit(
  beam.beam_search,
  static_argnames=("model", "num_beams", "max_length", "mask_ids"),
)


def _model(name, **overrides):
  options, _ = golden_t5x.MODELS[name]
  config = t5.T5Config.from_size(golden_t5x.SIZE, **options, **overrides)
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
@pytest.mark.parametrize("num_beams, alpha", [(4, 0.6), (4, 0.0), (1, 0.6)])
def test_all_beams_equal_t5x(golden, name, which, num_beams, alpha):
  expected = _load(golden / "t5x" / name / f"decode_{which}.npz")
  label = f"beam{num_beams}_alpha0p{alpha * 10:.0f}"
  got = search(
    _model(name),
    _params(golden, name, which),
    _inputs(golden),
    np.arange(4),
    num_beams=num_beams,
    alpha=alpha,
    max_length=10,
    mask_ids=False,
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
