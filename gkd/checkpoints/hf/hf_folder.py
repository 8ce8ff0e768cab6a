"""Hugging Face folders, read and written array by array.

Read are config.json and safetensors files; nothing that could hold code.
Written is what today's transformers writes, with tokenizer and model card.
Which model_type is read by which module says one table, `_MODULES`.
"""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gkd import files
from gkd.checkpoints import expected_leaves
from gkd.checkpoints import format_detection
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_decoder_config
from gkd.checkpoints.hf import hf_t5_config
from gkd.checkpoints.hf import hf_t5gemma_config
from gkd.checkpoints.hf import hf_tokenizer
from gkd.checkpoints.hf import model_card
from gkd.checkpoints.hf import safetensors_file
from gkd.models import registry
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

# Family: how its config.json is read and written.
_MODULES: dict[str, ModuleType] = {
  registry.T5: hf_t5_config,
  registry.DECODER_ONLY: hf_decoder_config,
  registry.T5GEMMA: hf_t5gemma_config,
}
_FAMILIES = {
  model_type: family
  for family, module in _MODULES.items()
  for model_type in module.CLASSES
}
_CLASSES = {
  model_type: names
  for module in _MODULES.values()
  for model_type, names in module.CLASSES.items()
}
# What metadata["hf"] keeps on the way through our own format.
_KEPT = {
  "max_position_embeddings": int,
  "model_max_length": int,
  "model_type": str,
}


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
  """Opens a folder that transformers saved; see `source.open_checkpoint`.

  Only tensors that may be the embedding once more are read, to compare them.
  """
  saved = hf_config.load(path, _CLASSES)
  family = _FAMILIES[saved["model_type"]]
  module = _MODULES[family]
  saved = module.settings(path / hf_config.FILE, saved)
  names = {file.name for file in path.iterdir()}
  if not any(".safetensors" in name for name in names):
    format_detection.refuse_other_weights(path, names, module.TASK[0])
  tensors = safetensors_file.open_folder(path)
  via_embedding, about_tensors = module.take_head(path, tensors, saved)
  config, assumed = module.read(path, saved, via_embedding, given)
  expected_leaves.check(path, config, tensors, "hf")
  is_sharded = (path / safetensors_file.INDEX_FILE).is_file()
  metadata = {n: saved[n] for n in _KEPT if saved.get(n) is not None}
  if (longest := tokenizer_folder.max_length(path)) is not None:
    metadata["model_max_length"] = longest
  return Checkpoint(
    path=path,
    format="hf",
    layout=f"Hugging Face {saved['model_type']}, safetensors in"
    f" {'several files' if is_sharded else 'one file'}",
    family=family,
    config=config,
    leaves={
      name: tensors[row.hf_name].transposed_if(row.hf_transposed)
      for name, row in registry.layout_of(config).parameters(config).items()
    },
    assumed=(*assumed, *about_tensors),
    metadata={"hf": metadata},
  )


def write(
  path: Path,
  checkpoint: Checkpoint,
  *,
  vocabulary: Vocabulary | None = None,
  card: Mapping[str, str] | None = None,
  shard_bytes: int = safetensors_file.SHARD_BYTES,
) -> None:
  """Writes a folder that transformers opens, array by array.

  Args:
    path: an existing empty folder.
    checkpoint: what to write; its slots and step have no place there.
    vocabulary: its tokenizer; None for a folder without one.
    card: see `model_card.text`.
    shard_bytes: most bytes of arrays in a file.

  Raises:
    UserError: transformers has no such model or tokenizer.
  """
  check(checkpoint, vocabulary)
  config, module = checkpoint.config, _module(checkpoint)
  types = {leaf.dtype for leaf in checkpoint.leaves.values()}
  dtype = "bfloat16" if types == {"bfloat16"} else "float32"
  origin = checkpoint.metadata.get("hf", {})
  files.check_types(checkpoint.path, origin, _KEPT, "restore its files")
  described = module.as_json(config, dtype, origin.get("model_type"))
  # Before the hours that the arrays may take.
  page = model_card.text(checkpoint, card or {}, module.TASK)
  files.write_text(path / model_card.FILE, page)
  table = registry.layout_of(config).parameters(config)
  tensors = {
    table[name].hf_name: leaf.transposed_if(table[name].hf_transposed)
    for name, leaf in checkpoint.leaves.items()
  }
  safetensors_file.write_folder(
    path, dict(sorted(tensors.items())), shard_bytes
  )
  if (longest := origin.get("max_position_embeddings")) is not None:
    described["max_position_embeddings"] = longest
  files.write_json(path / hf_config.FILE, described)
  generation = module.generation_json(config)
  files.write_json(path / hf_config.GENERATION_FILE, generation)
  if vocabulary is not None:
    hf_tokenizer.write(path, vocabulary, origin.get("model_max_length"))


def check(checkpoint: Checkpoint, vocabulary: Vocabulary | None) -> None:
  """Raises a UserError unless transformers has such a model and tokenizer."""
  if vocabulary is not None:
    hf_tokenizer.check(vocabulary)
  _module(checkpoint).as_json(checkpoint.config, "float32")


def _module(checkpoint: Checkpoint) -> ModuleType:
  if checkpoint.family not in _MODULES:
    raise UserError(
      f"{checkpoint.path} is of the model family {checkpoint.family!r}, which"
      f" transformers does not have; expected one of {', '.join(_MODULES)}"
    )
  return _MODULES[checkpoint.family]
