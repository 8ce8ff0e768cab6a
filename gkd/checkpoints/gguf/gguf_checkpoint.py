"""GGUF files of llama.cpp, read only: each tensor is dequantised when read.

Dequantised by the `gguf` package (pip install gkd[gguf]), in float32. What
llama.cpp changes on the way from transformers is undone: the order of rows of
queries and keys of the architecture `llama`. Gemma's 1 + w stays as it is, see
`decoder_only.Gemma.norm_offset`.

Source: convert_hf_to_gguf.py of https://github.com/ggml-org/llama.cpp
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gkd import gguf_file
from gkd.checkpoints import expected_leaves
from gkd.checkpoints.checkpoint import LICENSE_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.gguf import gguf_config
from gkd.models import registry
from gkd.models.decoder_only import DecoderConfig
from gkd.types import UserError

_EXACT = ("F32", "F16", "BF16")  # each of their numbers is one of float32


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
  """Opens a file; see `source.open_checkpoint`.

  Raises:
    UserError: without the package `gguf`; damaged, one part of several, or a
      model that gkd does not compute.
  """
  library = _library(path)
  metadata, places = gguf_file.read(path)
  if metadata.get("split.count") not in (None, 0, 1):
    raise UserError(
      f"{path} is one of {metadata['split.count']} parts; join them: llama-gguf"
      f"-split --merge {path} whole.gguf, then give that file"
    )
  tensors = {
    name: _leaf(path, place, library) for name, place in places.items()
  }
  config, assumed = gguf_config.read(path, metadata, tensors, given)
  tensors.pop(gguf_config.ROPE_TABLE, None)
  expected_leaves.check(path, config, tensors, "gguf")
  kind = metadata["general.architecture"]
  kinds = [library.GGMLQuantizationType(p.kind).name for p in places.values()]
  counts = collections.Counter(kinds).most_common()
  license_name = metadata.get("general.license")
  kept = {LICENSE_KEY: license_name} if isinstance(license_name, str) else {}
  if type(longest := metadata.get(f"{kind}.context_length")) is int:
    kept["hf"] = {"max_position_embeddings": longest}
  quantised = ", ".join(name for name, _ in counts)
  return Checkpoint(
    path=path,
    format="gguf",
    layout=f"GGUF of the architecture {kind} ({quantised})",
    family=registry.DECODER_ONLY,
    config=config,
    leaves=_parameters(config, tensors, kind),
    assumed=(
      *assumed,
      *_about_weights(counts),
      f"license: {kept.get(LICENSE_KEY, 'the file does not say one')}",
    ),
    metadata=kept,
  )


def _library(path: Path) -> ModuleType:
  try:
    import gguf
  except ImportError as error:
    raise UserError(
      f"{path} is read with the package gguf, which is not there ({error});"
      " install it: pip install 'gkd[gguf]'"
    ) from error
  return gguf


def _leaf(path: Path, place: gguf_file.Tensor, library: ModuleType) -> Leaf:
  """A tensor of the file in float32; the file is known to be long enough."""
  try:
    kind = library.GGMLQuantizationType(place.kind)
    block, block_bytes = library.GGML_QUANT_SIZES[kind]
    library.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
  except (KeyError, ValueError, NotImplementedError) as error:
    raise UserError(
      f"{path} has weights of a kind that the package gguf does not read"
      f" ({error}); give the model in another quantisation"
    ) from error
  shape = place.shape or (1,)
  num_bytes = math.prod(shape) // block * block_bytes
  end = place.offset + num_bytes
  if shape[-1] % block or end > path.stat().st_size:
    raise gguf_file.damaged(path, f"a tensor of shape {shape} ends at {end}")

  def read() -> np.ndarray:
    data = np.fromfile(path, np.uint8, num_bytes, offset=place.offset)
    rows = data.reshape(*shape[:-1], -1)
    return library.dequantize(rows, kind).astype(np.float32, copy=False)

  return Leaf(shape, "float32", read)


def _parameters(
  config: DecoderConfig, tensors: Mapping[str, Leaf], kind: str
) -> dict[str, Leaf]:
  """The parameters by our names."""
  heads = {"query": config.num_heads, "key": config.num_kv_heads}
  leaves = {}
  for name, row in registry.layout_of(config).parameters(config).items():
    leaf, part = tensors[row.gguf_name], name.split("/")[-2]
    if kind == "llama" and part in heads:
      leaf = _with_rows_of_transformers(leaf, heads[part])
    leaves[name] = leaf.transposed_if(row.hf_transposed)
  return leaves


def _with_rows_of_transformers(leaf: Leaf, num_heads: int) -> Leaf:
  """Undoes llama.cpp's order of the rows of a head.

  It has the two numbers that are rotated together side by side, transformers
  half a head apart.
  """

  def undo(array: np.ndarray) -> np.ndarray:
    pairs = array.reshape(num_heads, -1, 2, array.shape[-1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)

  return leaf.map(undo)


def _about_weights(counts: Sequence[tuple[str, int]]) -> list[str]:
  if {kind for kind, _ in counts} <= {*_EXACT}:
    return []
  listed = ", ".join(f"{count} {kind}" for kind, count in counts)
  return [f"weights: were quantised ({listed}) and are dequantised to float32"]
