"""Tokenizer files that transformers' `AutoTokenizer` opens."""

from pathlib import Path
from typing import Any

from gkd import files
from gkd.text import tokenizer_folder
from gkd.text import unigram_json
from gkd.text.bpe import BPEVocabulary
from gkd.text.characters import ByteVocabulary
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

_T5_IDS = (0, 1, 2)  # padding, end of sequence, unknown


def check(vocabulary: Vocabulary) -> None:
  """Raises a UserError unless transformers has a tokenizer of the same ids."""
  is_merged = vocabulary.kind == "sentencepiece" and not vocabulary.ends_prompts
  if is_merged or vocabulary.kind not in ("sentencepiece", "bytes", "bpe"):
    raise UserError(
      f"the vocabulary ({vocabulary.describe()}) has no tokenizer in"
      " transformers; give --tokenizer=none to write the model without one"
    )


def write(
  folder: Path, vocabulary: Vocabulary, max_length: int | None = None
) -> None:
  """Writes a tokenizer into a folder: T5's, ByT5's, or a tokenizer.json.

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
  if isinstance(vocabulary, BPEVocabulary):
    # Transformers' own classes would make other rules than the file's.
    settings |= {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "clean_up_tokenization_spaces": False,
    }
    if vocabulary.chat_template is not None:
      settings["chat_template"] = vocabulary.chat_template
    files.write_json(folder / tokenizer_folder.CONFIG_FILE, settings)
    target = folder / tokenizer_folder.TOKENIZER_FILE
    files.write_bytes(target, vocabulary.content)
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
