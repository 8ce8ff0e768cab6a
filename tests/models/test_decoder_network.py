"""What decoder-only networks share, around layers as simple as can be."""

import types

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gkd.models import decoder_network
from gkd.models import flax_model
from gkd.models.attention import KeysValues


class Means(nn.Module):
  """Means of the vectors that may be seen, each times its position + 1."""

  config: object
  execution: object

  def __call__(self, embedded, positions, mask, off):
    del off
    return self.decode(embedded, positions, mask)[0]

  def decode(self, embedded, positions, mask, past=None, index=None):
    if past is not None:
      positions = jax.lax.dynamic_slice_in_dim(positions, index, 1, axis=1)
    scaled_B1TD = (embedded * (positions[..., None] + 1))[:, None]
    seen = KeysValues(scaled_B1TD, scaled_B1TD)
    if past is not None:
      seen = past[0].write(seen, index)
    share_BTS = mask[:, 0] / mask[:, 0].sum(-1, keepdims=True)
    return jnp.einsum("BTS,BGSD->BTD", share_BTS, seen.keys), (seen,)


def test_layers_of_another_family_see_prompts_and_earlier_targets_by_position():
  config = types.SimpleNamespace(
    vocab_size=6,
    vocabulary_size=6,
    emb_dim=3,
    dtype="float32",
    logits_via_embedding=True,
    first_id=2,
  )
  model = flax_model.language_model(
    decoder_network.DecoderOnly(config, Means), {}, start_id=2, pad_id=None
  )
  vectors = np.random.RandomState(0).normal(size=(6, 3)).astype(np.float32)
  params = {"token_embedder": {"embedding": vectors}}
  mask = np.array([[0, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)
  inputs = np.where(mask, [[0, 5, 0, 4]], 99)  # 99 is no id
  targets = np.array([[1, 0, 3], [4, 4, 0], [5, 1, 1]])

  forced = model.logits(params, inputs, targets, input_mask=mask)
  cache, logits = model.prefill(params, inputs, 3, input_mask=mask)
  for t in range(3):
    for row in range(3):
      seen = [*(inputs[row, mask[row]] if mask[row].any() else [2])]
      seen += [*targets[row, :t]]
      scaled = vectors[seen] * np.arange(1, len(seen) + 1)[:, None]
      want = vectors @ scaled.mean(axis=0)
      np.testing.assert_allclose(forced[row, t], want, rtol=1e-5)
      np.testing.assert_allclose(logits[row], want, rtol=1e-5)
    cache, logits = model.decode(params, cache, targets[:, t])
  _, logits = model.decode(params, cache, targets[:, 0])
  assert np.isnan(logits).all()
