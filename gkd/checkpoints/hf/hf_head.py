"""The embedding of a T5 and its head, which may be the embedding once more.

Whether states are scaled by d_model^-0.5 before the head, as T5 1.0 does it,
hangs on `tie_word_embeddings` in version 4 of transformers. Version 5 ties
every head whose weights are not in the file, and asks for the scale apart:

            scaled in version 4      scaled in version 5
  t5        tie_word_embeddings      scale_decoder_outputs, else as in 4
  mt5       tie_word_embeddings      never
  umt5      tie_word_embeddings      always; since 5.24 as t5

Always is not what umT5 is: versions 5.0 to 5.23 compute other logits than
version 4 and T5X for the published umT5. Here its head is what config.json says
it is.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.checkpoint import content_sha256
from gkd.checkpoints.hf.hf_config import FILE as CONFIG_FILE
from gkd.models.t5_params import HF_EMBEDDING
from gkd.models.t5_params import HF_HEAD
from gkd.types import UserError

# The embedding once more, in files that keep what the model shares.
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Of old versions; no attention reads it, and transformers leaves it out too.
UNREAD = (
  "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
)


def take_copies(path: Path, tensors: dict[str, Leaf]) -> list[str]:
  """Takes what a folder has twice, or for nothing, out of `tensors`.

  Returns sentences about it; refuses copies of the embedding that differ.
  """
  sentences = []
  if tensors.pop(UNREAD, None):
    sentences.append(f"left out: {UNREAD}, which no attention reads")
  copies = [name for name in COPIES if name in tensors]
  if HF_EMBEDDING not in tensors and copies:
    tensors[HF_EMBEDDING] = tensors.pop(copies.pop(0))
  for name in copies:
    if not equal(tensors.pop(name), tensors[HF_EMBEDDING]):
      raise UserError(
        f"{path}: {name} differs from {HF_EMBEDDING}, which a T5 has only once;"
        " give a model whose encoder and decoder share it"
      )
  if copies:
    sentences.append(
      f"copies: {', '.join(copies)} equal {HF_EMBEDDING} and are not written"
      " again"
    )
  return sentences


def take_head(
  path: Path, tensors: dict[str, Leaf], saved: Mapping[str, Any]
) -> tuple[bool, list[str]]:
  """Finds the weights of the head.

  Args:
    path: the folder, for messages.
    tensors: of it; after this they have a head if and only if the model has one
      of its own.
    saved: config.json.

  Returns:
    Whether the head is the embedding, after scaled states; sentences.
  """
  is_scaled, is_tied = _scaled_and_tied(saved)
  head, embedding = tensors.get(HF_HEAD), tensors.get(HF_EMBEDDING)
  if embedding is None or not (is_scaled or is_tied):
    return False, []
  if not is_scaled:
    if head is not None:
      return False, []
    tensors[HF_HEAD] = embedding
    return False, [
      f"head: {HF_EMBEDDING} once more, since states are not scaled before it"
    ]
  if head is None:
    return True, []
  if not equal(head, embedding):
    raise UserError(
      f"{path}: {HF_HEAD} differs from {HF_EMBEDDING}, but {CONFIG_FILE} ties"
      " them and scales the states; if the model is T5 1.1, mT5 or umT5, whose"
      " head is its own, set tie_word_embeddings (and scale_decoder_outputs, if"
      " it is there) to false in it"
    )
  del tensors[HF_HEAD]
  return True, [about_copy(HF_HEAD, HF_EMBEDDING)]


def without_copy(
  path: Path, tensors: dict[str, Leaf], head: str, embedding: str
) -> list[str]:
  """Takes the head of a model that ties it out of `tensors`; sentences.

  Raises:
    UserError: it is another one than the embedding.
  """
  if head not in tensors or embedding not in tensors:
    return []
  if not equal(tensors.pop(head), tensors[embedding]):
    raise UserError(
      f"{path}: {head} differs from {embedding}, but {CONFIG_FILE} ties them;"
      " if the head is the model's own, set tie_word_embeddings to false in it"
    )
  return [about_copy(head, embedding)]


def about_copy(name: str, of: str) -> str:
  return f"copies: {name} equals {of} and is not written again"


def _scaled_and_tied(saved: Mapping[str, Any]) -> tuple[bool, bool]:
  """Whether states are scaled, and whether the head may be the embedding."""
  kind = saved["model_type"]
  is_scaled = is_tied = bool(saved.get("tie_word_embeddings", True))
  if kind != "mt5" and saved.get("scale_decoder_outputs") is not None:
    is_scaled = saved["scale_decoder_outputs"]
  # Version of transformers that wrote the file; older ones are silent.
  major = str(saved.get("transformers_version", "")).partition(".")[0]
  if kind == "mt5" and major.isdecimal() and int(major) >= 5:
    is_scaled = False
  return is_scaled, is_tied


def equal(one: Leaf, other: Leaf) -> bool:
  """Bit by bit, holding one of the two at a time."""
  if (one.shape, one.dtype) != (other.shape, other.dtype):
    return False
  return content_sha256([one.read()]) == content_sha256([other.read()])
