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
OWN = EMBEDDING + 1
ENCODER, DECODER = hf_head.COPIES
# Whole config.json files say more; these lines alone decide.
TIED_1_0 = {"model_type": "t5"}
UNTIED_1_1 = {"model_type": "t5", "tie_word_embeddings": False}
# As version 5 saves a T5 1.1 that it opened: it says that it ties all.
SAVED_BY_5 = {
  "model_type": "t5",
  "tie_word_embeddings": True,
  "scale_decoder_outputs": False,
}
MT5_BY_5 = {
  "model_type": "mt5",
  "tie_word_embeddings": True,
  "transformers_version": "5.23.0",
}
MT5_TIED_BY_4 = MT5_BY_5 | {"transformers_version": "4.57.3"}
UMT5 = {"model_type": "umt5", "tie_word_embeddings": False}
UMT5_TIED = {"model_type": "umt5", "tie_word_embeddings": True}


def tensors(**arrays):
  names = {"shared": HF_EMBEDDING, "head": HF_HEAD}
  names |= {"encoder": ENCODER, "decoder": DECODER}
  return tiny_models.as_leaves({names[n]: a for n, a in arrays.items()})


@pytest.mark.parametrize("saved", [TIED_1_0, MT5_TIED_BY_4, UMT5_TIED])
def test_a_tied_head_is_the_embedding_and_scaled(saved):
  found = tensors(shared=EMBEDDING)
  assert hf_head.take_head(FOLDER, found, saved) == (True, [])
  assert list(found) == [HF_EMBEDDING]


@pytest.mark.parametrize("saved", [UNTIED_1_1, UMT5, SAVED_BY_5, MT5_BY_5])
def test_a_head_of_its_own_is_kept(saved):
  found = tensors(shared=EMBEDDING, head=OWN)
  assert hf_head.take_head(FOLDER, found, saved) == (False, [])
  np.testing.assert_array_equal(found[HF_HEAD].read(), OWN)


@pytest.mark.parametrize("saved", [UNTIED_1_1, UMT5, SAVED_BY_5, MT5_BY_5])
def test_a_head_of_its_own_may_equal_the_embedding(saved):
  """Equal weights, but not scaled: dropping them would change the logits."""
  found = tensors(shared=EMBEDDING, head=EMBEDDING.copy())
  assert hf_head.take_head(FOLDER, found, saved) == (False, [])
  assert HF_HEAD in found


@pytest.mark.parametrize("saved", [SAVED_BY_5, MT5_BY_5])
def test_version_5_ties_without_scaling_and_that_is_said(saved):
  """What a T5 1.1 is that version 5 built from a config: it drops the head."""
  found = tensors(shared=EMBEDDING)
  via_embedding, said = hf_head.take_head(FOLDER, found, saved)
  assert not via_embedding
  assert "once more, since states are not scaled" in said[0]
  np.testing.assert_array_equal(found[HF_HEAD].read(), EMBEDDING)


@pytest.mark.parametrize("saved", [UNTIED_1_1, UMT5])
def test_a_missing_head_is_not_made_up(saved):
  """It is listed as missing later."""
  found = tensors(shared=EMBEDDING)
  assert hf_head.take_head(FOLDER, found, saved) == (False, [])
  assert HF_HEAD not in found


@pytest.mark.parametrize("saved", [TIED_1_0, MT5_TIED_BY_4, UMT5_TIED])
def test_a_copy_of_a_tied_head_is_left_out_and_said(saved):
  found = tensors(shared=EMBEDDING, head=EMBEDDING.copy())
  via_embedding, said = hf_head.take_head(FOLDER, found, saved)
  assert via_embedding
  assert HF_HEAD not in found
  assert "equals shared.weight" in said[0]


@pytest.mark.parametrize("saved", [TIED_1_0, MT5_TIED_BY_4, UMT5_TIED])
@pytest.mark.parametrize(
  "head",
  [
    OWN,
    EMBEDDING.astype(ml_dtypes.bfloat16),
    EMBEDDING.reshape(3, 4),
    -EMBEDDING,
  ],
)
def test_a_tied_config_with_another_head_is_a_contradiction(saved, head):
  found = tensors(shared=EMBEDDING, head=head)
  with pytest.raises(UserError, match="set tie_word_embeddings") as error:
    hf_head.take_head(FOLDER, found, saved)
  assert str(error.value).startswith(
    f"{FOLDER}: lm_head.weight differs from shared.weight, but config.json ties"
  )


def test_zero_and_minus_zero_are_not_the_same_bits():
  zeros = np.zeros((4, 3), np.float32)
  with pytest.raises(UserError, match=r"lm_head\.weight differs"):
    hf_head.take_head(FOLDER, tensors(shared=zeros, head=-zeros), TIED_1_0)


def test_copies_are_left_out_and_said():
  found = tensors(shared=EMBEDDING, encoder=EMBEDDING, decoder=EMBEDDING)
  said = hf_head.take_copies(FOLDER, found)
  assert list(found) == [HF_EMBEDDING]
  assert said == [
    f"copies: {ENCODER}, {DECODER} equal shared.weight and are not written"
    " again"
  ]


@pytest.mark.parametrize("other", ["encoder", "decoder"])
def test_a_copy_that_differs_is_refused(other):
  found = tensors(shared=EMBEDDING, **{other: OWN})
  with pytest.raises(UserError, match="which a T5 has only once") as error:
    hf_head.take_copies(FOLDER, found)
  assert f"{other}.embed_tokens.weight differs from shared" in str(error.value)


def test_an_embedding_under_the_name_of_its_copy_is_found():
  """Safetensors keeps one name of what is shared, and may take any."""
  found = tensors(encoder=EMBEDDING, decoder=EMBEDDING)
  hf_head.take_copies(FOLDER, found)
  assert list(found) == [HF_EMBEDDING]
  found = tensors(encoder=EMBEDDING, decoder=OWN)
  with pytest.raises(UserError, match="which a T5 has only once"):
    hf_head.take_copies(FOLDER, found)


def test_a_bias_that_nothing_reads_is_left_out_and_said():
  """Transformers lists it in _keys_to_ignore_on_load_unexpected."""
  bias = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias"
  found = tensors(shared=EMBEDDING)
  found |= tiny_models.as_leaves({f"{bias}.weight": OWN})
  (said,) = hf_head.take_copies(FOLDER, found)
  assert said == f"left out: {bias}.weight, which no attention reads"
  assert list(found) == [HF_EMBEDDING]


def test_nothing_twice_is_nothing_to_say():
  found = tensors(shared=EMBEDDING, head=OWN)
  assert hf_head.take_copies(FOLDER, found) == []
  assert list(found) == [HF_EMBEDDING, HF_HEAD]
