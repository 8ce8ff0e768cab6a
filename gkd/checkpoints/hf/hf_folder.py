"""Hugging Face folders: T5, mT5 and umT5, read and written array by array.

Read are config.json and safetensors files; nothing that could hold code.
Written is what today's transformers writes, with tokenizer and model card.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gkd import files
from gkd.checkpoints import expected_leaves
from gkd.checkpoints import format_detection
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.hf import hf_config
from gkd.checkpoints.hf import hf_head
from gkd.checkpoints.hf import hf_tokenizer
from gkd.checkpoints.hf import model_card
from gkd.checkpoints.hf import safetensors_file
from gkd.models import t5_params
from gkd.models.t5_params import HF_EMBEDDING
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary

# What metadata["hf"] keeps on the way through our own format.
_KEPT = {"model_type": str, "model_max_length": int}


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
  """Opens a folder that transformers saved; see `source.open_checkpoint`.

  Only tensors that may be the embedding once more are read, to compare them.
  """
  saved = hf_config.load(path)
  names = {file.name for file in path.iterdir()}
  if not any(".safetensors" in name for name in names):
    format_detection.refuse_other_weights(path, names)
  tensors = safetensors_file.open_folder(path)
  tensors, about_prefix = _without_prefix(tensors)
  about_copies = hf_head.take_copies(path, tensors)
  via_embedding, about_head = hf_head.take_head(path, tensors, saved)
  config, assumed = hf_config.read(path, saved, via_embedding, given)
  expected_leaves.check(path, config, tensors, "hf")
  is_sharded = (path / safetensors_file.INDEX_FILE).is_file()
  metadata = {"model_type": saved["model_type"]}
  if (longest := tokenizer_folder.max_length(path)) is not None:
    metadata["model_max_length"] = longest
  return Checkpoint(
    path=path,
    format="hf",
    layout=f"Hugging Face {saved['model_type']}, safetensors in"
    f" {'several files' if is_sharded else 'one file'}",
    config=config,
    leaves={
      name: _transposed_if(row.hf_transposed, tensors[row.hf_name])
      for name, row in t5_params.table(config).items()
    },
    assumed=(*assumed, *about_prefix, *about_copies, *about_head),
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
  config = checkpoint.config
  types = {leaf.dtype for leaf in checkpoint.leaves.values()}
  dtype = "bfloat16" if types == {"bfloat16"} else "float32"
  origin = checkpoint.metadata.get("hf", {})
  files.check_types(checkpoint.path, origin, _KEPT, "restore its files")
  described = hf_config.as_json(config, dtype, origin.get("model_type"))
  # Before the hours that the arrays may take.
  page = model_card.text(checkpoint, card or {})
  files.write_text(path / model_card.FILE, page)
  table = t5_params.table(config)
  tensors = {
    table[name].hf_name: _transposed_if(table[name].hf_transposed, leaf)
    for name, leaf in checkpoint.leaves.items()
  }
  safetensors_file.write_folder(
    path, dict(sorted(tensors.items())), shard_bytes
  )
  files.write_json(path / hf_config.FILE, described)
  generation = hf_config.generation_json(config)
  files.write_json(path / hf_config.GENERATION_FILE, generation)
  if vocabulary is not None:
    hf_tokenizer.write(path, vocabulary, origin.get("model_max_length"))


def check(checkpoint: Checkpoint, vocabulary: Vocabulary | None) -> None:
  """Raises a UserError unless transformers has such a model and tokenizer."""
  if vocabulary is not None:
    hf_tokenizer.check(vocabulary)
  hf_config.as_json(checkpoint.config, "float32")


def _without_prefix(
  tensors: dict[str, Leaf],
) -> tuple[dict[str, Leaf], list[str]]:
  """The tensors by T5's names, where a wrapper has put its own before all."""
  ends = (
    n.removesuffix(HF_EMBEDDING) for n in tensors if n.endswith(HF_EMBEDDING)
  )
  prefix = next(ends, "")
  if not prefix or not all(name.startswith(prefix) for name in tensors):
    return tensors, []
  named = {name.removeprefix(prefix): leaf for name, leaf in tensors.items()}
  return named, [f"names: {prefix!r} is left out before each"]


def _transposed_if(transposed: bool, leaf: Leaf) -> Leaf:
  """The leaf, or its transpose."""
  if not transposed:
    return leaf
  return leaf.map(lambda x: np.ascontiguousarray(x.T), leaf.shape[::-1])
