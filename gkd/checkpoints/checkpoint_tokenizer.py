"""The tokenizer of a checkpoint, or that the user names for it."""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.text import tokenizer_folder
from gkd.text import vocabulary as vocabularies
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

NONE = "none"
# The file of T5's tokenizer does not hold them, the model has rows for them.
_SENTINELS = 100


def find(
  checkpoint: Checkpoint, named: str | os.PathLike | None
) -> tuple[Vocabulary | None, str]:
  """The tokenizer and a sentence about it.

  Args:
    checkpoint: whose ids it has to give.
    named: a folder (a run, a saved model, a Hugging Face folder), a
      SentencePiece file, "bytes", "characters:…", "none" to have none, or None
      for the one beside the checkpoint.

  Raises:
    UserError: nothing usable is there, or it does not fit the checkpoint.
  """
  if named is None:
    vocabulary = tokenizer_folder.load(checkpoint.home)
    if vocabulary is not None:
      _check_fits(vocabulary, checkpoint)
      return vocabulary, f"tokenizer: {vocabulary.describe()}, of the source"
    return None, "tokenizer: none is beside the source"
  if os.fspath(named) == NONE:
    return None, "tokenizer: left out, as was asked"
  vocabulary = _load(os.fspath(named), checkpoint)
  _check_fits(vocabulary, checkpoint)
  return vocabulary, f"tokenizer: {vocabulary.describe()}, from {named}"


def load(path: Path, rows: int) -> Vocabulary | None:
  """The tokenizer beside a model with so many rows; None where there is none.

  Raises:
    UserError: it has more ids than the model has rows.
  """
  vocabulary = tokenizer_folder.load(path)
  if vocabulary is not None and vocabulary.size > rows:
    raise UserError(
      f"the tokenizer in {path} ({vocabulary.describe()}) has more ids than the"
      f" {rows} rows of the model; give the folder of one model"
    )
  return vocabulary


def ids_of_decoder(
  path: Path, rows: int, saved: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
  """Special ids of a decoder-only model and the number of its real ones.

  Args:
    path: of the model.
    rows: of its table of tokens.
    saved: pad_token_id, eos_token_id and bos_token_id, as far as it says them.
    given: see `source.open_checkpoint`.

  Returns:
    Fields of DecoderConfig, and a sentence if the number was assumed.
  """
  ends, pad = saved.get("eos_token_id"), saved.get("pad_token_id")
  ends = ends if isinstance(ends, list) else [ends] * (ends is not None)
  real_ids, assumed = given.get("vocabulary_size"), ()
  if (vocabulary := load(path, rows)) is not None:
    real_ids, pad = vocabulary.size, vocabulary.pad_id
    ends = list(dict.fromkeys([*vocabulary.eos_ids, *ends]))
  elif real_ids is None:
    real_ids = rows
    assumed = (
      f"vocabulary_size: each of the {rows} rows is a real id, for want of a"
      " tokenizer",
    )
  if not ends:
    raise UserError(
      f"{path} has neither eos_token_id nor a tokenizer, so that nothing says"
      " where a text ends; add one of them"
    )
  return {
    "vocabulary_size": real_ids,
    "pad_id": ends[0] if pad in (None, tokenizer_folder.NO_ID) else pad,
    "eos_ids": tuple(ends),
    "start_id": saved.get("bos_token_id"),
  }, assumed


def _load(named: str, checkpoint: Checkpoint) -> Vocabulary:
  # First, as it may be longer than the name of a file.
  if named.startswith("characters:"):
    return vocabularies.load(named)
  path = files.local_path(named)
  if path.is_dir():
    vocabulary = tokenizer_folder.load(path)
    if vocabulary is None:
      raise UserError(
        f"tokenizer {named}: has neither spiece.model, tokenizer.model,"
        " tokenizer.json, vocab.json nor vocabulary.json; give the one with the"
        " tokenizer, or its SentencePiece file"
      )
    return vocabulary
  plain = vocabularies.load(named if named == "bytes" else path)
  extra_ids = checkpoint.config.vocabulary_size - plain.size
  if named == "bytes":
    # As ByT5 has it: the rows behind the bytes are extra ids.
    return vocabularies.load(named, max(extra_ids, 0))
  if path.suffix != ".json" and extra_ids == _SENTINELS:
    return vocabularies.load(path, extra_ids)
  return plain


def _check_fits(vocabulary: Vocabulary, checkpoint: Checkpoint) -> None:
  """As many ids as the model, and those that it was trained with."""
  config = checkpoint.config
  if vocabulary.size != config.vocabulary_size:
    raise UserError(
      f"the tokenizer ({vocabulary.describe()}) does not fit {checkpoint.path},"
      f" which has {config.vocabulary_size} real ids in {config.vocab_size}"
      " rows; give another tokenizer, or the number of ids as vocabulary_size"
    )
  if vocabulary.eos_ids[0] not in config.eos_ids:
    raise UserError(
      f"the tokenizer ({vocabulary.describe()}) ends texts with id"
      f" {vocabulary.eos_ids[0]}, but eos_ids of {checkpoint.path} is"
      f" {config.eos_ids}; give another tokenizer, or pad_id, eos_ids and"
      " start_id of the model"
    )
  made_with = checkpoint.metadata.get("vocabulary_sha256")
  if made_with and made_with != vocabulary.sha256:
    raise UserError(
      f"{checkpoint.path} was trained with another tokenizer (sha256"
      f" {made_with[:12]}) than the one given ({vocabulary.describe()}, sha256"
      f" {vocabulary.sha256[:12]}); give that one"
    )
