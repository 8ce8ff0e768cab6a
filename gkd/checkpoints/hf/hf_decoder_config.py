"""config.json of decoder-only models and our DecoderConfig, both ways.

Llama, Mistral, Qwen2 (and 2.5), dense Qwen3, and the text part of Gemma 3. What
one of them would compute otherwise than `models.decoder_only` is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_gemma
from gkd.checkpoints.hf import hf_head
from gkd.checkpoints.hf import hf_rope
from gkd.models import config_fields
from gkd.models.decoder_only import DecoderConfig
from gkd.models.decoder_params import HF_HEAD
from gkd.text import tokenizer_folder
from gkd.types import UserError

CLASSES = {
  "llama": ("LlamaForCausalLM",),
  "mistral": ("MistralForCausalLM",),
  "qwen2": ("Qwen2ForCausalLM",),
  "qwen3": ("Qwen3ForCausalLM",),
  hf_gemma.TEXT: ("Gemma3ForCausalLM",),
  hf_gemma.WITH_PICTURES: ("Gemma3ForConditionalGeneration",),
}
# transformers' class that opens it, the hub's name of what it does.
TASK = ("AutoModelForCausalLM", "text-generation")
_EMBEDDING = "model.embed_tokens.weight"
# Field of DecoderConfig, and of one side of a T5Gemma: theirs.
SIZES = {
  "emb_dim": "hidden_size",
  "num_layers": "num_hidden_layers",
  "num_heads": "num_attention_heads",
  "num_kv_heads": "num_key_value_heads",
  "head_dim": "head_dim",
  "mlp_dim": "intermediate_size",
  "norm_epsilon": "rms_norm_eps",
}
_FIELDS = {"vocab_size": "vocab_size", **SIZES}
# What transformers takes where the file does not say.
_DEFAULTS = {
  "hidden_activation": "silu",  # of all but Gemma it is called hidden_act
  "rms_norm_eps": 1e-6,
  "rope_theta": 10_000.0,
  "tie_word_embeddings": False,
}
_OWN_DEFAULTS = {
  "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
  "qwen3": {"head_dim": 128},
  hf_gemma.TEXT: hf_gemma.DEFAULTS,
}
# Options, and the values of them that gkd computes beside none.
_COMPUTED: dict[str, tuple[Any, ...]] = {
  "attention_bias": (False,),  # transformers' is on the output as well
  "attn_logit_softcapping": (),
  "final_logit_softcapping": (),
  "mlp_bias": (False,),
  "partial_rotary_factor": (1,),
  "use_bidirectional_attention": (False,),
  "use_sliding_window": (False,),
}
# Their functions: ours; of equal ones the first is written.
_ACTIVATIONS = {
  "silu": ("silu", "linear"),
  "swish": ("silu", "linear"),
  "gelu_pytorch_tanh": ("gelu", "linear"),
  "gelu_new": ("gelu", "linear"),
  "relu": ("relu", "linear"),
}
_THEIRS = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
NEEDED = dict.fromkeys(
  ("hidden_size", "num_attention_heads", "num_hidden_layers", "vocab_size"), int
)
TYPES = {
  "hidden_activation": str,
  "layer_types": [str],
  "max_position_embeddings": int,
  "query_pre_attn_scalar": (float, int),
  "rope_local_base_freq": (float, int),
  "rope_parameters": dict,
  "rope_scaling": dict,
  "rope_theta": (float, int),
  "sliding_window": int,
  "sliding_window_pattern": int,
  "tie_word_embeddings": bool,
}


def settings(file: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
  """config.json of the text model, with transformers' defaults.

  Raises:
    UserError: an option of another type, or that gkd does not compute.
  """
  kind = saved["model_type"]
  if kind == hf_gemma.WITH_PICTURES:
    kind = hf_gemma.TEXT
    files.check_types(file, saved, {"text_config": dict}, "download it again")
    saved = {**saved, **(saved.get("text_config") or {}), "model_type": kind}
  own = _OWN_DEFAULTS.get(kind, {})
  whole = {**_DEFAULTS, **own, **saved}
  if kind != hf_gemma.TEXT:
    whole["hidden_activation"] = saved.get("hidden_act", "silu")
  files.check_types(file, whole, TYPES, "download it again")
  files.check_types(file, whole, NEEDED, "download it again", required=True)
  heads = whole["num_attention_heads"]
  if whole.get("num_key_value_heads") is None:
    whole["num_key_value_heads"] = heads
  if whole.get("head_dim") is None:
    whole["head_dim"] = whole["hidden_size"] // max(heads, 1)
  hf_config.check_values(file, whole, _COMPUTED)
  return whole


def take_head(
  path: Path, tensors: dict[str, Leaf], saved: Mapping[str, Any]
) -> tuple[bool, list[str]]:
  """Takes what a folder has twice, or for nothing, out of `tensors`.

  Returns:
    Whether the head is the embedding; sentences.
  """
  sentences = []
  # Tables of rotations, which old versions kept.
  unread = [name for name in tensors if name.endswith(".rotary_emb.inv_freq")]
  if saved["model_type"] == hf_gemma.TEXT:
    unread += hf_gemma.take_text(tensors)
  for name in unread:
    del tensors[name]
  if unread:
    sentences.append(
      f"left out: {len(unread)} arrays that are not read for text, such as"
      f" {unread[0]}"
    )
  is_tied = saved["tie_word_embeddings"]
  if is_tied:
    sentences += hf_head.without_copy(path, tensors, HF_HEAD, _EMBEDDING)
  return is_tied, sentences


def read(
  folder: Path,
  saved: Mapping[str, Any],
  via_embedding: bool,
  given: Mapping[str, Any],
) -> tuple[DecoderConfig, tuple[str, ...]]:
  """The config, and sentences about what was assumed.

  Args:
    folder: whose tokenizer tells the number of real ids.
    saved: see `settings`.
    via_embedding: see `take_head`.
    given: see `source.open_checkpoint`.
  """
  file = folder / hf_config.FILE
  kind = saved["model_type"]
  is_gemma = kind == hf_gemma.TEXT
  types = {*(saved.get("layer_types") or ())} - {hf_gemma.GLOBAL}
  if types and not is_gemma:
    raise UserError(
      f"{file} has layers of the types {sorted(types)}, which gkd computes of a"
      f" Gemma alone; expected {hf_gemma.GLOBAL}"
    )
  theta, scaling = hf_rope.read(file, saved, hf_gemma.GLOBAL * is_gemma)
  fields = {ours: saved.get(theirs) for ours, theirs in _FIELDS.items()}
  fields |= {
    "mlp_activations": activations(file, saved["hidden_activation"]),
    "rope_theta": theta,
    "rope_scaling": scaling,
    "logits_via_embedding": via_embedding,
    "qkv_bias": kind == "qwen2",
    "qk_norm": is_gemma or kind == "qwen3",
    "sliding_window": saved["sliding_window"] if kind == "mistral" else None,
    "gemma": hf_gemma.read(file, saved) if is_gemma else None,
  }
  ids, assumed = checkpoint_tokenizer.ids_of_decoder(
    folder,
    saved["vocab_size"],
    {**saved, **tokenizer_folder.model_ids(folder)},
    given,
  )
  try:
    config = config_fields.from_fields(DecoderConfig, fields | ids)
  except UserError as error:
    raise UserError(f"{file}: {error}") from error
  return config_fields.with_overrides(config, given, file), assumed


def as_json(
  config: DecoderConfig, dtype: str, model_type: str | None = None
) -> dict[str, Any]:
  """config.json of a model, for versions 4 and 5 of transformers.

  Args:
    config: of the model.
    dtype: "float32" or "bfloat16", of the parameters.
    model_type: that it had, if it came from there.

  Raises:
    UserError: transformers has no such model.
  """
  kind = _kind(config, model_type)
  is_gemma = kind == hf_gemma.TEXT
  written = {theirs: getattr(config, n) for n, theirs in _FIELDS.items()}
  activation = "hidden_activation" if is_gemma else "hidden_act"
  written |= {
    activation: their_activation(config),
    "architectures": list(CLASSES[kind]),
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "model_type": kind,
    "rope_scaling": hf_rope.as_json(config.rope_scaling),
    "rope_theta": config.rope_theta,
    "sliding_window": config.sliding_window,
    "tie_word_embeddings": config.logits_via_embedding,
    "torch_dtype": dtype,
    "use_cache": True,
    "use_sliding_window": False,
    **(hf_gemma.as_json(config) if is_gemma else {}),
    **generation_json(config),
  }
  return dict(sorted(written.items()))


def generation_json(config: DecoderConfig) -> dict[str, Any]:
  """generation_config.json: where `generate` starts and ends."""
  return {
    "bos_token_id": config.start_id,
    "eos_token_id": hf_config.end_ids(config.eos_ids),
    "pad_token_id": config.pad_id,
  }


def activations(file: Path, name: str) -> tuple[str, ...]:
  """Ours of the function of their gate."""
  if name not in _ACTIVATIONS:
    raise UserError(
      f"{file} has the activation {name!r}; expected one of"
      f" {', '.join(_ACTIVATIONS)}"
    )
  return _ACTIVATIONS[name]


def their_activation(config: Any) -> str:
  """The inverse, of a config with such an MLP."""
  if config.mlp_activations not in _THEIRS:
    raise UserError(
      f"transformers has no decoder with the activations"
      f" {config.mlp_activations}; expected one of"
      f" {', '.join(map(str, _THEIRS))}"
    )
  return _THEIRS[config.mlp_activations]


def _kind(config: DecoderConfig, model_type: str | None) -> str:
  """The model_type that computes what the config says."""
  divides = config.emb_dim % config.num_heads == 0
  if config.gemma is not None:
    kind = hf_gemma.TEXT
    fits = config.qk_norm and not config.qkv_bias and divides
  elif config.qk_norm:
    kind, fits = "qwen3", not (config.qkv_bias or config.sliding_window)
  elif config.qkv_bias:
    kind, fits = "qwen2", not config.sliding_window
  # A Llama's heads divide its width and see all keys.
  elif model_type == "mistral" or not divides or config.sliding_window:
    return "mistral"
  else:
    return "llama"
  if not fits:
    raise UserError(
      f"transformers has no {kind} with qk_norm={config.qk_norm},"
      f" qkv_bias={config.qkv_bias}, sliding_window={config.sliding_window} and"
      f" {config.num_heads} heads in a width of {config.emb_dim}; write it"
      " --to=gkd"
    )
  return kind
