"""Byte-pair encoding as `tokenizer.json` has it: Llama, Qwen, SmolLM, Gemma.

The library `tokenizers` gives the ids; the file is kept byte by byte.
"""

from collections.abc import Iterable
from collections.abc import Sequence
import functools
import hashlib
import json
import os
from typing import Any

from gkd.errors import UserError
from gkd.text.characters import make_spec
from gkd.text.characters import save_file
from gkd.text.characters import until_eos


class BPEVocabulary:
  """A `tokenizer.json` and the ids that it does not tell.

  Attributes:
    pad_id: id of the padding, the first of `eos_ids` where there is none.
    eos_ids: ids that end a text; the first one is appended to targets.
    unk_id: id of what has no token; None where every byte has one.
    control_ids: the special tokens of the file; none is part of an answer.
    prompt_start: ids that the file puts before a text, such as Llama's BOS.
    ends_prompts: whether the file puts an end of sequence behind a text.
    target_start: `prompt_start` of a file that also ends texts (CodeT5): its
      models begin each answer so, and these ids are no control ids.
    chat_template: of the model, only ever searched, see `chat_formats`.
  """

  kind = "bpe"
  extra_ids = 0

  def __init__(
    self,
    content: bytes,
    eos_ids: Sequence[int],
    pad_id: int | None = None,
    chat_template: str | None = None,
    file: str | os.PathLike = "tokenizer.json",
  ):
    """Opens the content of a file, which is named in messages alone."""
    self.content = content
    self.sha256 = hashlib.sha256(content).hexdigest()
    self.chat_template = chat_template
    self._tokenizer = _tokenizer(content, file)
    self.size = 1 + max(self._tokenizer.get_vocab().values(), default=-1)
    self.eos_ids = tuple(eos_ids)
    self.pad_id = self.eos_ids[0] if pad_id is None else pad_id
    for index in (self.pad_id, *self.eos_ids):
      if not 0 <= index < self.size:
        raise UserError(
          f"tokenizer {str(file)!r} has {self.size} ids, but padding is"
          f" {self.pad_id} and the ends of a text are {list(self.eos_ids)};"
          " give the files of one model"
        )
    unknown = self._tokenizer.model.unk_token
    self.unk_id = unknown and self.id_of(unknown)
    whole, text = self._tokenizer.encode("a").ids, self.encode("a")
    if not text:
      raise UserError(
        f"tokenizer {str(file)!r} has no token for the letter a; give a whole"
        " tokenizer.json"
      )
    first = whole.index(text[0])
    self.prompt_start = tuple(whole[:first])
    self.ends_prompts = len(whole) > first + len(text)
    self.target_start = self.prompt_start if self.ends_prompts else ()
    added = sorted(self._tokenizer.get_added_tokens_decoder().items())
    self.control_ids = tuple(
      i for i, token in added if token.special and i not in self.target_start
    )

  def describe(self) -> str:
    return f"byte-pair encoding {self.sha256[:12]}, {self.size} ids"

  def encode(self, text: str) -> list[int]:
    """Ids of a text; names of special tokens in it become these, as there."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    # The library's own would start a thread for each core, in each worker.
    return [self.encode(text) for text in texts]

  def decode(self, ids: Iterable[int]) -> str:
    kept = until_eos(ids, self.eos_ids)
    return self.decode_prompt(i for i in kept if i not in self.target_start)

  def decode_prompt(self, ids: Iterable[int]) -> str:
    """The whole text, special tokens included: turns of a chat end inside."""
    return self._tokenizer.decode(
      [int(i) for i in ids], skip_special_tokens=False
    )

  def piece(self, index: int) -> str:
    return self._tokenizer.id_to_token(index) or f"<extra {index}>"

  def id_of(self, piece: str) -> int | None:
    """Id of a token; None where there is none."""
    return self._tokenizer.token_to_id(piece)

  @property
  def rules(self) -> list[Any]:
    """All that decides which ids a text gets, beside the tokens themselves."""
    settings = json.loads(self._tokenizer.to_str())
    settings["model"].pop("vocab")
    names = ("model", "normalizer", "pre_tokenizer", "added_tokens")
    return [settings[name] for name in names]

  def spec(self) -> dict[str, Any]:
    spec = make_spec(self, file="tokenizer.json")
    spec |= {"pad_id": self.pad_id, "eos_ids": list(self.eos_ids)}
    if self.chat_template:
      spec["chat_template"] = self.chat_template
    return spec

  def save(self, directory: str | os.PathLike) -> dict[str, Any]:
    """Writes the file into `directory`, byte by byte; returns the spec."""
    save_file(directory, "tokenizer.json", self.content)
    return self.spec()


@functools.lru_cache(maxsize=4)  # a command opens the same one several times
def _tokenizer(content: bytes, file: str | os.PathLike) -> Any:
  import tokenizers

  try:
    # The library aborts the process where it cannot take such a prefix away.
    if json.loads(content)["model"].get("continuing_subword_prefix"):
      raise ValueError("it has a continuing_subword_prefix")
    tokenizer = tokenizers.Tokenizer.from_buffer(content)
  except BaseException as error:
    # The library raises Exception itself, and a panic of Rust is not even one.
    if not isinstance(error, Exception) and "Panic" not in type(error).__name__:
      raise
    raise UserError(
      f"tokenizer {str(file)!r} cannot be read ({error}); give a whole"
      " tokenizer.json"
    ) from error
  # Files of some models cut and pad to a length.
  tokenizer.no_truncation()
  tokenizer.no_padding()
  return tokenizer
