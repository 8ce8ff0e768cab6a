"""Folders of decoder-only models against transformers, live: `make parity`.

What these models compute is compared at length in test_decoders_transformers;
here, that a folder holds the same model on both sides.
"""

import jax
import numpy as np
import pytest

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_tokenizer
from gkd.models import registry
from gkd.text import chat_formats
from gkd.text.bpe import BPEVocabulary
from tests import tiny_tokenizers
from tests.checkpoints import tiny_models

pytestmark = pytest.mark.parity

SIZE = {
  "vocab_size": 61,
  "hidden_size": 24,
  "intermediate_size": 40,
  "num_hidden_layers": 3,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 8,
  "bos_token_id": 1,
  "eos_token_id": [2, 5],
  "pad_token_id": 3,
  "rms_norm_eps": 1e-5,
}
LLAMA3 = {
  "rope_type": "llama3",
  "rope_theta": 500.0,
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 16,
}
LINEAR = {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}
UNTIED = {"tie_word_embeddings": False}
TIED = {"tie_word_embeddings": True}
KINDS = {
  "Llama": UNTIED | {"rope_parameters": LLAMA3},
  "Mistral": UNTIED | {"rope_parameters": LINEAR, "sliding_window": 4},
  "Qwen2": TIED,
  "Qwen3": TIED,
  "Gemma3": TIED
  | {
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "rope_parameters": {
      "full_attention": LINEAR,
      "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
    },
  },
}
PROMPT = np.arange(7, 20)[None]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_is_the_same_model_there_here_and_back(
  torch, transformers, tmp_path, kind, dtype
):
  torch.manual_seed(3)
  name = {"Gemma3": "Gemma3Text"}.get(kind, kind)
  config = getattr(transformers, f"{name}Config")(**SIZE | KINDS[kind])
  theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
  with torch.no_grad():
    for tensor in theirs.parameters():
      tensor.normal_(std=0.3)
  theirs = theirs.to(getattr(torch, dtype))
  theirs.save_pretrained(
    tmp_path / "theirs", max_shard_size=9000 if dtype == "bfloat16" else 10**9
  )

  opened = source.open_checkpoint(tmp_path / "theirs")
  assert {leaf.dtype for leaf in opened.leaves.values()} == {dtype}
  tiny_models.save(tmp_path / "gkd", opened)
  tiny_models.convert(tmp_path / "gkd", tmp_path / "ours", to="hf")
  back, info = type(theirs).from_pretrained(
    tmp_path / "ours", output_loading_info=True, dtype="auto"
  )
  assert not any(info.values()), info
  assert back.dtype == theirs.dtype
  for key, tensor in theirs.state_dict().items():
    assert torch.equal(back.state_dict()[key], tensor), key
  prompt = torch.tensor(PROMPT)
  greedy = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 3}
  texts = [m.generate(prompt, **greedy) for m in (theirs, back)]
  assert torch.equal(*texts)
  if dtype == "bfloat16":
    return
  # Each token that they choose is the one that we would.
  answer = texts[0].numpy()[:, PROMPT.shape[1] :]
  params = {n: leaf.read() for n, leaf in opened.leaves.items()}
  model = registry.build(opened.config)
  got = jax.jit(model.logits)(trees.unflatten(params), PROMPT, answer)
  with torch.no_grad():
    want = theirs(texts[0]).logits.numpy()[:, PROMPT.shape[1] - 1 : -1]
  np.testing.assert_allclose(got, want, atol=1e-4 * np.ptp(want))
  np.testing.assert_array_equal(np.argmax(got, axis=-1), answer)


def test_a_byte_pair_tokenizer_gives_the_same_ids_there(transformers, tmp_path):
  words = BPEVocabulary(
    tiny_tokenizers.bpe_json(), [318], 316, tiny_tokenizers.CHATML
  )
  hf_tokenizer.write(tmp_path, words)
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
  for text in tiny_tokenizers.TEXTS:
    assert tokenizer(text)["input_ids"] == words.encode(text)
  assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (316, 318)
  frame = chat_formats.find(words)
  turns = [{"role": "user", "content": "hi"}]
  assert frame.before + "hi" + frame.after == tokenizer.apply_chat_template(
    turns, tokenize=False, add_generation_prompt=True
  )
