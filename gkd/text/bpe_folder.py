"""The tokenizer of a Llama, Qwen, SmolLM or Gemma folder of Hugging Face.

Its tokenizer.json or, where there is none, the tokenizer.model of Gemma and
Llama 2 or the vocab.json of CodeT5; `tokenizer_folder` reads the settings
beside it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd.errors import UserError
from gkd.text import chat_formats
from gkd.text import roberta_files
from gkd.text.bpe import BPEVocabulary
from gkd.text.vocabulary import BEGINNING_FILE as SENTENCEPIECE_FILE
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import content_of

# Where there is no tokenizer.json.
OTHER_FILES = (SENTENCEPIECE_FILE, roberta_files.VOCAB_FILE)
_TEMPLATE_FILE = "chat_template.jinja"


def load(
  file: Path,
  settings: Mapping[str, Any],
  special: Mapping[str, str],
  model_ids: Mapping[str, Any],
  added: Mapping[str, int],
) -> BPEVocabulary | SentencePieceVocabulary:
  """The vocabulary of tokenizer.json or one of `OTHER_FILES`.

  Args:
    file: its path.
    settings: of tokenizer_config.json.
    special: {"eos": token, "pad": token}, empty where there is none.
    model_ids: `eos_token_id` and `pad_token_id` of the model, where it has any.
    added: {token: id} of added_tokens.json.
  """
  template = _template(file.parent, settings)
  if file.name == SENTENCEPIECE_FILE:
    vocabulary = SentencePieceVocabulary(file)
    known = list(vocabulary.eos_ids)
  else:
    content = content_of(file)
    if file.name == roberta_files.VOCAB_FILE:
      merges = content_of(file.parent / roberta_files.MERGES_FILE)
      content = roberta_files.tokenizer_json(
        content, merges, settings, added, file
      )
    # Its own ids are not known yet: any of them opens it.
    vocabulary, known = BPEVocabulary(content, [0], file=file), []
  if special["eos"]:
    known = [_id_of(vocabulary, special["eos"], file)]
  listed = model_ids.get("eos_token_id", [])
  eos_ids = [*known, *(listed if isinstance(listed, list) else [listed])]
  if not eos_ids or {type(index) for index in eos_ids} != {int}:
    raise UserError(
      f"{file} and the files beside it end a text with {eos_ids or 'no id'};"
      " give eos_token in tokenizer_config.json, or numbers as eos_token_id in"
      " generation_config.json"
    )
  eos_ids = chat_formats.ends_first(
    dict.fromkeys(eos_ids), template, vocabulary.id_of
  )
  pad_id = model_ids.get("pad_token_id")
  if special["pad"]:
    pad_id = _id_of(vocabulary, special["pad"], file)
  elif not (isinstance(pad_id, int) and 0 <= pad_id < vocabulary.size):
    pad_id = None
  options = {"eos_ids": eos_ids, "pad_id": pad_id, "chat_template": template}
  if file.name == SENTENCEPIECE_FILE:
    add_bos = settings.get("add_bos_token")
    return SentencePieceVocabulary(file, add_bos=add_bos, **options)
  return BPEVocabulary(content, file=file, **options)


def _id_of(vocabulary: Any, token: str, file: Path) -> int:
  index = vocabulary.id_of(token)
  if index is None:
    raise UserError(
      f"{file} has no token {token!r}, which the settings beside it name; give"
      " the files of one model"
    )
  return index


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
  """The chat template, of several the default one."""
  if (file := folder / _TEMPLATE_FILE).is_file():
    return content_of(file).decode("utf-8", "replace")
  template = settings.get("chat_template")
  if isinstance(template, list):
    entries = [entry for entry in template if isinstance(entry, Mapping)]
    named = {str(e.get("name")): str(e.get("template")) for e in entries}
    return named.get("default")
  return template
