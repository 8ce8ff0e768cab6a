"""What config.json of Gemma 3 has beside that of other decoders, both ways.

Of a Gemma that also sees pictures (model_type gemma3) the text model is read.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_rope
from gkd.errors import check_number
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.types import UserError

TEXT = "gemma3_text"
WITH_PICTURES = "gemma3"
GLOBAL, LOCAL = "full_attention", "sliding_attention"
_OFFSET = 1.0  # what transformers adds to the scales of the norms
# What the published files leave out, as transformers fills it in.
DEFAULTS = {
  "bos_token_id": 2,
  "eos_token_id": 1,
  "head_dim": 256,
  "hidden_activation": "gelu_pytorch_tanh",
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
  "pad_token_id": 0,
  "query_pre_attn_scalar": 256,
  "rope_local_base_freq": 10_000.0,
  "rope_theta": 1_000_000.0,
  "sliding_window": 4096,
  "sliding_window_pattern": 6,
  "tie_word_embeddings": True,
  "vocab_size": 262_208,
}


def take_text(tensors: dict[str, Leaf]) -> list[str]:
  """Renames the tensors of the text model; returns the names of the others.

  Version 4 has language_model.model.layers…, 5 model.language_model.layers…
  """
  for name in list(tensors):
    leaf, parts = tensors.pop(name), name.split(".")
    if "language_model" in parts[:2]:
      parts.remove("language_model")
    tensors[".".join(parts)] = leaf
  return [
    name
    for name in tensors
    if "vision_tower" in name or "multi_modal_projector" in name
  ]


def read(file: Path, saved: Mapping[str, Any]) -> Gemma:
  """Gemma's own settings of a whole config.json."""
  local = {"rope_theta": saved["rope_local_base_freq"]}
  nested = (saved.get("rope_parameters") or {}).get(LOCAL)
  theta, scaling = hf_rope.read(file, {**local, "rope_parameters": nested})
  check_number(
    f"query_pre_attn_scalar in {file}",
    scalar := saved["query_pre_attn_scalar"],
    lambda x: x > 0,
    "a number above 0",
  )
  types = saved.get("layer_types")
  every = saved["sliding_window_pattern"]
  if types:
    every = (types.index(GLOBAL) if GLOBAL in types else len(types)) + 1
  gemma = Gemma(
    post_norms=True,
    embedding_scale=saved["hidden_size"] ** 0.5,
    norm_offset=_OFFSET,
    query_scale=scalar**-0.5,
    sliding_window=saved["sliding_window"],
    global_every=every,
    local_rope_theta=theta,
  )
  num_layers = saved["num_hidden_layers"]
  # Compared by length first: a damaged file may say billions.
  if scaling or (
    types
    and (len(types) != num_layers or types != layer_types(gemma, num_layers))
  ):
    raise UserError(
      f"{file} has layers of the types {types} with local rotations"
      f" {scaling}; expected each n-th of {num_layers} to be {GLOBAL}, all"
      f" others {LOCAL}, and these not scaled"
    )
  return gemma


def as_json(config: DecoderConfig) -> dict[str, Any]:
  """The fields beside those of all decoders.

  Raises:
    UserError: transformers has no such Gemma.
  """
  gemma = config.gemma
  scalar = query_scalar(gemma)
  theirs = dataclasses.replace(
    gemma,
    post_norms=True,
    embedding_scale=config.emb_dim**0.5,
    norm_offset=_OFFSET,
    attention_cap=None,
  )
  if gemma != theirs:
    raise UserError(f"transformers has no {gemma}; expected {theirs}")
  return {
    "layer_types": layer_types(gemma, config.num_layers),
    "query_pre_attn_scalar": scalar,
    "rope_local_base_freq": gemma.local_rope_theta,
    "sliding_window": gemma.sliding_window,
    "sliding_window_pattern": gemma.global_every,
  }


def with_their_norms(checkpoint: Checkpoint) -> tuple[Checkpoint, str]:
  """The checkpoint with w of norms that compute 1 + w, and a sentence.

  Of a Gemma out of a GGUF, which keeps 1 + w.
  """
  gemma = getattr(checkpoint.config, "gemma", None)
  if gemma is None or gemma.norm_offset == _OFFSET:
    return checkpoint, ""
  less = np.float32(_OFFSET - gemma.norm_offset)
  leaves = {
    name: leaf.map(lambda w: w - less) if name.endswith("norm/scale") else leaf
    for name, leaf in checkpoint.leaves.items()
  }
  gemma = dataclasses.replace(gemma, norm_offset=_OFFSET)
  config = dataclasses.replace(checkpoint.config, gemma=gemma)
  checkpoint = dataclasses.replace(checkpoint, config=config, leaves=leaves)
  return checkpoint, f"norms: less {less:g}, which transformers adds to them"


def query_scalar(gemma: Gemma) -> int:
  """query_pre_attn_scalar of queries that are scaled so."""
  scalar = max(1, round(gemma.query_scale**-2))
  if gemma.query_scale != scalar**-0.5:
    raise UserError(
      f"transformers has no query_scale {gemma.query_scale}; expected"
      f" {scalar**-0.5}, the inverse root of a whole number"
    )
  return scalar


def layer_types(gemma: Gemma, num_layers: int) -> list[str]:
  """What transformers calls each layer."""
  return [LOCAL if gemma.is_local(i) else GLOBAL for i in range(num_layers)]
