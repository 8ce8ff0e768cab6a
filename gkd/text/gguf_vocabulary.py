"""The vocabulary of a GGUF file, out of its metadata.

llama.cpp keeps the tokens, and a name for the rules by which texts are split
before they are merged. A name that is not known here is refused: other rules
give other ids without an error.

Rules: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from collections.abc import Mapping
import json
import os
from typing import Any

from gkd.errors import UserError
from gkd.text import bpe_folder
from gkd.text import chat_formats
from gkd.text import sentencepiece_model
from gkd.text.bpe import BPEVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary

_PREFIX = "tokenizer.ggml."
# What fields of other types, lengths and ranges make Python raise.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
# Types of tokens.
_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
# Those of Llama 3 and Qwen as their tokenizer.json has them; llama.cpp's say
# the same without (?i:…).
_WORDS = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS"
  r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(use_regex: bool) -> dict[str, Any]:
  """The step that makes characters of bytes, after GPT-2's rule if asked."""
  return {
    "type": "ByteLevel",
    "add_prefix_space": False,
    "trim_offsets": True,
    "use_regex": use_regex,
  }


def _split(digits: str) -> list[dict[str, Any]]:
  pattern = {"Regex": _WORDS.replace("DIGITS", digits)}
  split = {"type": "Split", "pattern": pattern, "behavior": "Isolated"}
  return [split | {"invert": False}, _byte_level(False)]


# Steps before the merges, by the names of llama.cpp.
_PRE_TOKENIZERS = {
  "gpt-2": [_byte_level(True)],
  "smollm": [{"type": "Digits", "individual_digits": True}, _byte_level(True)],
  "llama-bpe": _split(r"\p{N}{1,3}"),
  "qwen2": _split(r"\p{N}"),
}


def from_metadata(
  metadata: Mapping[str, Any], path: str | os.PathLike
) -> BPEVocabulary | SentencePieceVocabulary | None:
  """The vocabulary; None where the file has none.

  Args:
    metadata: {name: value} of the whole file.
    path: of the file, for messages.

  Raises:
    UserError: of a kind or with rules that are not known, or incomplete.
  """
  ours = {
    name.removeprefix(_PREFIX): value
    for name, value in metadata.items()
    if name.startswith(_PREFIX)
  }
  kind = ours.get("model")
  if kind is None:
    return None
  try:
    ids = _special_ids(ours)
    template = metadata.get("tokenizer.chat_template")
    find_id = {token: i for i, token in enumerate(ours["tokens"])}.get
    eos_ids = chat_formats.ends_first(ids.pop("ends"), template, find_id)
    options = {"eos_ids": eos_ids, "pad_id": ids.get("pad")}
    options["chat_template"] = template
    if kind == "gpt2":
      content = _tokenizer_json(ours, ids.get("bos"), path)
      return BPEVocabulary(content, file=path, **options)
    if kind == "llama":
      content = _sentencepiece(ours, {**ids, "eos": ours["eos_token_id"]})
      options |= {"content": content, "add_bos": ours.get("add_bos_token")}
      return SentencePieceVocabulary(bpe_folder.SENTENCEPIECE_FILE, **options)
  except UserError:
    raise
  except _DAMAGE as error:
    raise UserError(
      f"{path} has no whole vocabulary ({type(error).__name__}: {error});"
      " download it again, or give another file of the model"
    ) from error
  raise UserError(
    f"{path} has a vocabulary of the kind {kind!r}; expected 'gpt2' or 'llama',"
    " byte-pair encoding; give the Hugging Face folder of the model"
  )


def _special_ids(ours: Mapping[str, Any]) -> dict[str, Any]:
  """{"ends": [ids], "pad": id, "bos": id, "unk": id}, as far as there are."""
  # As llama.cpp has it, turns end with one of these even where nothing says so.
  turn_ends = [chat.turn_end for chat in chat_formats.FORMATS]
  found = [i for i, token in enumerate(ours["tokens"]) if token in turn_ends]
  named = [ours.get(f"{name}_token_id") for name in ("eos", "eot", "eom")]
  ends = [index for index in (*named, *found) if index is not None]
  names = {"pad": "padding", "bos": "bos", "unk": "unknown"}
  ids = {key: ours.get(f"{name}_token_id") for key, name in names.items()}
  return {
    "ends": list(dict.fromkeys(ends)),
    **{name: index for name, index in ids.items() if index is not None},
  }


def _num_tokens(ours: Mapping[str, Any]) -> int:
  """Without the unused ones at the end, which fill the rows of a table."""
  count = len(ours["tokens"])
  while ours["token_type"][count - 1] == _UNUSED:
    count -= 1
  return count


def _tokenizer_json(
  ours: Mapping[str, Any], bos_id: int | None, path: str | os.PathLike
) -> bytes:
  """The tokenizer.json of the same ids."""
  name = ours.get("pre")
  if name not in _PRE_TOKENIZERS:
    raise UserError(
      f"{path} splits texts by the rules {name!r}; expected"
      f" {', '.join(map(repr, _PRE_TOKENIZERS))}; give the Hugging Face folder"
      " of the model, whose tokenizer.json has its rules"
    )
  tokens = ours["tokens"][: _num_tokens(ours)]
  types = ours["token_type"]
  is_llama = name == "llama-bpe"
  # llama.cpp's default depends on the rules.
  begins = bos_id is not None and ours.get("add_bos_token", is_llama)
  model = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    # A word that is a token is not merged.
    "ignore_merges": is_llama,
    "vocab": {token: index for index, token in enumerate(tokens)},
    "merges": [merge.split(" ", 1) for merge in ours["merges"]],
  }
  settings = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
      _added_token(index, token, types[index] == _CONTROL)
      for index, token in enumerate(tokens)
      if types[index] in (_CONTROL, _USER_DEFINED)
    ],
    # llama.cpp leaves it out; Qwen's own tokenizer has it.
    "normalizer": {"type": "NFC"} if name == "qwen2" else None,
    "pre_tokenizer": {
      "type": "Sequence",
      "pretokenizers": _PRE_TOKENIZERS[name],
    },
    "post_processor": _begins_with(tokens[bos_id], bos_id) if begins else None,
    "decoder": _byte_level(True),
    "model": model,
  }
  return json.dumps(settings, ensure_ascii=False, indent=2).encode()


def _added_token(index: int, text: str, special: bool) -> dict[str, Any]:
  flags = ("single_word", "lstrip", "rstrip", "normalized")
  token = {"id": index, "content": text, **dict.fromkeys(flags, False)}
  return {**token, "special": special}


def _begins_with(token: str, index: int) -> dict[str, Any]:
  """The rule that puts a token before a text."""
  start = {"SpecialToken": {"id": token, "type_id": 0}}
  text = {"Sequence": {"id": "A", "type_id": 0}}
  second = {"Sequence": {"id": "B", "type_id": 1}}
  special = {token: {"id": token, "ids": [index], "tokens": [token]}}
  return {
    "type": "TemplateProcessing",
    "single": [start, text],
    "pair": [start, text, second],
    "special_tokens": special,
  }


def _sentencepiece(ours: Mapping[str, Any], ids: dict[str, int]) -> bytes:
  """The tokenizer.model of the same ids."""
  count = _num_tokens(ours)
  kinds = list(ours["token_type"][:count])
  for index, kind in enumerate(kinds):
    # SentencePiece finds no others in a text, where marks of turns have to be.
    if kind == _CONTROL and index not in ids.values():
      kinds[index] = _USER_DEFINED
  pieces = zip(ours["tokens"], ours["scores"], kinds, strict=False)
  return sentencepiece_model.bpe_model(
    pieces, ids, add_dummy_prefix=ours.get("add_space_prefix", True)
  )
