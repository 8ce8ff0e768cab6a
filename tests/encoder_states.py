"""What T5's encoder hands to the decoder; `LanguageModel` does not show it."""

import jax

from gkd.models import t5_network


def encode(config, params, inputs) -> jax.Array:
  """States [B, I, D] of inputs [B, I]."""

  def states(network, inputs):
    mask = (inputs > 0)[:, None, None, :]
    return network.encoder(network.token_embedder(inputs), mask, True)

  network = t5_network.EncoderDecoder(config)
  return network.apply({"params": params}, inputs, method=states)
