"""When the head is the embedding, and when the states before it are scaled.

Expected is what versions 4 and 5 of transformers compute from the same file,
by `configuration_*.py` and `modeling_*.py`; `tests/parity/test_hf.py` runs it.
"""

from pathlib import Path

import ml_dtypes
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
ENCODER, DECODER = hf_head.COPIES


def config(kind, tied, version="", **more):
  saved = {"model_type": kind, "tie_word_embeddings": tied, **more}
  return saved | ({"transformers_version": version} if version else {})


# Whole config.json files say more; these lines alone decide.
SCALED = (
  {"model_type": "t5"},  # version 4, T5 1.0
  config("mt5", True, "4.57.3"),
  config("umt5", True),
)
OWN = (config("t5", False), config("umt5", False))
UNSCALED = (
  # As version 5 saves a T5 1.1 that it opened: it says that it ties all.
  config("t5", True, scale_decoder_outputs=False),
  config("mt5", True, "5.23.0"),
  config("umt5", True, "5.24.0", scale_decoder_outputs=False),
)


def tensors(**arrays):
  names = {"shared": HF_EMBEDDING, "head": HF_HEAD}
  names |= {"encoder": ENCODER, "decoder": DECODER}
  arrays = {n: array for n, array in arrays.items() if array is not None}
  return tiny_models.as_leaves({names[n]: a for n, a in arrays.items()})


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
    found = tensors(shared=EMBEDDING, head=head)
    is_tied, sentences = hf_head.take_head(FOLDER, found, saved)
    assert is_tied is via_embedding
    assert sentence in "".join(sentences)
    assert bool(sentence) == bool(sentences)
    assert (HF_HEAD in found) == (kept is not None)
    if kept is not None:
      np.testing.assert_array_equal(found[HF_HEAD].read(), kept)


ZEROS = np.zeros((4, 3), np.float32)


@pytest.mark.parametrize("saved", SCALED)
@pytest.mark.parametrize(
  ("embedding", "head"),
  [
    (EMBEDDING, OTHER),
    (EMBEDDING, EMBEDDING.astype(ml_dtypes.bfloat16)),
    (EMBEDDING, EMBEDDING.reshape(3, 4)),
    (ZEROS, -ZEROS),  # equal numbers, other bits
  ],
)
def test_a_tied_config_with_another_head_is_a_contradiction(
  saved, embedding, head
):
  found = tensors(shared=embedding, head=head)
  with pytest.raises(UserError, match="set tie_word_embeddings") as error:
    hf_head.take_head(FOLDER, found, saved)
  assert str(error.value).startswith(
    f"{FOLDER}: lm_head.weight differs from shared.weight, but config.json ties"
  )


def test_copies_are_left_out_and_said():
  """Safetensors keeps one name of what is shared, and may take any."""
  copies = dict.fromkeys(("shared", "encoder", "decoder"), EMBEDDING)
  found = tensors(**copies)
  said = hf_head.take_copies(FOLDER, found)
  assert list(found) == [HF_EMBEDDING]
  assert said == [
    f"copies: {ENCODER}, {DECODER} equal shared.weight and are not written"
    " again"
  ]
  del copies["shared"]
  found = tensors(**copies)
  hf_head.take_copies(FOLDER, found)
  assert list(found) == [HF_EMBEDDING]
  found = tensors(shared=EMBEDDING, head=OTHER)
  assert hf_head.take_copies(FOLDER, found) == []
  assert list(found) == [HF_EMBEDDING, HF_HEAD]


@pytest.mark.parametrize(
  ("present", "name"),
  [("shared", "encoder"), ("shared", "decoder"), ("encoder", "decoder")],
)
def test_a_copy_that_differs_is_refused(present, name):
  found = tensors(**{present: EMBEDDING, name: OTHER})
  with pytest.raises(UserError, match="which a T5 has only once") as error:
    hf_head.take_copies(FOLDER, found)
  assert f"{name}.embed_tokens.weight differs from shared" in str(error.value)


def test_a_bias_that_nothing_reads_is_left_out_and_said():
  """Transformers lists it in _keys_to_ignore_on_load_unexpected."""
  bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias"
  found = tensors(shared=EMBEDDING)
  found |= tiny_models.as_leaves({f"{bias}.weight": OTHER})
  (said,) = hf_head.take_copies(FOLDER, found)
  assert said == f"left out: {bias}.weight, which no attention reads"
  assert list(found) == [HF_EMBEDDING]
