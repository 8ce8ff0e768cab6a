"""The tokenizer that belongs to a checkpoint, or that the user names for it.

vocabulary, said = find(checkpoint, "spiece.model")
"""

import os
from pathlib import Path

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.text import tokenizer_folder
from gkd.text import vocabulary
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
    found = beside(checkpoint)
    if found is not None:
      _check_fits(found, checkpoint)
      return found, f"tokenizer: {found.describe()}, of the source"
    return None, "tokenizer: none is beside the source"
  if os.fspath(named) == NONE:
    return None, "tokenizer: left out, as was asked"
  found = _load(os.fspath(named), checkpoint)
  _check_fits(found, checkpoint)
  return found, f"tokenizer: {found.describe()}, from {named}"


def beside(checkpoint: Checkpoint) -> Vocabulary | None:
  """The tokenizer that the source keeps; None if it has none."""
  return tokenizer_folder.load(checkpoint.home)


def _load(named: str, checkpoint: Checkpoint) -> Vocabulary:
  # First, as it may be longer than the name of a file.
  if named.startswith("characters:"):
    return vocabulary.load(named)
  path = Path(named).expanduser()
  if path.is_dir():
    found = tokenizer_folder.load(path)
    if found is None:
      raise UserError(
        f"tokenizer {named}: has neither spiece.model, tokenizer.json"
        " nor vocabulary.json; give the one with the tokenizer, or its"
        " SentencePiece file"
      )
    return found
  plain = vocabulary.load(named if named == "bytes" else path)
  extra_ids = checkpoint.config.vocabulary_size - plain.size
  if named == "bytes":
    # As ByT5 has it: the rows behind the bytes are extra ids.
    return vocabulary.load(named, max(extra_ids, 0))
  if path.suffix != ".json" and extra_ids == _SENTINELS:
    return vocabulary.load(path, extra_ids)
  return plain


def _check_fits(found: Vocabulary, checkpoint: Checkpoint) -> None:
  """As many ids as the model, and those that it was trained with."""
  config = checkpoint.config
  if found.size != config.vocabulary_size:
    raise UserError(
      f"the tokenizer ({found.describe()}) does not fit {checkpoint.path},"
      f" which has {config.vocabulary_size} real ids in {config.vocab_size}"
      " rows; give another tokenizer, or the number of ids as vocabulary_size"
    )
  made_with = checkpoint.metadata.get("vocabulary_sha256")
  if made_with and made_with != found.sha256:
    raise UserError(
      f"{checkpoint.path} was trained with another tokenizer (sha256"
      f" {made_with[:12]}) than the one given ({found.describe()}, sha256"
      f" {found.sha256[:12]}); give that one"
    )
