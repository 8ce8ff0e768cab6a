"""Vocabularies that need no file: UTF-8 bytes and a short list of characters.

Both have T5's special ids: 0 padding, 1 end of sequence, 2 unknown. Those of
SentencePiece files, and the interface of all, are in `gkd.text.vocabulary`.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import hashlib
import numbers
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.errors import UserError
from gkd.errors import check_number

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
NUM_SPECIAL = 3
MAX_EXTRA_IDS = 100_000  # T5 has 100, and each costs memory
UNKNOWN_TEXT = "⁇"  # what SentencePiece shows for an unknown piece


class ByteVocabulary:
  """UTF-8 bytes as ids 3…258 (ByT5), then unused extra ids."""

  kind = "bytes"
  pad_id = PAD_ID
  eos_ids = (EOS_ID,)
  unk_id = UNK_ID
  control_ids = (PAD_ID,)
  prompt_start = target_start = ()
  ends_prompts = True
  chat_template = None

  def __init__(self, extra_ids: int = 0):
    self.extra_ids = checked_extra_ids(extra_ids)
    self.sha256 = hashlib.sha256(b"utf-8 bytes + 3").hexdigest()

  @property
  def size(self) -> int:
    return NUM_SPECIAL + 256 + self.extra_ids

  def describe(self) -> str:
    return f"UTF-8 bytes, {self.size} ids of which {self.extra_ids} extra"

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return [self.encode(text) for text in texts]

  def encode(self, text: str) -> list[int]:
    return [byte + NUM_SPECIAL for byte in text.encode("utf-8")]

  def decode(self, ids: Iterable[int]) -> str:
    content = bytes(
      i - NUM_SPECIAL
      for i in until_eos(ids, self.eos_ids)
      if NUM_SPECIAL <= i < NUM_SPECIAL + 256
    )
    return content.decode("utf-8", errors="ignore")

  decode_prompt = decode  # which ends with the EOS

  def piece(self, index: int) -> str:
    if NUM_SPECIAL <= index < NUM_SPECIAL + 256:
      return f"<0x{index - NUM_SPECIAL:02X}>"
    return _special_piece(index)

  def spec(self) -> dict[str, Any]:
    return make_spec(self, file=None)

  def save(self, directory: str | os.PathLike) -> dict[str, Any]:
    """No file belongs to this vocabulary; returns the spec."""
    del directory
    return self.spec()


class CharacterVocabulary:
  """A short list of characters: a narrow softmax for generated tasks."""

  kind = "characters"
  pad_id = PAD_ID
  eos_ids = (EOS_ID,)
  unk_id = UNK_ID
  control_ids = (PAD_ID,)
  prompt_start = target_start = ()
  ends_prompts = True
  chat_template = None
  extra_ids = 0

  def __init__(self, characters: str):
    if not characters or len(set(characters)) != len(characters):
      raise UserError(
        f"characters {characters!r}: expected one or more characters, each"
        " once; remove the repeated ones"
      )
    self.characters = characters
    self.sha256 = hashlib.sha256(characters.encode("utf-8")).hexdigest()
    self._ids = {c: i + NUM_SPECIAL for i, c in enumerate(characters)}

  @property
  def size(self) -> int:
    return NUM_SPECIAL + len(self.characters)

  def describe(self) -> str:
    return f"characters {self.characters!r}, {self.size} ids"

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    return [self.encode(text) for text in texts]

  def encode(self, text: str) -> list[int]:
    return [self._ids.get(character, UNK_ID) for character in text]

  def decode(self, ids: Iterable[int]) -> str:
    kept = (i for i in until_eos(ids, self.eos_ids) if i != PAD_ID)
    return "".join(
      self.characters[i - NUM_SPECIAL]
      if NUM_SPECIAL <= i < self.size
      else UNKNOWN_TEXT
      for i in kept
    )

  decode_prompt = decode  # which ends with the EOS

  def piece(self, index: int) -> str:
    if index >= NUM_SPECIAL:
      return self.characters[index - NUM_SPECIAL]
    return _special_piece(index)

  def spec(self) -> dict[str, Any]:
    return {**make_spec(self, file=None), "characters": self.characters}

  def save(self, directory: str | os.PathLike) -> dict[str, Any]:
    """No file belongs to this vocabulary; returns the spec."""
    del directory
    return self.spec()


def until_eos(ids: Iterable[int], eos_ids: Sequence[int]) -> Iterable[int]:
  """Python ints up to, but not including, the first of `eos_ids`."""
  for i in ids:
    index = int(i)
    if index in eos_ids:
      return
    yield index


def save_file(directory: str | os.PathLike, name: str, content: bytes) -> None:
  """Writes the file of a vocabulary unless it is there."""
  path = Path(directory) / name
  path.parent.mkdir(parents=True, exist_ok=True)
  if not path.exists() or path.read_bytes() != content:
    files.write_bytes(path, content)


def make_spec(vocabulary: Any, file: str | None) -> dict[str, Any]:
  return {
    "kind": vocabulary.kind,
    "file": file,
    "extra_ids": vocabulary.extra_ids,
    "sha256": vocabulary.sha256,
    "size": vocabulary.size,
  }


def checked_extra_ids(extra_ids: int) -> int:
  check_number(
    "extra_ids",
    extra_ids,
    lambda n: 0 <= n <= MAX_EXTRA_IDS,
    f"a whole number from 0 to {MAX_EXTRA_IDS} (100 for T5)",
    numbers.Integral,
  )
  return extra_ids


def _special_piece(index: int) -> str:
  return {PAD_ID: "<pad>", EOS_ID: "</s>", UNK_ID: "<unk>"}.get(
    index, f"<extra {index}>"
  )
