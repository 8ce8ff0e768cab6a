"""RoBERTa's vocab.json and merges.txt, which CodeT5 has, as a tokenizer.json.

transformers saved slow tokenizers so, and rebuilds their rules in code: bytes
as letters, GPT-2's words, `<s>` before a text and `</s>` behind it. GPT-2 and
Qwen have files of these names too, with other rules: what the settings do not
call RoBERTa's is refused.
"""

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

from gkd.errors import UserError

VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"
_CLASS = "Roberta"  # RobertaTokenizer and RobertaTokenizerFast
_NAMED = {
  "bos": "<s>",
  "eos": "</s>",
  "unk": "<unk>",
  "sep": "</s>",
  "pad": "<pad>",
  "cls": "<s>",
  "mask": "<mask>",
}
_MATCHING = ("single_word", "lstrip", "rstrip", "normalized")


def tokenizer_json(
  vocab: bytes,
  merges: bytes,
  settings: Mapping[str, Any],
  added: Mapping[str, int],
  file: Path,
) -> bytes:
  """The tokenizer.json of the same ids.

  Args:
    vocab: content of vocab.json.
    merges: content of merges.txt.
    settings: of tokenizer_config.json and special_tokens_map.json.
    added: {token: id} of added_tokens.json.
    file: vocab.json, for messages.
  """
  import tokenizers

  kind = settings.get("tokenizer_class")
  if not (kind or "").startswith(_CLASS):
    raise UserError(
      f"{file} is of {f'a {kind}' if kind else 'no tokenizer_class'}, whose"
      " rules it does not tell; save the tokenizer once more with transformers,"
      " which writes them into tokenizer.json"
    )
  prefix_space = bool(settings.get("add_prefix_space"))
  byte_level = tokenizers.pre_tokenizers.ByteLevel(prefix_space)
  try:
    lines = merges.decode().split("\n")
    pairs = [tuple(x.split(" ")) for x in lines if x and x[:2] != "#v"]
    model = tokenizers.models.BPE(json.loads(vocab), pairs)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    named = {
      name: _token(settings.get(f"{name}_token") or token, special=True)
      for name, token in _NAMED.items()
    }
    tokenizer.add_special_tokens([*named.values()])
    listed = settings.get("added_tokens_decoder") or {}
    ids = {index: token for token, index in added.items()}
    ids |= {int(index): entry for index, entry in listed.items()}
    for index, entry in sorted(ids.items()):
      token = _token(entry)
      tokenizer.add_tokens([token])
      if (given := tokenizer.token_to_id(token.content)) != index:
        raise ValueError(f"{token.content} is {index}, but would be {given}")
    sep, cls = (
      (token, tokenizer.token_to_id(token))
      for token in (named["sep"].content, named["cls"].content)
    )
    tokenizer.post_processor = tokenizers.processors.RobertaProcessing(
      sep, cls, add_prefix_space=prefix_space
    )
    return tokenizer.to_str().encode()
  except Exception as error:  # the library raises Exception itself
    raise UserError(
      f"{file} and {MERGES_FILE} beside it cannot be read"
      f" ({' '.join(str(error).split())}); give the files of one model"
    ) from error


def _token(entry: Any, **flags: bool) -> Any:
  """A token of the library of its text, or of how transformers describes it."""
  import tokenizers

  if not isinstance(entry, Mapping):
    return tokenizers.AddedToken(str(entry), **flags)
  flags |= {name: entry[name] for name in _MATCHING if name in entry}
  flags.setdefault("special", entry.get("special", False))
  return tokenizers.AddedToken(str(entry["content"]), **flags)
