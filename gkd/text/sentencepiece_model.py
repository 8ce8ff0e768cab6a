"""SentencePiece model files: opened, compared, made of a list of pieces."""

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

from gkd.errors import UserError


class Opened(NamedTuple):
  """SentencePiece over a model file, and what it does not tell.

  Attributes:
    processor: has the extra pieces as well.
    control_ids: such as padding and end, which no text contains.
    is_bpe: whether pieces are merged, as in Llama 2 and Gemma; T5's are not.
  """

  processor: Any
  control_ids: tuple[int, ...]
  is_bpe: bool


def open_model(content: bytes, extra_ids: int, path: Any) -> Opened:
  """Opens a model file with the extra pieces appended."""
  from sentencepiece import SentencePieceProcessor

  model = parse(content, path)
  pieces, control = enumerate(model.pieces), type(model).SentencePiece.CONTROL
  control_ids = tuple(i for i, piece in pieces if piece.type == control)
  trainer = model.trainer_spec
  is_bpe = trainer.model_type == type(trainer).BPE
  for i in reversed(range(extra_ids)):
    model.pieces.add(
      piece=f"▁<extra_id_{i}>",
      score=0.0,
      type=type(model).SentencePiece.USER_DEFINED,
    )
  try:
    processor = SentencePieceProcessor(model_proto=model.SerializeToString())
  except RuntimeError as error:
    raise UserError(
      f"vocabulary file {str(path)!r} is refused by SentencePiece ({error});"
      " give a whole file of T5's or Gemma's kind"
    ) from error
  return Opened(processor, control_ids, is_bpe)


def parse(content: bytes, path: Any) -> Any:
  """The `ModelProto` of a model file."""
  from sentencepiece import sentencepiece_model_pb2

  try:
    return sentencepiece_model_pb2.ModelProto.FromString(content)
  except Exception as error:  # protobuf's DecodeError, unnamed across versions
    raise UserError(
      f"vocabulary file {str(path)!r} is not a SentencePiece model ({error}); "
      "give the path of a .model file"
    ) from error


def rules(content: bytes) -> tuple:
  """All that decides which ids a text gets, beside the pieces themselves.

  Two files can say the same: a tokenizer that was saved in another format and
  rebuilt has lost the notes of its training.
  """
  model = parse(content, "")
  normalizer, trainer = model.normalizer_spec, model.trainer_spec
  return (
    [(piece.score, piece.type) for piece in model.pieces],
    normalizer.precompiled_charsmap,
    normalizer.add_dummy_prefix,
    normalizer.remove_extra_whitespaces,
    normalizer.escape_whitespaces,
    trainer.model_type,
    trainer.byte_fallback,
  )


def bpe_model(
  pieces: Iterable[tuple[str, float, int]],
  ids: dict[str, int],
  *,
  add_dummy_prefix: bool,
) -> bytes:
  """A model file of type BPE, as Llama 2 and Gemma have it.

  Args:
    pieces: text, score and type of each; the types are those of `ModelProto`.
    ids: of "unk", "bos", "eos" and "pad"; those left out do not exist.
    add_dummy_prefix: whether a blank is put before a text.
  """
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto()
  for piece, score, kind in pieces:
    model.pieces.add(piece=piece, score=score, type=kind)
  byte = type(model).SentencePiece.BYTE
  trainer, normalizer = model.trainer_spec, model.normalizer_spec
  trainer.model_type = sentencepiece_model_pb2.TrainerSpec.BPE
  trainer.vocab_size = len(model.pieces)
  trainer.byte_fallback = any(p.type == byte for p in model.pieces)
  for name in ("unk", "bos", "eos", "pad"):
    setattr(trainer, f"{name}_id", ids.get(name, -1))
    if name in ids:
      setattr(trainer, f"{name}_piece", model.pieces[ids[name]].piece)
  normalizer.name = "identity"
  normalizer.add_dummy_prefix = add_dummy_prefix
  normalizer.remove_extra_whitespaces = False
  normalizer.escape_whitespaces = True
  return model.SerializeToString()
