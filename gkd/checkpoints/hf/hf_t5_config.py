"""config.json of T5, mT5 and umT5 and our T5Config, both ways.

How the head is meant, which the file says in three ways, is in `hf_head`.
"""

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

from gkd import files
from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_head
from gkd.models import config_fields
from gkd.models import sizes
from gkd.models.t5 import T5Config
from gkd.models.t5_params import HF_EMBEDDING
from gkd.text import tokenizer_folder
from gkd.types import UserError

# field of T5Config: (theirs, their default; None where it must be there).
_FIELDS: dict[str, tuple[str, Any]] = {
  "vocab_size": ("vocab_size", None),
  "emb_dim": ("d_model", None),
  "num_heads": ("num_heads", None),
  "num_encoder_layers": ("num_layers", None),
  "num_decoder_layers": ("num_decoder_layers", None),
  "head_dim": ("d_kv", None),
  "mlp_dim": ("d_ff", None),
  "dropout_rate": ("dropout_rate", 0.1),
  "relative_buckets": ("relative_attention_num_buckets", 32),
  "relative_max_distance": ("relative_attention_max_distance", 128),
  "layer_norm_epsilon": ("layer_norm_epsilon", 1e-6),
  "pad_id": ("pad_token_id", 0),
  "eos_ids": ("eos_token_id", 1),
  "start_id": ("decoder_start_token_id", 0),
}
_WRITTEN = {
  "t5": "T5ForConditionalGeneration",
  "mt5": "MT5ForConditionalGeneration",
  "umt5": "UMT5ForConditionalGeneration",
}
_OLD_CLASS = "T5WithLMHeadModel"  # what version 2 called it
# Each of them opens the others' weights.
CLASSES = {
  kind: (name, *_WRITTEN.values(), _OLD_CLASS)
  for kind, name in _WRITTEN.items()
}
# transformers' class that opens it, the hub's name of what it does.
TASK = ("AutoModelForSeq2SeqLM", "text2text-generation")
_DEFAULT_MLP = {"t5": "relu", "mt5": "gated-gelu", "umt5": "gated-gelu"}
# Their feed_forward_proj: ours; of equal ones the first is written. Their plain
# "gelu" is the exact one; only of "gated-gelu" they mean T5's tanh form, which
# they call gelu_new elsewhere.
_ACTIVATIONS = {
  "relu": ("relu",),
  "silu": ("silu",),
  "swish": ("silu",),
  "gelu_new": ("gelu",),
  "gated-gelu": ("gelu", "linear"),
  "gated-gelu_new": ("gelu", "linear"),
  "gated-silu": ("silu", "linear"),
  "gated-swish": ("silu", "linear"),
  "gated-relu": ("relu", "linear"),
}
_THEIRS = {ours: theirs for theirs, ours in reversed(_ACTIVATIONS.items())}
# Of the rest `T5Config` knows the types; "no" and 0 would be taken for truth.
_TYPES = {
  "dense_act_fn": str,
  "dropout_rate": (float, int),
  "feed_forward_proj": str,
  "is_encoder_decoder": bool,
  "is_gated_act": bool,
  "layer_norm_epsilon": (float, int),
  "scale_decoder_outputs": bool,
  "tie_word_embeddings": bool,
}
# Options, and the values of them that gkd computes beside none.
_COMPUTED: dict[str, tuple[Any, ...]] = {
  "pruned_heads": ({},),
  "tie_encoder_decoder": (False,),
}


def settings(file: Path, saved: Mapping[str, Any]) -> Mapping[str, Any]:
  """config.json, see `hf_config.load`, unless no T5 of T5X is like that."""
  files.check_types(file, saved, _TYPES, "download it again")
  if saved.get("is_encoder_decoder") is False:
    raise UserError(
      f"{file} is of a model with is_encoder_decoder false; expected a whole"
      f" encoder–decoder with a head ({CLASSES[saved['model_type']][0]})"
    )
  hf_config.check_values(file, saved, _COMPUTED)
  return saved


def take_head(
  path: Path, tensors: dict[str, Leaf], saved: Mapping[str, Any]
) -> tuple[bool, list[str]]:
  """Finds the head; takes what a folder has twice out of `tensors`.

  Returns:
    Whether the head is the embedding, see `hf_head.take_head`; sentences.
  """
  about_prefix = _without_prefix(tensors)
  about_copies = hf_head.take_copies(path, tensors)
  via_embedding, about_head = hf_head.take_head(path, tensors, saved)
  return via_embedding, [*about_prefix, *about_copies, *about_head]


def read(
  folder: Path,
  saved: Mapping[str, Any],
  via_embedding: bool,
  given: Mapping[str, Any],
) -> tuple[T5Config, tuple[str, ...]]:
  """The config, and sentences about what was assumed.

  Args:
    folder: whose tokenizer tells the number of real ids.
    saved: see `settings`.
    via_embedding: see `take_head`.
    given: see `source.open_checkpoint`.
  """
  file = folder / hf_config.FILE
  saved = {**saved, **tokenizer_folder.model_ids(folder)}
  present = {key: value for key, value in saved.items() if value is not None}
  fields = {
    name: present.get(key, default) for name, (key, default) in _FIELDS.items()
  }
  if fields["num_decoder_layers"] is None:  # as many as the encoder has
    fields["num_decoder_layers"] = fields["num_encoder_layers"]
  fields |= {
    "mlp_activations": _activations(file, saved),
    "bias_per_layer": saved["model_type"] == "umt5",
    "logits_via_embedding": via_embedding,
  }
  assumed = ()
  try:
    config = T5Config.from_size(fields)
    real_ids = given.get("vocabulary_size")
    if real_ids is None:
      real_ids, assumed = _real_ids(folder, config.vocab_size)
    config = dataclasses.replace(config, vocabulary_size=real_ids)
  except UserError as error:
    raise UserError(f"{file}: {error}") from error
  return config_fields.with_overrides(config, given, file), assumed


def as_json(
  config: T5Config, dtype: str, model_type: str | None = None
) -> dict[str, Any]:
  """config.json of a model, for versions 4 and 5 of transformers.

  Args:
    config: of the model.
    dtype: "float32" or "bfloat16", of the parameters.
    model_type: that it had, if it came from there.
  """
  if config.mlp_activations not in _THEIRS:
    raise UserError(
      f"transformers has no T5 with the activations {config.mlp_activations};"
      f" expected one of {', '.join(map(str, _THEIRS))}"
    )
  tied = config.logits_via_embedding
  kind = "umt5" if config.bias_per_layer else "t5"
  # mT5's class never scales, so that it can only stand for untied models.
  if model_type == "mt5" and kind == "t5" and not tied:
    kind = "mt5"
  projection = _THEIRS[config.mlp_activations]
  activation = config.mlp_activations[0]
  written = {theirs: getattr(config, n) for n, (theirs, _) in _FIELDS.items()}
  written |= {
    "architectures": [CLASSES[kind][0]],
    "model_type": kind,
    "feed_forward_proj": projection,
    "dense_act_fn": "gelu_new" if activation == "gelu" else activation,
    "is_gated_act": projection.startswith("gated-"),
    "tie_word_embeddings": tied,
    "torch_dtype": dtype,
    "is_encoder_decoder": True,
    "use_cache": True,
    "initializer_factor": 1.0,
    **generation_json(config),
  }
  if kind == "t5":
    written["scale_decoder_outputs"] = tied
  return dict(sorted(written.items()))


def generation_json(config: T5Config) -> dict[str, Any]:
  """generation_config.json: where `generate` starts and ends."""
  return {
    "decoder_start_token_id": config.start_id,
    "eos_token_id": hf_config.end_ids(config.eos_ids),
    "pad_token_id": config.pad_id,
  }


def _without_prefix(tensors: dict[str, Leaf]) -> list[str]:
  """Gives the tensors T5's names, where a wrapper has put its own before."""
  ends = (
    n.removesuffix(HF_EMBEDDING) for n in tensors if n.endswith(HF_EMBEDDING)
  )
  prefix = next(ends, "")
  if not prefix or not all(name.startswith(prefix) for name in tensors):
    return []
  for name in list(tensors):
    tensors[name.removeprefix(prefix)] = tensors.pop(name)
  return [f"names: {prefix!r} is left out before each"]


def _activations(file: Path, saved: Mapping[str, Any]) -> tuple[str, ...]:
  projection = saved.get("feed_forward_proj")
  function, gated = saved.get("dense_act_fn"), saved.get("is_gated_act")
  same = f"gated-{function}" if function and gated else function
  if function == "gelu":  # as it is the exact one, which T5 never had
    same = f"{same} (exact)"
  projection = projection or same or _DEFAULT_MLP[saved["model_type"]]
  activations = _ACTIVATIONS.get(projection)
  if activations is None:
    raise UserError(
      f"{file} has the activation {projection!r}; expected one of"
      f" {', '.join(_ACTIVATIONS)}"
    )
  if None not in (function, gated) and _ACTIVATIONS.get(same) != activations:
    raise UserError(
      f"{file} contradicts itself: feed_forward_proj {projection!r}, but"
      f" dense_act_fn {function!r} and is_gated_act {gated}; correct it"
    )
  return activations


def _real_ids(folder: Path, rows: int) -> tuple[int, tuple[str, ...]]:
  """Real ids among the rows, and whether that was assumed."""
  vocabulary = checkpoint_tokenizer.load(folder, rows)
  if vocabulary is None:
    known = sizes.known_vocabulary_size(rows)
    return known, (
      f"vocabulary_size: {known}, for want of a tokenizer in the folder",
    )
  return vocabulary.size, ()
