"""The vocabulary of a folder: a Hugging Face tokenizer, or one of our own.

Read are `spiece.model`, ByT5's settings, a lone `tokenizer.json` of a Unigram
model, see `unigram_json.py`, and byte-pair encoding, see `bpe_folder`, also of
a GGUF file. What T5's tokenizer cannot have, such as
tokens that somebody added, is refused and never left out silently. Ids that end
a text beside the tokenizer's own are those of config.json and
generation_config.json. Versions of transformers keep one fact in different
files: all of them are read, and contradictions are refused.
"""

from collections.abc import Iterable
from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd import gguf_file
from gkd.errors import UserError
from gkd.errors import listed
from gkd.text import bpe_folder
from gkd.text import gguf_vocabulary
from gkd.text import unigram_json
from gkd.text.characters import ByteVocabulary
from gkd.text.vocabulary import MAX_BYTES
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import load as load_vocabulary

SENTENCEPIECE_FILE = "spiece.model"
SPEC_FILE = "vocabulary.json"
# Where a run, or a model that was saved, keeps its vocabulary.
SPEC_FOLDER = "vocabulary"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# Where slow tokenizers of transformers 4 keep what CONFIG_FILE lacks.
_ADDED_FILE = "added_tokens.json"
_SPECIAL_FILE = "special_tokens_map.json"
MODEL_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
NO_ID = -1  # Llama 2's way to say that it has no padding
# transformers' defaults where tokenizer_config.json does not say.
_T5_EXTRA_IDS = 100
_BYT5_EXTRA_IDS = 125
_SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
_OTHERS = ("bos", "cls", "mask", "sep")
_CONFIG_TYPES = {
  "add_bos_token": bool,
  "add_prefix_space": bool,
  "added_tokens_decoder": dict,
  "additional_special_tokens": list,
  "chat_template": (str, list),
  "extra_ids": int,
  "extra_special_tokens": (list, dict),
  "tokenizer_class": str,
}
_JSON_TYPES = {"added_tokens": list, "model": dict}
_MOST = 2**31  # transformers writes 1e30 where there is no longest text


def load(folder: str | os.PathLike) -> Vocabulary | None:
  """The vocabulary that lies in a folder; None where there is none.

  `folder` is that of a Hugging Face model or tokenizer, of a run, a saved model
  or a token cache of ours, or a GGUF file.
  """
  folder = Path(folder)
  if folder.suffix == gguf_file.SUFFIX and folder.is_file():
    metadata = gguf_file.read(folder).metadata
    return gguf_vocabulary.from_metadata(metadata, folder)
  for spec in (folder / SPEC_FILE, folder / SPEC_FOLDER / SPEC_FILE):
    if os.path.lexists(spec):
      return load_vocabulary(spec)
  return _of_transformers(folder)


def _of_transformers(folder: Path) -> Vocabulary | None:
  """The tokenizer that transformers saved, or that it opens."""
  settings = _settings(folder)
  outside = _read_json(folder / _ADDED_FILE, {})  # {token: id}
  added = [*_added(settings), *outside]
  special = {
    name: _text(settings.get(f"{name}_token")) for name in (*_SPECIAL, *_OTHERS)
  }
  # transformers adds those that the model file does not have.
  added += filter(None, special.values())
  if (settings.get("tokenizer_class") or "").startswith("ByT5"):
    _refuse_added(folder, added)
    extra_ids = _extra_ids(folder, settings, outside, _BYT5_EXTRA_IDS)
    return ByteVocabulary(extra_ids)
  model, tokenizer = folder / SENTENCEPIECE_FILE, folder / TOKENIZER_FILE
  fast = _read_json(tokenizer, _JSON_TYPES)
  # A link to nowhere is there: a damaged tokenizer is not taken for none.
  if not os.path.lexists(model):
    paths = (tokenizer, *(folder / name for name in bpe_folder.OTHER_FILES))
    if (file := next(filter(os.path.lexists, paths), None)) is None:
      return None
    if (fast.get("model") or {}).get("type") == "BPE" or file != tokenizer:
      vocabulary = bpe_folder.load(
        file, settings, special, model_ids(folder), outside
      )
      lost = sorted({t for t in added if t and vocabulary.id_of(t) is None})
      if lost:
        raise UserError(
          f"{file} lacks tokens that the settings beside it add,"
          f" {listed([repr(t) for t in lost])}; save the tokenizer once more"
          " with transformers, which writes them into tokenizer.json"
        )
      return vocabulary
  added += [_text(entry) for entry in fast.get("added_tokens") or []]
  if os.path.lexists(model):
    content, plain = None, SentencePieceVocabulary(model)
    _check_same_pieces(tokenizer, fast, plain)
    if unigram_json.SENTINEL.fullmatch(plain.piece(plain.size - 1)):
      # The sentinels of mT5 are among the pieces of its file.
      extra_ids = settings.get("extra_ids") or 0
    else:
      extra_ids = _extra_ids(folder, settings, outside, _T5_EXTRA_IDS)
  else:
    pad, eos = (special[name] or _SPECIAL[name] for name in ("pad", "eos"))
    content, extra_ids = unigram_json.sentencepiece_model(
      fast, tokenizer, pad, eos
    )
    plain = SentencePieceVocabulary(model, content=content)
    inside = _num_sentinels(plain.piece(i) for i in range(plain.size))
    stated = _extra_ids(folder, settings, outside, extra_ids)
    if stated > extra_ids + inside:
      raise UserError(
        f"{tokenizer} has {extra_ids + inside} <extra_id_…>, but {CONFIG_FILE}"
        f" and the files beside it {stated}; give the folder of one tokenizer"
      )
  # Pieces of the file that the settings name are no added ones.
  own = [text for text in special.values() if plain.id_of(text) is not None]
  _refuse_added(folder, added, own)
  ids = _special_ids(plain, special, folder)
  return SentencePieceVocabulary(model, extra_ids, content, **ids)


def _settings(folder: Path) -> dict[str, Any]:
  """tokenizer_config.json, and what other files say beside it."""
  settings = _read_json(folder / CONFIG_FILE, _CONFIG_TYPES)
  older = _read_json(folder / _SPECIAL_FILE, _CONFIG_TYPES)
  key = "additional_special_tokens"
  settings[key] = [*(settings.get(key) or []), *_added(older)]
  for key in (f"{name}_token" for name in (*_SPECIAL, *_OTHERS)):
    ours, theirs = _text(settings.get(key)), _text(older.get(key))
    if ours and theirs and ours != theirs:
      raise UserError(
        f"{folder / CONFIG_FILE} has {key} {ours!r}, but {_SPECIAL_FILE} beside"
        f" it {theirs!r}; correct the one that is not of this model"
      )
    settings[key] = settings.get(key) or older.get(key)
  if not settings.get("tokenizer_class"):
    model = _read_json(folder / MODEL_FILE, _CONFIG_TYPES)
    settings["tokenizer_class"] = model.get("tokenizer_class")
  return settings


def _special_ids(
  plain: SentencePieceVocabulary, special: Mapping[str, str], folder: Path
) -> dict[str, Any]:
  """Ids of padding and end of the settings, where the file has others."""
  ids: dict[str, Any] = {}
  pad_id, eos_id = (plain.id_of(special[name]) for name in ("pad", "eos"))
  if pad_id not in (None, plain.pad_id):
    ids["pad_id"] = pad_id
  end = plain.eos_ids[0] if eos_id is None else eos_id
  eos_ids = _with_other_ends(folder, end)
  if eos_ids != list(plain.eos_ids):
    ids["eos_ids"] = eos_ids
  return ids


def _with_other_ends(folder: Path, eos_id: int) -> list[int]:
  """The id that ends a text, then those that the model's files add."""
  listed_ids = model_ids(folder).get("eos_token_id")
  if not isinstance(listed_ids, list) or len(listed_ids) < 2:
    return [eos_id]
  if eos_id not in listed_ids or {type(i) for i in listed_ids} != {int}:
    raise UserError(
      f"the model in {folder} ends texts with the ids {listed_ids}, but the"
      f" tokenizer with {eos_id}; correct eos_token_id, or the tokenizer"
    )
  return [eos_id, *(i for i in listed_ids if i != eos_id)]


def model_ids(folder: Path) -> dict[str, Any]:
  """Ids that pad, end and start texts, as the model's two files have them.

  transformers trains with those of config.json and generates with those of
  generation_config.json, which may add ids that end a text.
  """
  names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
  model, generation = (
    _read_json(folder / file, {}) for file in (MODEL_FILE, GENERATION_FILE)
  )
  for saved in (model, generation):
    if saved.get("pad_token_id") == NO_ID:
      del saved["pad_token_id"]
  ids = {name: model[name] for name in names if model.get(name) is not None}
  for name in names:
    theirs = generation.get(name)
    if theirs is None:
      continue
    ours = ids.setdefault(name, theirs)
    known = ours if isinstance(ours, list) else [ours]
    others = theirs if isinstance(theirs, list) else [theirs]
    more = [i for i in others if i not in known]
    if more and (name != "eos_token_id" or len(more) == len(others)):
      raise UserError(
        f"{folder / MODEL_FILE} has {name} {ours}, but {GENERATION_FILE} beside"
        f" it {theirs}; correct the one that is not of this model"
      )
    if more:
      ids[name] = [*known, *more]
  return ids


def max_length(folder: str | os.PathLike) -> int | None:
  """Tokens at which a Hugging Face tokenizer cuts; None if it never does."""
  settings = _read_json(Path(folder) / CONFIG_FILE, {})
  length = settings.get("model_max_length")
  return length if type(length) is int and 0 < length < _MOST else None


def _extra_ids(
  folder: Path,
  settings: Mapping[str, Any],
  outside: Iterable[str],
  default: int,
) -> int:
  """As many as are listed: transformers adds no others to a list of them.

  Those `outside` of the settings are no such list, but are not lost.
  """
  num_listed = _num_sentinels(_added(settings))
  stated = settings.get("extra_ids")
  if stated is not None and stated < 0:
    raise UserError(
      f"{folder / CONFIG_FILE} has extra_ids {stated}; expected a whole"
      " number of at least 0; correct the file"
    )
  if stated and num_listed and stated != num_listed:
    raise UserError(
      f"{folder / CONFIG_FILE} has extra_ids {stated}, but lists {num_listed}"
      " <extra_id_…>; correct it or the files of tokens beside it"
    )
  default = default if stated is None else stated
  return max(num_listed or default, _num_sentinels(outside))


def _num_sentinels(tokens: Iterable[str]) -> int:
  matches = map(unigram_json.SENTINEL.fullmatch, tokens)
  return len({match[1] for match in matches if match})


def _check_same_pieces(
  file: Path, tokenizer: Mapping[str, Any], plain: SentencePieceVocabulary
) -> None:
  """Refuses a tokenizer.json of other pieces than the file beside it."""
  vocab = (tokenizer.get("model") or {}).get("vocab")
  if vocab is None:
    return
  known = isinstance(vocab, list) and all(
    isinstance(entry, list) and entry for entry in vocab
  )
  theirs = [entry[0] for entry in vocab] if known else []
  for index in range(plain.size):
    piece = plain.piece(index)
    other = theirs[index] if index < len(theirs) else None
    if other != piece:
      raise UserError(
        f"{file} has {other!r} as piece {index} and {SENTENCEPIECE_FILE} beside"
        f" it {piece!r}; remove the one that is not of this model"
      )


def _read_json(file: Path, types: Mapping[str, Any]) -> dict[str, Any]:
  """{} where there is no such file."""
  if not os.path.lexists(file):
    return {}
  return files.read_json(file, types, max_bytes=MAX_BYTES)


def _added(settings: Mapping[str, Any]) -> list[str]:
  """Tokens that settings add to those of the model file."""
  tokens = list((settings.get("added_tokens_decoder") or {}).values())
  for key in ("additional_special_tokens", "extra_special_tokens"):
    named = settings.get(key) or []
    tokens += named.values() if isinstance(named, Mapping) else named
  return [_text(token) for token in tokens]


def _text(entry: Any) -> str:
  if isinstance(entry, Mapping):
    entry = entry.get("content")
  return "" if entry is None else str(entry)


def _refuse_added(
  folder: Path, tokens: Iterable[str], own: Iterable[str] = ()
) -> None:
  others = {t for t in tokens if not unigram_json.SENTINEL.fullmatch(t)}
  if others := sorted(others - {*_SPECIAL.values(), *own}):
    raise UserError(
      f"the tokenizer in {folder} has tokens that somebody added,"
      f" {listed([repr(token) for token in others])}; expected T5's own: <pad>,"
      " </s>, <unk> and <extra_id_…>; give the folder of a tokenizer without"
      " them"
    )
