"""Vocabularies without TensorFlow, with the ids that seqio gives.

Each has a `pad_id` and `eos_ids`, of which the first is the one that is
appended to a text. `encode` adds no end of sequence; `decode` stops at the
first one. `control_ids` are never generated unless they end a text; a prompt
begins with `prompt_start` and ends with an EOS if `ends_prompts`, see
`chat_formats.encode_prompts`, a target begins with `target_start`.
`gkd.tasks.features` gives the seqio twin of each class.

  vocabulary = load("spiece.model", extra_ids=100)
  spec = vocabulary.save("cache/")     # JSON; copies the model file
  same = from_spec(spec, "cache/")
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd.errors import UserError
from gkd.text import sentencepiece_model
from gkd.text.bpe import BPEVocabulary
from gkd.text.characters import ByteVocabulary
from gkd.text.characters import CharacterVocabulary
from gkd.text.characters import checked_extra_ids
from gkd.text.characters import make_spec
from gkd.text.characters import save_file
from gkd.text.characters import until_eos

# The file of Gemma and Llama 2, whose prompts begin with a BOS.
BEGINNING_FILE = "tokenizer.model"
MAX_BYTES = 64 << 20  # of a tokenizer's file; Gemma's tokenizer.json has 33
_REMEDY = "restore it or make the cache again"
# Of what `save` returns: types, and the fields that each kind needs.
_SPEC_TYPES = {
  "kind": str,
  "file": str,
  "extra_ids": int,
  "characters": str,
  "sha256": str,
  "size": int,
  "pad_id": int,
  "eos_ids": [int],
  "chat_template": str,
  "add_bos": bool,
}
_SPEC_FIELDS = {
  "sentencepiece": ("file", "extra_ids"),
  "bytes": ("extra_ids",),
  "characters": ("characters",),
  "bpe": ("file", "pad_id", "eos_ids"),
}


class SentencePieceVocabulary:
  """A SentencePiece model file plus T5's `<extra_id_…>` pieces at the end.

  With n extra ids, `<extra_id_0>` is the last id and `<extra_id_n-1>` the first
  one after the pieces of the file, as in T5 and seqio.

  Attributes:
    pad_id: id of the padding: as given, else the file's, else 0 as in seqio.
    eos_ids: ids that end a text: as given, else the file's only one.
    unk_id: id of what has no piece.
    prompt_start: the BOS before a prompt if the file is a BPE model with one
      and called as that of Llama 2 and Gemma, unless `add_bos` is False; all
      others end prompts instead, as T5 does, also one with a BPE of its own.
    chat_template: as of `BPEVocabulary`.
  """

  kind = "sentencepiece"
  target_start = ()

  def __init__(
    self,
    path: str | os.PathLike,
    extra_ids: int = 0,
    content: bytes | None = None,
    pad_id: int | None = None,
    eos_ids: Sequence[int] | None = None,
    chat_template: str | None = None,
    add_bos: bool | None = None,
  ):
    """Reads a model file, or takes its content, for which no file is needed."""
    self.path = Path(path)
    self.extra_ids = checked_extra_ids(extra_ids)
    self.content = content_of(self.path) if content is None else content
    self.sha256 = hashlib.sha256(self.content).hexdigest()
    self._processor, self.control_ids, is_bpe = sentencepiece_model.open_model(
      self.content, self.extra_ids, path
    )
    self.chat_template = chat_template
    self._given = {
      "pad_id": pad_id,
      "eos_ids": eos_ids and list(eos_ids),
      "chat_template": chat_template,
      "add_bos": False if add_bos is False else None,
    }
    in_file = max(self._processor.pad_id(), 0)
    self.pad_id = in_file if pad_id is None else pad_id
    self.eos_ids = tuple(eos_ids or [self._processor.eos_id()])
    self.unk_id = self._processor.unk_id()
    for index in (self.pad_id, *self.eos_ids):
      if not 0 <= index < self.size:
        raise UserError(
          f"vocabulary file {str(path)!r} has {self.size} ids, among them"
          f" padding {self.pad_id} and end of sequence {self.eos_ids}; expected"
          " ids from 0 up; give a file with an end of sequence, as T5's"
        )
    bos_id = self._processor.bos_id()
    begins = is_bpe and bos_id >= 0 and self.path.name == BEGINNING_FILE
    self.prompt_start = (bos_id,) if begins and add_bos is not False else ()
    self.ends_prompts = not begins

  @property
  def size(self) -> int:
    """Number of ids, extra ids included."""
    return self._processor.get_piece_size()

  @property
  def has_ids_of_file(self) -> bool:
    """Whether another program gives the same ids from the file alone."""
    given = self._given["pad_id"], self._given["eos_ids"]
    return given == (None, None) and self.ends_prompts

  @property
  def byte_fallback(self) -> bool:
    """Whether characters without a piece become bytes."""
    return self._processor.piece_to_id("<0x00>") != self.unk_id

  def describe(self) -> str:
    return (
      f"SentencePiece {self.path.name}, {self.size} ids of which "
      f"{self.extra_ids} extra"
    )

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """The same ids as `encode` gives one by one, in one thread."""
    # SentencePiece would start a thread for each core, in each worker.
    return self._processor.encode(list(texts), num_threads=1)

  def decode(self, ids: Iterable[int]) -> str:
    return self.decode_prompt(until_eos(ids, self.eos_ids))

  def decode_prompt(self, ids: Iterable[int]) -> str:
    """The whole text; ids beyond the last piece are unknown."""
    size = self.size
    return self._processor.decode([i if i < size else self.unk_id for i in ids])

  def piece(self, index: int) -> str:
    return self._processor.id_to_piece(index)

  def id_of(self, piece: str) -> int | None:
    """Id of a piece; None where there is none."""
    index = self._processor.piece_to_id(piece)
    return index if self.piece(index) == piece else None

  def spec(self) -> dict[str, Any]:
    given = {n: v for n, v in self._given.items() if v is not None}
    return make_spec(self, file=self.path.name) | given

  def save(self, directory: str | os.PathLike) -> dict[str, Any]:
    """Writes the model file into `directory`; returns the spec."""
    save_file(directory, self.path.name, self.content)
    return self.spec()


Vocabulary = (
  SentencePieceVocabulary | BPEVocabulary | ByteVocabulary | CharacterVocabulary
)


def load(
  path_or_spec: str | os.PathLike | Mapping[str, Any], extra_ids: int = 0
) -> Vocabulary:
  """A vocabulary from what a user can write in a config.

  Args:
    path_or_spec: `"bytes"`, `"characters:0123+="`, the path of a SentencePiece
      model, the path of a `.json` spec (its files lie beside it), or a spec of
      a vocabulary without files.
    extra_ids: T5's sentinels; a spec has its own number.
  """
  if isinstance(path_or_spec, Mapping):
    return from_spec(path_or_spec, Path())
  name = os.fspath(path_or_spec)
  if name == "bytes":
    return ByteVocabulary(extra_ids)
  if name.startswith("characters:"):
    if extra_ids:
      raise UserError(
        f"vocabulary {name!r} with extra_ids {extra_ids}: a character"
        " vocabulary has none; set them to 0"
      )
    return CharacterVocabulary(name.removeprefix("characters:"))
  if name.endswith(".json"):
    path = Path(name)
    return from_spec(files.read_json(path, {}, _REMEDY), path.parent)
  return SentencePieceVocabulary(name, extra_ids)


def from_spec(
  spec: Mapping[str, Any], directory: str | os.PathLike
) -> Vocabulary:
  """The inverse of `save`: rebuilds a vocabulary and checks its hash.

  A file outside of `directory` is refused: a spec may come from a stranger.
  """
  where = f"the vocabulary in {str(directory)!r}"
  files.check_types(where, spec, _SPEC_TYPES, _REMEDY)
  kind = spec.get("kind")
  for name in _SPEC_FIELDS.get(kind, ()):
    if spec.get(name) is None:
      raise UserError(f"{where} is of {kind} and has no {name}; {_REMEDY}")
  if "file" in _SPEC_FIELDS.get(kind, ()):
    if not files.is_plain_name(spec["file"]):
      raise UserError(
        f"{where} has the file {spec['file']!r}; expected the name of a file"
        f" in the same folder, without a path; {_REMEDY}"
      )
    names = ("pad_id", "eos_ids", "chat_template")
    given = {name: spec.get(name) for name in names}
    path = Path(directory) / spec["file"]
    if kind == BPEVocabulary.kind:
      vocabulary = BPEVocabulary(content_of(path), file=path, **given)
    else:
      vocabulary = SentencePieceVocabulary(
        path, spec["extra_ids"], add_bos=spec.get("add_bos"), **given
      )
  elif kind == ByteVocabulary.kind:
    vocabulary = ByteVocabulary(spec["extra_ids"])
  elif kind == CharacterVocabulary.kind:
    vocabulary = CharacterVocabulary(spec["characters"])
  else:
    raise UserError(
      f"vocabulary kind {kind!r}: expected {', '.join(_SPEC_FIELDS)}; make the"
      " cache again with this version"
    )
  for name in ("sha256", "size"):
    value = getattr(vocabulary, name)
    if spec.get(name, value) != value:
      raise UserError(
        f"{where} has {name} {value}, expected {spec[name]}: the file was"
        f" changed; {_REMEDY}"
      )
  return vocabulary


def first_difference(left: Vocabulary, right: Vocabulary) -> str | None:
  """Where two vocabularies differ, in words; None when every id is the same."""
  for index in range(min(left.size, right.size)):
    if left.piece(index) != right.piece(index):
      return (
        f"id {index} is {left.piece(index)!r} in one ({left.describe()}) and "
        f"{right.piece(index)!r} in the other ({right.describe()})"
      )
  for name in ("pad_id", "eos_ids"):
    ids = getattr(left, name), getattr(right, name)
    if ids[0] != ids[1]:
      return f"{name} is {ids[0]} in one and {ids[1]} in the other"
  if left.size != right.size:
    return (
      f"{left.size} ids ({left.describe()}) against {right.size}"
      f" ({right.describe()})"
    )
  if left.sha256 != right.sha256 and _rules(left) != _rules(right):
    # Same pieces, other scores or normaliser: the same text gets other ids.
    return (
      f"equal pieces but unequal files, sha256 {left.sha256[:12]} and "
      f"{right.sha256[:12]}"
    )
  return None


def _rules(vocabulary: Vocabulary) -> Any:
  """All that decides which ids a text gets, beside the pieces themselves."""
  if isinstance(vocabulary, SentencePieceVocabulary):
    return sentencepiece_model.rules(vocabulary.content)
  if isinstance(vocabulary, BPEVocabulary):
    return vocabulary.rules
  return vocabulary.sha256


def content_of(path: Path) -> bytes:
  """The bytes of a vocabulary's file."""
  try:
    return files.read_bytes(path, MAX_BYTES)
  except OSError as error:
    kinds = {
      ".json": "tokenizer.json",
      ".txt": "merges.txt of byte-pair encoding",
      ".jinja": "chat template",
    }
    raise UserError(
      f"vocabulary file {str(path)!r} cannot be read ({error.strerror}): "
      f"expected a {kinds.get(path.suffix, 'SentencePiece model')}; give the"
      " path of an existing file"
    ) from error
