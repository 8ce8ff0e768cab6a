"""A SentencePiece model out of the `tokenizer.json` of a Unigram tokenizer.

Recent versions of transformers write it instead of the SentencePiece file.
Pieces, scores and the table of the normaliser stand in both formats, so that
both give the same ids; notes of the training are lost, and with them the hash
of the original file.
"""

import base64
from collections.abc import Mapping
import os
import re
from typing import Any

from gkd.errors import UserError

SENTINEL = re.compile(r"▁?<extra_id_(\d+)>")
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_SPACE = "▁"
# SentencePiece's usual ones, which transformers has as well.
_SPACE_RULES = (
  "add_dummy_prefix",
  "remove_extra_whitespaces",
  "escape_whitespaces",
)
_METASPACE = {
  "type": "Metaspace",
  "replacement": _SPACE,
  "prepend_scheme": "always",
  "split": True,
}
# What other JSON ends in.
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)


def sentencepiece_model(
  tokenizer: Mapping[str, Any],
  path: str | os.PathLike,
  pad: str,
  eos: str,
) -> tuple[bytes, int]:
  """The model file that would give the same ids, and its number of extra ids.

  Args:
    tokenizer: content of tokenizer.json.
    path: where it lies, for messages.
    pad: piece of the padding, which tokenizer.json does not name.
    eos: piece of the end of sequence.

  Returns:
    A serialised `ModelProto` without T5's sentinels, and their number.
  """
  try:
    return _sentencepiece_model(tokenizer, path, pad, eos)
  except UserError:
    raise
  except _UNREADABLE as error:
    raise UserError(
      f"{path} is not a tokenizer.json as transformers writes it"
      f" ({type(error).__name__}: {error}); download it again"
    ) from error


def _sentencepiece_model(
  tokenizer: Mapping[str, Any], path: str | os.PathLike, pad: str, eos: str
) -> tuple[bytes, int]:
  from sentencepiece import sentencepiece_model_pb2

  unigram = tokenizer.get("model") or {}
  if unigram.get("type") != "Unigram":
    raise UserError(
      f"{path} is a tokenizer of type {unigram.get('type')!r}; expected"
      " Unigram or BPE; put the spiece.model of the model beside it"
    )
  _check_spaces(tokenizer, path)
  pieces, extra_ids = _split_sentinels(unigram["vocab"])
  missing = _added_sentinels(tokenizer, len(pieces)) if not extra_ids else 0
  byte_fallback = bool(unigram.get("byte_fallback"))
  names = [piece for piece, _ in pieces]
  ids = {"pad": names.index(pad), "eos": names.index(eos)}
  ids["unk"] = unigram["unk_id"]
  proto = sentencepiece_model_pb2.ModelProto()
  kinds = sentencepiece_model_pb2.ModelProto.SentencePiece
  special = dict.fromkeys(ids.values(), kinds.CONTROL)
  special[ids["unk"]] = kinds.UNKNOWN
  for index, (piece, score) in enumerate(pieces):
    kind = special.get(index, kinds.NORMAL)
    if byte_fallback and _BYTE.fullmatch(piece):
      kind = kinds.BYTE
    elif SENTINEL.fullmatch(piece):
      kind = kinds.USER_DEFINED
    proto.pieces.add(piece=piece, score=score, type=kind)
  trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
  trainer.model_type = sentencepiece_model_pb2.TrainerSpec.UNIGRAM
  trainer.vocab_size = len(pieces)
  trainer.byte_fallback = byte_fallback
  for name, index in ids.items():
    setattr(trainer, f"{name}_id", index)
    setattr(trainer, f"{name}_piece", names[index])
  trainer.bos_id = -1
  normalizer.name = "nmt_nfkc"
  normalizer.precompiled_charsmap = _charsmap(tokenizer, path)
  for rule in _SPACE_RULES:
    setattr(normalizer, rule, True)
  return proto.SerializeToString(), extra_ids or missing


def _split_sentinels(
  vocab: list[tuple[str, float]],
) -> tuple[list[tuple[str, float]], int]:
  """Pieces without T5's sentinels at the end, and how many there were.

  They are `<extra_id_n-1>` to `<extra_id_0>`. Sentinels that a file has with
  another order stay, they are pieces of that file.
  """
  count = 0
  for piece, _ in reversed(vocab):
    match = SENTINEL.fullmatch(piece)
    if not match or int(match.group(1)) != count:
      break
    count += 1
  return [tuple(entry) for entry in vocab[: len(vocab) - count]], count


def _added_sentinels(tokenizer: Mapping[str, Any], size: int) -> int:
  """Sentinels that stand among the added tokens only."""
  return sum(
    token["id"] >= size and bool(SENTINEL.fullmatch(token["content"]))
    for token in tokenizer.get("added_tokens") or []
  )


def _check_spaces(tokenizer: Mapping[str, Any], path) -> None:
  """Refuses rules for spaces that SentencePiece's two switches do not say."""
  whole = tokenizer.get("pre_tokenizer") or {}
  parts = whole.get("pretokenizers", [whole])
  metaspace = [part for part in parts if part.get("type") == "Metaspace"]
  known = all(p.get("type") in ("Metaspace", "WhitespaceSplit") for p in parts)
  prefix = [
    part.get("prepend_scheme", "always")
    if part.get("add_prefix_space", True)
    else "never"
    for part in metaspace
  ]
  if not known or prefix != ["always"] or metaspace[0]["replacement"] != _SPACE:
    raise UserError(
      f"{path} splits texts by rules that T5's tokenizer does not have"
      f" ({', '.join(str(part.get('type')) for part in parts)}); put the"
      " spiece.model of the model beside it"
    )


def _charsmap(tokenizer: Mapping[str, Any], path) -> bytes:
  """The normaliser's table; empty where nothing is normalised.

  Removing spaces around a text and repeated ones, which some versions write as
  further steps, is SentencePiece's `remove_extra_whitespaces`.
  """
  whole = tokenizer.get("normalizer") or {}
  steps = whole.get("normalizers", [whole] if whole else [])
  kinds = [step.get("type") for step in steps]
  if any(kind not in ("Precompiled", "Strip", "Replace") for kind in kinds):
    raise UserError(
      f"{path} normalises texts by {', '.join(map(str, kinds))}; expected the"
      " table of SentencePiece; put the spiece.model of the model beside it"
    )
  tables = [
    s["precompiled_charsmap"] for s in steps if s["type"] == "Precompiled"
  ]
  return base64.b64decode(tables[0]) if tables and tables[0] else b""


def tokenizer_json(vocabulary: Any) -> dict[str, Any]:
  """The inverse: `tokenizer.json` of a `SentencePieceVocabulary`.

  transformers makes one by itself from T5's own file; it leaves the byte
  fallback out of others.
  """
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto.FromString(vocabulary.content)
  normalizer, trainer = proto.normalizer_spec, proto.trainer_spec
  is_unigram = trainer.model_type == sentencepiece_model_pb2.TrainerSpec.UNIGRAM
  if not is_unigram or not all(getattr(normalizer, r) for r in _SPACE_RULES):
    raise UserError(
      "the SentencePiece file is not a Unigram model with the usual rules for"
      " spaces, so that transformers cannot stand for it; write the model"
      " without a tokenizer"
    )
  pieces = [[piece.piece, piece.score] for piece in proto.pieces]
  sentinels = [f"<extra_id_{i}>" for i in reversed(range(vocabulary.extra_ids))]
  vocab = [*pieces, *([sentinel, 0.0] for sentinel in sentinels)]
  eos_id = vocabulary.eos_ids[0]
  special = sorted({vocabulary.pad_id, eos_id, vocabulary.unk_id})
  added = [*special, *range(len(pieces), len(vocab))]
  table = base64.b64encode(normalizer.precompiled_charsmap).decode()
  precompiled = {"type": "Precompiled", "precompiled_charsmap": table}
  splitters = [{"type": "WhitespaceSplit"}, _METASPACE]
  decoders = [{"type": "ByteFallback"}, _METASPACE]
  return {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [_added_token(index, vocab[index][0]) for index in added],
    "normalizer": precompiled if table else None,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": splitters},
    "post_processor": _ending_in(vocab[eos_id][0], eos_id),
    "decoder": {"type": "Sequence", "decoders": decoders},
    "model": {
      "type": "Unigram",
      "unk_id": vocabulary.unk_id,
      "vocab": vocab,
      "byte_fallback": trainer.byte_fallback,
    },
  }


def _ending_in(eos: str, eos_id: int) -> dict[str, Any]:
  """The rule that puts the end of sequence behind each text."""
  end = {"SpecialToken": {"id": eos, "type_id": 0}}
  first = {"Sequence": {"id": "A", "type_id": 0}}
  second = {"Sequence": {"id": "B", "type_id": 0}}
  return {
    "type": "TemplateProcessing",
    "single": [first, end],
    "pair": [first, end, second, end],
    "special_tokens": {eos: {"id": eos, "ids": [eos_id], "tokens": [eos]}},
  }


def _added_token(index: int, text: str) -> dict[str, Any]:
  flags = ("single_word", "lstrip", "rstrip", "normalized")
  token = {"id": index, "content": text, **dict.fromkeys(flags, False)}
  return {**token, "special": True}
