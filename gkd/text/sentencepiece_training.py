"""Trains a small SentencePiece vocabulary with T5's special ids.

A model trained from scratch on one task wants 4,000–8,000 pieces: the 32,000
rows of T5's embedding dwarf a small model.
"""

from collections.abc import Iterable
import io
import os
from pathlib import Path

from gkd import files
from gkd.errors import UserError
from gkd.text.vocabulary import SentencePieceVocabulary


def train_sentencepiece(
  texts: Iterable[str],
  size: int,
  path: str | os.PathLike,
  byte_fallback: bool = True,
  split_digits: bool = False,
) -> SentencePieceVocabulary:
  """Trains a unigram vocabulary and reads it back from `path`.

  The same texts give the same file.

  Args:
    texts: sentences; each is used once, in the order given.
    size: number of ids, special ids (and 256 bytes with `byte_fallback`)
      included.
    path: where the model file is written; replaced if it exists.
    byte_fallback: characters without a piece become UTF-8 bytes; without it
      they become the unknown id. Runs of blanks, tabs and newlines become one
      blank either way, and compatibility characters their plain forms (NFKC).
    split_digits: every digit is its own piece, which arithmetic wants.
  """
  import sentencepiece

  content = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts),
      model_writer=content,
      model_type="unigram",
      vocab_size=size,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      byte_fallback=byte_fallback,
      split_digits=split_digits,
      # Rare characters go to the byte fallback rather than to own pieces.
      character_coverage=0.9995 if byte_fallback else 1.0,
      # One thread: the sums of several arrive in another order each time.
      num_threads=1,
      minloglevel=2,
    )
  except (RuntimeError, OSError) as error:
    reason = " ".join(str(error).split())
    raise UserError(
      f"vocabulary of {size} pieces cannot be trained on these texts: "
      f"{reason[-300:]}; change the size"
    ) from error
  path = Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  files.write_bytes(path, content.getvalue())
  return SentencePieceVocabulary(path)
