"""When the head is the embedding, and when the states before it are scaled.

Expected is what versions 4 and 5 of transformers compute from the same file,
by `configuration_*.py` and `modeling_*.py`; `tests/parity/test_hf.py` runs it.
"""

from pathlib import Path

import numpy as np
import pytest

from gkd.checkpoints.hf import hf_head
from gkd.models.t5_params import HF_EMBEDDING
from gkd.models.t5_params import HF_HEAD
from gkd.types import UserError
from tests.checkpoints import tiny_models

FOLDER = Path("some/model")
EMBEDDING = np.arange(12, dtype=np.float32).reshape(4, 3)
OTHER = EMBEDDING + 1
ZEROS = np.zeros((4, 3), np.float32)
ENCODER, DECODER = hf_head.COPIES


def config(kind, tied, version="4.57.3", **more):
  saved = {"model_type": kind, "tie_word_embeddings": tied, **more}
  return saved | {"transformers_version": version}


# Whole config.json files say more; these lines alone decide.
SCALED = (
  {"model_type": "t5"},  # version 4, T5 1.0
  config("mt5", True),
  config("umt5", True),
)
OWN = (config("t5", False), config("umt5", False))
UNSCALED = (
  # As version 5 saves a T5 1.1 that it opened: it says that it ties all.
  config("t5", True, scale_decoder_outputs=False),
  config("mt5", True, "5.23.0"),
  config("umt5", True, "5.24.0", scale_decoder_outputs=False),
)


def tensors(shared=None, head=None, encoder=None, decoder=None):
  arrays = {HF_EMBEDDING: shared, HF_HEAD: head}
  arrays |= {ENCODER: encoder, DECODER: decoder}
  return tiny_models.as_leaves(
    {name: array for name, array in arrays.items() if array is not None}
  )


@pytest.mark.parametrize(
  ("configs", "head", "via_embedding", "kept", "sentence"),
  [
    (SCALED, None, True, None, ""),
    (SCALED, EMBEDDING.copy(), True, None, "equals shared.weight"),
    (OWN + UNSCALED, OTHER, False, OTHER, ""),
    # Equal weights, but not scaled: dropping them would change the logits.
    (OWN + UNSCALED, EMBEDDING.copy(), False, EMBEDDING, ""),
    # Version 5 drops the head of a T5 1.1 that it built from a config.
    (UNSCALED, None, False, EMBEDDING, "once more, since states are not scale"),
    (OWN, None, False, None, ""),  # listed as missing later
  ],
)
def test_the_head_is_what_transformers_computes(
  configs, head, via_embedding, kept, sentence
):
  for saved in configs:
    leaves = tensors(EMBEDDING, head)
    is_tied, sentences = hf_head.take_head(FOLDER, leaves, saved)
    assert is_tied is via_embedding
    assert sentence in "".join(sentences)
    assert bool(sentence) == bool(sentences)
    assert (HF_HEAD in leaves) == (kept is not None)
    if kept is not None:
      np.testing.assert_array_equal(leaves[HF_HEAD].read(), kept)


@pytest.mark.parametrize("saved", SCALED)
@pytest.mark.parametrize(
  ("embedding", "head"),
  [
    (EMBEDDING, OTHER),
    (EMBEDDING, EMBEDDING.astype(tiny_models.BFLOAT16)),
    (EMBEDDING, EMBEDDING.reshape(3, 4)),
    (ZEROS, -ZEROS),  # equal numbers, other bits
  ],
)
def test_a_tied_config_with_another_head_is_a_contradiction(
  saved, embedding, head
):
  message = (
    f"^{FOLDER}: lm_head.weight differs from shared.weight, but config.json"
    " ties .* set tie_word_embeddings"
  )
  with pytest.raises(UserError, match=message):
    hf_head.take_head(FOLDER, tensors(embedding, head), saved)


BIAS = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


@pytest.mark.parametrize(
  ("leaves", "kept", "sentences"),
  [
    (
      tensors(EMBEDDING, encoder=EMBEDDING, decoder=EMBEDDING),
      [HF_EMBEDDING],
      [
        f"copies: {ENCODER}, {DECODER} equal shared.weight and are not written"
        " again"
      ],
    ),
    # Safetensors keeps one name of what is shared, and may take any.
    (
      tensors(encoder=EMBEDDING, decoder=EMBEDDING),
      [HF_EMBEDDING],
      [f"copies: {DECODER} equal shared.weight and are not written again"],
    ),
    # Transformers lists it in _keys_to_ignore_on_load_unexpected.
    (
      tensors(EMBEDDING) | tiny_models.as_leaves({BIAS: OTHER}),
      [HF_EMBEDDING],
      [f"left out: {BIAS}, which no attention reads"],
    ),
    (tensors(EMBEDDING, OTHER), [HF_EMBEDDING, HF_HEAD], []),
  ],
)
def test_what_is_there_twice_or_for_nothing_is_left_out_and_said(
  leaves, kept, sentences
):
  assert hf_head.take_copies(FOLDER, leaves) == sentences
  assert list(leaves) == kept


@pytest.mark.parametrize(
  ("present", "name"),
  [("shared", "encoder"), ("shared", "decoder"), ("encoder", "decoder")],
)
def test_a_copy_that_differs_is_refused(present, name):
  message = rf"{name}.embed_tokens.weight differs from shared.* has only once"
  with pytest.raises(UserError, match=message):
    hf_head.take_copies(FOLDER, tensors(**{present: EMBEDDING, name: OTHER}))
