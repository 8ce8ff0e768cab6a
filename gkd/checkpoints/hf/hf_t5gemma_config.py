"""config.json of T5Gemma and our T5GemmaConfig, both ways.

It has the settings of a Gemma 2 twice, for the encoder and for the decoder.
What transformers would compute otherwise than `models.t5gemma` is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_decoder_config
from gkd.checkpoints.hf import hf_gemma
from gkd.checkpoints.hf import hf_head
from gkd.checkpoints.hf import hf_rope
from gkd.models import config_fields
from gkd.models.t5gemma import STACKS
from gkd.models.t5gemma import Side
from gkd.models.t5gemma import T5GemmaConfig
from gkd.models.t5gemma_params import HF_EMBEDDING
from gkd.models.t5gemma_params import HF_HEAD
from gkd.text import tokenizer_folder
from gkd.types import UserError

CLASSES = {"t5gemma": ("T5GemmaForConditionalGeneration",)}
# transformers' class that opens it, the hub's name of what it does.
TASK = ("AutoModelForSeq2SeqLM", "text2text-generation")
# Field of Side: theirs.
_FIELDS = {
  **hf_decoder_config.SIZES,
  "sliding_window": "sliding_window",
  "attention_cap": "attn_logit_softcapping",
}
# What transformers takes where the file does not say.
_DEFAULTS = {
  **hf_gemma.DEFAULTS,
  "attn_logit_softcapping": 50.0,
  "final_logit_softcapping": 30.0,
  "rms_norm_eps": 1e-6,
  "rope_theta": 10_000.0,
  "sliding_window_pattern": 2,
  "vocab_size": 256_000,
}
_SHARED = ("hidden_activation", "vocab_size")  # by both sides
_COMPUTED: dict[str, tuple[Any, ...]] = {"attention_bias": (False,)}
_NEEDED = {**hf_decoder_config.NEEDED, "sliding_window": int}
_TYPES = {
  "attn_logit_softcapping": (float, int),
  "dropout_rate": (float, int),
  "final_logit_softcapping": (float, int),
  **hf_decoder_config.TYPES,
}


def settings(file: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
  """config.json with transformers' defaults for both sides.

  Raises:
    UserError: an option of another type, or that gkd does not compute.
  """
  remedy, sides = "download it again", dict.fromkeys(STACKS, dict)
  files.check_types(file, saved, sides, remedy, required=True)
  files.check_types(file, saved, _TYPES, remedy)
  whole = {"tie_word_embeddings": True, "dropout_rate": 0.0, **saved}
  for name in STACKS:
    where = f"{file} ({name})"
    side = whole[name] = {**_DEFAULTS, **saved[name]}
    files.check_types(where, side, _TYPES, remedy)
    files.check_types(where, side, _NEEDED, remedy, required=True)
    hf_config.check_values(where, side, _COMPUTED)
  for name in _SHARED:
    values = [whole[stack][name] for stack in STACKS]
    if values[0] != values[1]:
      raise UserError(
        f"{file} has {name} {values[0]!r} of the encoder and {values[1]!r} of"
        " the decoder; expected the same of both"
      )
  return whole


def take_head(
  path: Path, tensors: dict[str, Leaf], saved: Mapping[str, Any]
) -> tuple[bool, list[str]]:
  """Whether the head is the decoder's embedding, of which one is kept."""
  if not saved["tie_word_embeddings"]:
    return False, []
  if HF_HEAD in tensors and HF_EMBEDDING not in tensors:
    tensors[HF_EMBEDDING] = tensors.pop(HF_HEAD)
  return True, hf_head.without_copy(path, tensors, HF_HEAD, HF_EMBEDDING)


def read(
  folder: Path,
  saved: Mapping[str, Any],
  via_embedding: bool,
  given: Mapping[str, Any],
) -> tuple[T5GemmaConfig, tuple[str, ...]]:
  """The config, and sentences about what was assumed.

  Args:
    folder: whose tokenizer tells the number of real ids.
    saved: see `settings`.
    via_embedding: see `take_head`.
    given: see `source.open_checkpoint`.
  """
  file, decoder = folder / hf_config.FILE, saved["decoder"]
  activation, rows = decoder["hidden_activation"], decoder["vocab_size"]
  known = tokenizer_folder.model_ids(folder)
  ids = {**decoder, **known}
  if "decoder_start_token_id" in known:
    ids["bos_token_id"] = known["decoder_start_token_id"]
  ids, assumed = checkpoint_tokenizer.ids_of_decoder(folder, rows, ids, given)
  fields = {
    "vocab_size": rows,
    "mlp_activations": hf_decoder_config.activations(file, activation),
    "logits_via_embedding": via_embedding,
    "logit_cap": decoder["final_logit_softcapping"],
    "dropout_rate": saved["dropout_rate"],
    **{name: _side(f"{file} ({name})", saved[name]) for name in STACKS},
  }
  try:
    config = config_fields.from_fields(T5GemmaConfig, fields | ids)
  except UserError as error:
    raise UserError(f"{file}: {error}") from error
  return config_fields.with_overrides(config, given, file), assumed


def as_json(
  config: T5GemmaConfig, dtype: str, model_type: str | None = None
) -> dict[str, Any]:
  """config.json of a model, for versions 4 and 5 of transformers.

  Args:
    config: of the model.
    dtype: "float32" or "bfloat16", of the parameters.
    model_type: not used.

  Raises:
    UserError: transformers has no such model.
  """
  del model_type
  written = {
    "architectures": list(CLASSES["t5gemma"]),
    "dropout_rate": config.dropout_rate,
    "is_encoder_decoder": True,
    "model_type": "t5gemma",
    "tie_word_embeddings": config.logits_via_embedding,
    "torch_dtype": dtype,
    "vocab_size": config.vocab_size,
    **generation_json(config),
  }
  for name in STACKS:
    side, gemma = getattr(config, name), config.stack(name).gemma
    if side.emb_dim % side.num_heads:
      raise UserError(
        f"transformers has no T5Gemma with {side.num_heads} heads in the {name}"
        f" of width {side.emb_dim}, which they do not divide; write it --to=gkd"
      )
    fields = {theirs: getattr(side, n) for n, theirs in _FIELDS.items()}
    fields |= {
      "bos_token_id": config.start_id,
      "eos_token_id": written["eos_token_id"],
      "final_logit_softcapping": config.logit_cap,
      "hidden_activation": hf_decoder_config.their_activation(config),
      "layer_types": hf_gemma.layer_types(gemma, side.num_layers),
      "model_type": "t5_gemma_module",
      "pad_token_id": config.pad_id,
      "query_pre_attn_scalar": hf_gemma.query_scalar(gemma),
      "rope_theta": side.rope_theta,
      "vocab_size": config.vocab_size,
    }
    written[name] = dict(sorted(fields.items()))
  return dict(sorted(written.items()))


def generation_json(config: T5GemmaConfig) -> dict[str, Any]:
  """generation_config.json: where `generate` starts and ends."""
  return {
    "bos_token_id": config.start_id,
    "decoder_start_token_id": config.start_id,
    "eos_token_id": hf_config.end_ids(config.eos_ids),
    "pad_token_id": config.pad_id,
  }


def _side(where: str, saved: Mapping[str, Any]) -> Side:
  """The sizes of one of the two; `where` is for messages."""
  theta, scaling = hf_rope.read(where, saved)
  if scaling is not None:
    raise UserError(
      f"{where} has the rotary positions {scaling}; expected none that are"
      " scaled, as T5Gemma has them"
    )
  gemma = hf_gemma.read(where, {**saved, "rope_local_base_freq": theta})
  return Side(
    **{ours: saved[theirs] for ours, theirs in _FIELDS.items()},
    query_scale=gemma.query_scale,
    global_every=gemma.global_every,
    rope_theta=theta,
  )
