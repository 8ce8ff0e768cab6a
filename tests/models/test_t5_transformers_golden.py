"""Logits and greedy tokens against transformers (golden/transformers)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import masks
from gkd import trees
from gkd.models import t5

SIZE = {
  "vocab_size": 40,
  "emb_dim": 24,
  "num_heads": 3,
  "num_encoder_layers": 2,
  "num_decoder_layers": 1,
  "head_dim": 5,
  "mlp_dim": 20,
}
# `CASES` of golden/transformers/make.py, which needs torch to be imported.
OPTIONS = {
  "t5_1_0": {"mlp_activations": ("relu",), "logits_via_embedding": True},
  "t5_1_1": {"mlp_activations": ("gelu", "linear")},
  "umt5": {
    "mlp_activations": ("silu", "linear"),
    "bias_per_layer": True,
    "relative_buckets": 12,
    "relative_max_distance": 20,
  },
}


def load(golden, name):
  """The model, its parameters and the arrays of a golden file."""
  model = t5.encoder_decoder(t5.T5Config(**SIZE, **OPTIONS[name]))
  with np.load(golden / "transformers" / f"{name}.npz") as file:
    arrays = dict(file)
  params = trees.unflatten(
    {
      path.removeprefix("params/"): array.astype(np.float32)
      for path, array in arrays.items()
      if path.startswith("params/")
    }
  )
  return model, params, arrays


@pytest.mark.parametrize("name", OPTIONS)
def test_logits_equal_transformers(golden, name):
  model, params, want = load(golden, name)
  got = jax.jit(model.logits)(params, want["inputs"], want["targets"])
  real = want["targets"] > 0
  np.testing.assert_allclose(
    np.asarray(got)[real], want["logits"][real], atol=1e-5
  )


@pytest.mark.parametrize("name", OPTIONS)
def test_greedy_tokens_equal_transformers(golden, name):
  model, params, want = load(golden, name)
  decode = jax.jit(model.decode)
  length = want["greedy"].shape[1]
  cache, logits = jax.jit(model.prefill, static_argnums=2)(
    params, want["inputs"], length
  )
  tokens = []
  for _ in range(length):
    allowed = masks.mask_padded_ids(logits, 40, forbid_pad=True)
    tokens.append(jnp.argmax(allowed, axis=-1))
    cache, logits = decode(params, cache, tokens[-1])
  got, _ = masks.mask_after_eos(jnp.stack(tokens, axis=1))
  np.testing.assert_array_equal(got, want["greedy"])
