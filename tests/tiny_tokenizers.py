"""Small byte-pair tokenizers: those of a folder and of a GGUF's metadata."""

import functools
import json

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

# Special tokens; id 0 is "!", as in Qwen and Llama 3.
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXTS = (
  "the cat sat on the mat, and 17 dogs looked at it; user assistant system",
  "and  2/5 of 1234 weren't THEY'LL don't I'M YOU'REally",
  "  leading  and trailing \n\n\tlines \r\n x = [1, 23];\n",
  "Ünïcode ﬁne ½ ²٣ 中文字 مرحبا 👩‍👩‍👧 e\u0301",
  "",
)
CHATML = (
  "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}"
  "{{ '<|im_start|>system\nYou are a cat<|im_end|>\n' }}{% endif %}"
  "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"
  "{% endfor %}{% if add_generation_prompt %}"
  "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@functools.cache
def bpe_json(*, special=SPECIAL, digits=True) -> bytes:
  """tokenizer.json of some dozens of merges; `special` have ids from 316."""
  tokenizer = tokenizers.Tokenizer(models.BPE())
  byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
  steps = [pre_tokenizers.Digits(individual_digits=True)] * digits
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=256 + 60,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator([*TEXTS] * 3, trainer)
  tokenizer.add_special_tokens(list(special))
  tokenizer.add_tokens(["<think>"])  # may be part of an answer
  return tokenizer.to_str(pretty=True).encode()


def gguf_metadata(content: bytes, pre: str, **fields) -> dict:
  """What llama.cpp writes of a tokenizer.json of byte-pair encoding."""
  settings = json.loads(content)
  vocab = dict(settings["model"]["vocab"])
  added = {t["content"]: t["id"] for t in settings["added_tokens"]}
  types = {t["content"]: 4 - t["special"] for t in settings["added_tokens"]}
  tokens = sorted(vocab | added, key=(vocab | added).get)
  merges = [" ".join(pair) for pair in settings["model"]["merges"]]
  ours = {
    "model": "gpt2",
    "pre": pre,
    "tokens": [*tokens, "[PAD0]"],
    "token_type": [*(types.get(token, 1) for token in tokens), 5],
    "merges": merges,
    "eos_token_id": added["<|im_end|>"],
    **fields,
  }
  return {f"tokenizer.ggml.{name}": value for name, value in ours.items()}
