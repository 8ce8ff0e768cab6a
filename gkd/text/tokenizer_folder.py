"""The vocabulary of a folder: a Hugging Face tokenizer, or one of our own.

  vocabulary = load("flan-t5-small")     # spiece.model and 100 extra ids

Read are `spiece.model`, ByT5's settings, and a lone `tokenizer.json` of a
Unigram model, which recent versions of transformers write instead of the
SentencePiece file: see `unigram_json.py`. What T5's tokenizer cannot have, such
as tokens that somebody added, is refused and never left out silently.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
from typing import Any

from gkd.errors import UserError
from gkd.text import unigram_json
from gkd.text.characters import ByteVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import load as load_vocabulary

SENTENCEPIECE_FILE = "spiece.model"
SPEC_FILE = "vocabulary.json"
# Where a run, or a model that was saved, keeps its vocabulary.
SPEC_FOLDER = "vocabulary"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# transformers' defaults where tokenizer_config.json does not say.
_T5_EXTRA_IDS = 100
_BYT5_EXTRA_IDS = 125
_SENTINEL = re.compile(r"▁?<extra_id_\d+>")
_SPECIAL = {"<pad>", "</s>", "<unk>"}


def load(folder: str | os.PathLike) -> Vocabulary | None:
  """The vocabulary that lies in a folder; None where there is none.

  Args:
    folder: of a Hugging Face model or tokenizer, of a run, a saved model or a
      token cache of ours.

  Raises:
    UserError: damaged files, or a tokenizer that T5's cannot stand for.
  """
  folder = Path(folder)
  for spec in (folder / SPEC_FILE, folder / SPEC_FOLDER / SPEC_FILE):
    if spec.is_file():
      return load_vocabulary(spec)
  settings = _read_json(folder / CONFIG_FILE)
  if str(settings.get("tokenizer_class", "")).startswith("ByT5"):
    added = _added(settings)
    _refuse_added(folder, added)
    # transformers 5 writes "extra_ids": 0 beside a list of them.
    listed = len({token for token in added if _SENTINEL.fullmatch(token)})
    extra_ids = _extra_ids(folder, settings, _BYT5_EXTRA_IDS)
    return ByteVocabulary(extra_ids or listed)
  model, tokenizer = folder / SENTENCEPIECE_FILE, folder / TOKENIZER_FILE
  if not model.is_file() and not tokenizer.is_file():
    return None
  fast = _read_json(tokenizer)
  _refuse_added(folder, [*_added(settings), *_added_to_json(fast)])
  if not model.is_file():
    content, extra_ids = unigram_json.sentencepiece_model(fast, tokenizer)
    return SentencePieceVocabulary(model, extra_ids, content)
  plain = SentencePieceVocabulary(model)
  inside = bool(_SENTINEL.fullmatch(plain.piece(plain.size - 1)))
  # The sentinels of mT5 are among the pieces of its file.
  extra_ids = _extra_ids(folder, settings, 0 if inside else _T5_EXTRA_IDS)
  return SentencePieceVocabulary(model, extra_ids)


def _extra_ids(folder: Path, settings: Mapping[str, Any], default: int) -> int:
  extra_ids = settings.get("extra_ids", default)
  if not isinstance(extra_ids, int) or extra_ids < 0:
    raise UserError(
      f"{folder / CONFIG_FILE} has extra_ids {extra_ids!r}; expected a whole"
      " number of at least 0; correct the file"
    )
  return extra_ids


def _read_json(file: Path) -> dict[str, Any]:
  """{} where there is no such file."""
  if not file.is_file():
    return {}
  try:
    content = json.loads(file.read_text("utf-8"))
  except ValueError as error:
    raise UserError(
      f"{file} is not JSON ({error}); download it again"
    ) from error
  if not isinstance(content, dict):
    raise UserError(f"{file} is not a JSON object; download it again")
  return content


def _added(settings: Mapping[str, Any]) -> list[str]:
  """Tokens that tokenizer_config.json adds to those of the model file."""
  tokens = list((settings.get("added_tokens_decoder") or {}).values())
  for key in ("additional_special_tokens", "extra_special_tokens"):
    named = settings.get(key) or []
    tokens += named.values() if isinstance(named, Mapping) else named
  return [_text(token) for token in tokens]


def _added_to_json(tokenizer: Mapping[str, Any]) -> list[str]:
  """Tokens that tokenizer.json has beside those of its model."""
  return [_text(entry) for entry in tokenizer.get("added_tokens") or []]


def _text(entry: Any) -> str:
  return entry.get("content", "") if isinstance(entry, Mapping) else str(entry)


def _refuse_added(folder: Path, tokens: Iterable[str]) -> None:
  others = sorted(
    {t for t in tokens if t not in _SPECIAL and not _SENTINEL.fullmatch(t)}
  )
  if others:
    more = f" and {len(others) - 3} more" * (len(others) > 3)
    raise UserError(
      f"the tokenizer in {folder} has tokens that somebody added,"
      f" {', '.join(map(repr, others[:3]))}{more}; expected T5's own: <pad>,"
      " </s>, <unk> and <extra_id_…>; give the folder of a tokenizer without"
      " them"
    )
