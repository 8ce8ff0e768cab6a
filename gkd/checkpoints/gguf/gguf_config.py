"""The DecoderConfig of a GGUF file, from its metadata and the names in it.

llama.cpp knows parts of some models by heart, which stand in no file; they are
listed among what was assumed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints.checkpoint import Leaf
from gkd.models import config_fields
from gkd.models import rotary
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_only import Gemma
from gkd.models.decoder_only import RopeScaling
from gkd.types import UserError

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3")
# Llama 3's factors of the wavelengths; no parameters.
ROPE_TABLE = "rope_freqs.weight"
_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
# Field of DecoderConfig: key of the metadata, below the architecture's name.
_FIELDS = {
  "emb_dim": "embedding_length",
  "num_layers": "block_count",
  "num_heads": "attention.head_count",
  "num_kv_heads": "attention.head_count_kv",
  "head_dim": "attention.key_length",
  "mlp_dim": "feed_forward_length",
  "norm_epsilon": "attention.layer_norm_rms_epsilon",
  "rope_theta": "rope.freq_base",
}
_IDS = {
  "pad_token_id": "padding_token_id",
  "eos_token_id": "eos_token_id",
  "bos_token_id": "bos_token_id",
}
_WINDOW = "attention.sliding_window"  # of a Mistral in all layers
_TURN = "tokenizer.ggml.eot_token_id"
# Of the Llamas with such a table: low_freq_factor, high_freq_factor,
# original_max_position_embeddings. Their factor is the largest of the table.
_LLAMA3 = (1.0, 4.0, 8192)
# Of Gemma 3, src/models/gemma3.cpp of llama.cpp: layers of the one whose heads
# are scaled by their share of the width; how many layers a global one is for.
_GEMMA_27B_LAYERS = 62
_GEMMA_GLOBAL_EVERY = 6
_GEMMA_LOCAL_THETA = 10_000.0


def read(
  path: Path,
  metadata: Mapping[str, Any],
  tensors: Mapping[str, Leaf],
  given: Mapping[str, Any],
) -> tuple[DecoderConfig, tuple[str, ...]]:
  """The config, and sentences about what was assumed.

  Args:
    path: of the file.
    metadata: see `gguf_file.Header`.
    tensors: {name in the file: tensor}.
    given: see `source.open_checkpoint`.

  Raises:
    UserError: another architecture, or one of these with options that gkd does
      not compute.
  """
  kind = metadata.get("general.architecture")
  if kind not in ARCHITECTURES:
    raise UserError(
      f"{path} is of the architecture {kind!r}; expected one of"
      f" {', '.join(ARCHITECTURES)}"
    )
  about = {
    name.removeprefix(f"{kind}."): value for name, value in metadata.items()
  }
  fields = {field: about.get(key) for field, key in _FIELDS.items()}
  if fields["num_kv_heads"] is None:
    fields["num_kv_heads"] = fields["num_heads"]
  try:
    fields["head_dim"] = _head_dim(path, about, fields)
    scaling, assumed = _scaling(path, about, tensors, fields)
    fields |= {
      "vocab_size": tensors[_EMBEDDING].shape[0],
      "logits_via_embedding": _HEAD not in tensors,
      "qkv_bias": kind == "qwen2",
      "qk_norm": kind in ("qwen3", "gemma3"),
      "rope_theta": fields["rope_theta"] or 10_000.0,
      "rope_scaling": scaling,
      "sliding_window": about.get(_WINDOW) if kind == "llama" else None,
    }
    if kind == "gemma3":
      gemma, more = _gemma(about, fields)
      fields |= {"mlp_activations": ("gelu", "linear"), "gemma": gemma}
      assumed += more
  except (KeyError, TypeError, ArithmeticError) as error:
    raise UserError(
      f"{path} is no whole {kind} ({type(error).__name__}: {error}); download"
      " it again"
    ) from error
  ids, more = _ids(path, fields["vocab_size"], metadata, given)
  try:
    config = config_fields.from_fields(DecoderConfig, fields | ids)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  config = config_fields.with_overrides(config, given, path)
  return config, (*assumed, *more)


def _head_dim(
  path: Path, about: Mapping[str, Any], fields: Mapping[str, Any]
) -> int:
  """Size of a head, which all of is rotated; other models are refused."""
  size = fields["head_dim"] or fields["emb_dim"] // fields["num_heads"]
  expected = {
    "attention.value_length": size,
    "rope.dimension_count": size,
    "expert_count": 0,
    "attn_logit_softcapping": 0,
    "final_logit_softcapping": 0,
  }
  for key, value in expected.items():
    if about.get(key, value) != value:
      raise UserError(
        f"{path} has {key} {about[key]}, which gkd does not compute; expected"
        f" {value} or nothing"
      )
  return size


def _scaling(
  path: Path,
  about: Mapping[str, Any],
  tensors: Mapping[str, Leaf],
  fields: Mapping[str, Any],
) -> tuple[RopeScaling | None, tuple[str, ...]]:
  factor = about.get("rope.scaling.factor") or about.get("rope.scale_linear")
  # For llama.cpp a factor alone is linear.
  kind = about.get("rope.scaling.type", "linear" if factor else "none")
  if kind not in ("none", "linear"):
    raise UserError(
      f"{path} scales rotary positions by {kind!r}, which gkd does not compute;"
      " expected none, linear or Llama 3's table"
    )
  if kind == "linear" and factor:
    return RopeScaling(kind="linear", factor=factor), ()
  if ROPE_TABLE not in tensors:
    return None, ()
  table = tensors[ROPE_TABLE].read()
  scaling = RopeScaling(
    kind="llama3",
    factor=float(table.max(initial=0)),  # an empty one is refused below
    low_frequency_factor=_LLAMA3[0],
    high_frequency_factor=_LLAMA3[1],
    original_length=_LLAMA3[2],
  )
  theta, size = fields["rope_theta"], fields["head_dim"]
  # Compared by length first: a damaged file may say billions.
  if 2 * len(table) != size or not np.allclose(
    table * rotary.frequencies(size, theta, scaling),
    rotary.frequencies(size, theta, None),
    rtol=1e-4,
    atol=0,
  ):
    raise UserError(
      f"{path} has a table {ROPE_TABLE} that is not Llama 3's; expected that of"
      f" {scaling}; give the model as a Hugging Face folder"
    )
  return scaling, (f"rotations: {scaling}, which gives the file's table",)


def _gemma(
  about: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[Gemma, tuple[str, ...]]:
  """Gemma's settings; those that the file does not say are llama.cpp's."""
  width, heads = fields["emb_dim"], fields["num_heads"]
  is_27b = fields["num_layers"] == _GEMMA_27B_LAYERS
  theta = about.get("rope.freq_base_swa")
  every = about.get("attention.sliding_window_pattern")
  gemma = Gemma(
    post_norms=True,
    embedding_scale=width**0.5,
    norm_offset=0.0,  # the file has 1 + w
    query_scale=(width // heads if is_27b else fields["head_dim"]) ** -0.5,
    sliding_window=about[_WINDOW],
    global_every=every or _GEMMA_GLOBAL_EVERY,
    local_rope_theta=theta or _GEMMA_LOCAL_THETA,
  )
  said = {"query_scale": None, "global_every": every, "local_rope_theta": theta}
  names = [name for name, value in said.items() if not value]
  listed = ", ".join(f"{name} {getattr(gemma, name):.6g}" for name in names)
  return gemma, (
    f"gemma: {listed}, which the file does not say; as llama.cpp has it",
  )


def _ids(
  path: Path, rows: int, metadata: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
  saved = {
    name: metadata.get(f"tokenizer.ggml.{key}") for name, key in _IDS.items()
  }
  end, turn = saved["eos_token_id"], metadata.get(_TURN)
  if None not in (end, turn) and end != turn:
    saved["eos_token_id"] = [end, turn]
  return checkpoint_tokenizer.ids_of_decoder(path, rows, saved, given)
