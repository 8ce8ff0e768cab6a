"""Tokenizer files that transformers' `AutoTokenizer` opens."""

from pathlib import Path
from typing import Any

from gkd import files
from gkd.text import sentencepiece_model
from gkd.text import tokenizer_folder
from gkd.text import unigram_json
from gkd.text.characters import ByteVocabulary
from gkd.text.vocabulary import BEGINNING_FILE
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

_T5_IDS = (0, 1, 2)  # padding, end of sequence, unknown
_MASK = "<mask>"


def check(vocabulary: Vocabulary) -> None:
  """Raises a UserError unless transformers has a tokenizer of the same ids."""
  kinds = ("sentencepiece", "bytes", "bpe")
  if vocabulary.kind not in kinds or _class_of_merges(vocabulary) is None:
    raise UserError(
      f"the vocabulary ({vocabulary.describe()}) has no tokenizer in"
      " transformers; give --tokenizer=none to write the model without one"
    )


def write(
  folder: Path, vocabulary: Vocabulary, max_length: int | None = None
) -> None:
  """Writes a tokenizer into a folder: T5's, ByT5's, or the file as it is.

  Args:
    folder: exists.
    vocabulary: that `check` accepts; its extra ids become sentinels.
    max_length: where `truncation=True` cuts; None for nowhere.
  """
  ids = {
    "bos": (*vocabulary.prompt_start, None)[0],
    "eos": vocabulary.eos_ids[0],
    "unk": vocabulary.unk_id,
    "pad": vocabulary.pad_id,
  }
  special = {
    f"{name}_token": vocabulary.piece(index)
    for name, index in ids.items()
    if index is not None
  }
  settings: dict[str, Any] = dict(special)
  if max_length is not None:
    settings["model_max_length"] = max_length
  if name := _class_of_merges(vocabulary):
    _write_merges(folder, vocabulary, {**settings, "tokenizer_class": name})
    return
  settings["extra_ids"] = vocabulary.extra_ids
  if isinstance(vocabulary, ByteVocabulary):
    settings["tokenizer_class"] = "ByT5Tokenizer"
  else:
    settings["tokenizer_class"] = "T5Tokenizer"
    target = folder / tokenizer_folder.SENTENCEPIECE_FILE
    target.write_bytes(vocabulary.content)
    ids = (vocabulary.pad_id, *vocabulary.eos_ids, vocabulary.unk_id)
    if vocabulary.byte_fallback or ids != _T5_IDS:
      # transformers would make it of the file by itself, but for T5's own
      # tokenizer, which knows no bytes and no other unknown id than 2.
      settings["tokenizer_class"] = "PreTrainedTokenizerFast"
      files.write_json(
        folder / tokenizer_folder.TOKENIZER_FILE,
        unigram_json.tokenizer_json(vocabulary),
      )
  # A tokenizer without sentinels must not be given T5's hundred.
  sentinels = [f"<extra_id_{i}>" for i in range(vocabulary.extra_ids)]
  listed = {"additional_special_tokens": sentinels}
  files.write_json(
    folder / tokenizer_folder.CONFIG_FILE, {**settings, **listed}
  )
  files.write_json(folder / "special_tokens_map.json", {**special, **listed})


def _write_merges(
  folder: Path, vocabulary: Vocabulary, settings: dict[str, Any]
) -> None:
  """Writes the vocabulary's file as it is, and settings beside it."""
  settings["clean_up_tokenization_spaces"] = False
  file = tokenizer_folder.TOKENIZER_FILE
  if vocabulary.kind == "sentencepiece":
    file = BEGINNING_FILE
    has_mask = vocabulary.id_of(_MASK) is not None
    settings["mask_token"] = _MASK if has_mask else None  # Gemma's adds one
    settings["add_bos_token"] = bool(vocabulary.prompt_start)
    settings.setdefault("bos_token", None)
  if vocabulary.chat_template is not None:
    settings["chat_template"] = vocabulary.chat_template
  files.write_json(folder / tokenizer_folder.CONFIG_FILE, settings)
  files.write_bytes(folder / file, vocabulary.content)


def _class_of_merges(vocabulary: Vocabulary) -> str | None:
  """The class there of a vocabulary that merges; "" of all others.

  None where no class has its rules: of SentencePiece's there are those of Llama
  2 and of Gemma.
  """
  if vocabulary.kind == "bpe":
    # Transformers' own classes would make other rules than the file's.
    return "PreTrainedTokenizerFast"
  if vocabulary.kind != "sentencepiece" or vocabulary.ends_prompts:
    return ""
  rules = sentencepiece_model.parse(
    vocabulary.content, vocabulary.path
  ).normalizer_spec
  if rules.precompiled_charsmap or rules.remove_extra_whitespaces:
    return None
  if not vocabulary.byte_fallback:
    return None
  return "LlamaTokenizer" if rules.add_dummy_prefix else "GemmaTokenizer"
