"""Writes what `t5x.checkpoints.Checkpointer` writes: msgpack and zarr.

Every T5X opens it, and so do the converters that build on T5X. The files are
those that T5X would write, byte for byte, if it saved from one host.

  checkpoint                       msgpack: names, array specs, step
  target.<name with dots>/         one zarr array per parameter
  state.param_states.<name>.<slot>/  one per Adafactor slot in use
"""

from collections.abc import Iterator
from collections.abc import Mapping
import itertools
import math
from pathlib import Path
from typing import Any

from flax import serialization
import numpy as np
import tensorstore as ts

from gkd import trees
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import stacked_layers
from gkd.models import registry
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

VERSION = 3
_CHUNK_BYTES = 64 * 1024 * 1024  # T5X's
_CHUNKS_AT_ONCE = 4


def write(path: Path, checkpoint: Checkpoint) -> None:
  """Writes a model into an existing empty folder, one array at a time.

  T5X looks for `checkpoint_<step>` in the folder of a run, so that should be
  the folder's name in the end. Models with a bias per layer are written with
  their layers stacked (scalable_t5), the one way T5X knows them. Without slots
  there is no optimizer state, which T5X's evaluation and inference do not look
  for; to train on, T5X has `fallback_to_scratch`. The step is 0 if it has none.

  Raises:
    UserError: slots, or layers of two types, of a model whose layers have to
      be stacked; a step that T5X does not count to.
  """
  target = {
    name: _write_array(path, f"target/{name}", leaf)
    for name, leaf in _as_written(checkpoint).items()
  }
  state = _state(path, checkpoint)
  tree = {
    "version": VERSION,
    "optimizer": {"state": state, "target": trees.unflatten(target)},
  }
  # Last: a folder without it is known to be half-written.
  packed = serialization.msgpack_serialize(tree, in_place=True)
  (path / "checkpoint").write_bytes(packed)


def check(checkpoint: Checkpoint) -> None:
  """Raises a UserError for what `write` refuses; reads no array."""
  if checkpoint.family != registry.T5:
    raise UserError(
      f"{checkpoint.path} is of the model family {checkpoint.family!r}, and T5X"
      " has T5 alone; convert it --to=hf or --to=gkd"
    )
  _as_written(checkpoint)


def _as_written(checkpoint: Checkpoint) -> Mapping[str, Leaf]:
  """Parameters under the names that T5X has for them."""
  step, largest = checkpoint.step, np.iinfo(np.int32).max
  if step is not None and not 0 <= step <= largest:
    raise UserError(
      f"step {step} does not fit into a T5X checkpoint; expected 0 to"
      f" {largest}, give the right step"
    )
  if not checkpoint.config.bias_per_layer:
    return checkpoint.leaves
  if checkpoint.slots:
    raise UserError(
      f"{checkpoint.path} has optimizer slots, which T5X factors differently "
      "for a model with one bias per layer; convert it without slots"
    )
  return _stacked(checkpoint.leaves, checkpoint.config)


def _state(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
  step = np.array(checkpoint.step or 0, np.int32)
  slots = {}
  for name, leaf in checkpoint.slots.items():
    kind, _, parameter = name.partition("/")
    name = f"{parameter}/{kind}"
    if leaf.shape == t5_params.UNUSED_SLOT:  # T5X keeps it in the msgpack
      slots[name] = leaf.read()
    else:
      slots[name] = _write_array(path, f"state/param_states/{name}", leaf)
  if not slots:
    return {"step": step}
  slots = dict(sorted(slots.items()))
  return {"param_states": trees.unflatten(slots), "step": step}


def _stacked(leaves: Mapping[str, Leaf], config: T5Config) -> dict[str, Leaf]:
  """The parameters of scalable_t5, each read when all its layers are."""
  written: dict[str, Leaf] = {}
  layers: dict[str, dict[int, Leaf]] = {}
  for name, leaf in leaves.items():
    if (stacked := t5_params.stacked_name(name)) is None:
      written[name] = leaf
    else:
      layers.setdefault(stacked[0], {})[stacked[1]] = leaf
  for name, numbered in layers.items():
    if len({leaf.dtype for leaf in numbered.values()}) > 1:
      raise UserError(
        f"the layers of {name} are partly float32 and partly bfloat16, but T5X"
        " keeps them in one array; convert with one dtype"
      )
    written[name] = _stack(
      [numbered[i] for i in range(len(numbered))],
      stacked_layers.stacked_shape(config, name),
    )
  return dict(sorted(written.items()))


def _stack(layers: list[Leaf], shape: tuple[int, ...]) -> Leaf:
  """All layers of a parameter in one array, heads apart."""
  assert len(layers) == shape[1]

  def read() -> np.ndarray:
    array = np.empty(shape, layers[0].dtype)
    for i, layer in enumerate(layers):
      array[:, i] = layer.read().reshape(shape[0], *shape[2:])
    return array

  return Leaf(shape, layers[0].dtype, read)


def _write_array(path: Path, name: str, leaf: Leaf) -> dict[str, Any]:
  """Writes one array; returns what the msgpack file says of it."""
  itemsize = 2 if leaf.dtype == "bfloat16" else 4
  chunks = chunk_shape(leaf.shape, _CHUNK_BYTES // itemsize)
  spec = {
    "driver": "zarr",
    "dtype": leaf.dtype,
    "kvstore": {"driver": "file", "path": f"{name.replace('/', '.')}/"},
    "metadata": {
      "chunks": list(chunks),
      "compressor": {"id": "gzip", "level": 1},
      "shape": list(leaf.shape),
    },
  }
  place = {"driver": "file", "path": f"{path / spec['kvstore']['path']}/"}
  array = leaf.read()
  store = ts.open({**spec, "kvstore": place}, create=True, open=False).result()
  pending: list[Any] = []
  for part in _slices(leaf.shape, chunks):
    # Each is copied and compressed in memory.
    if len(pending) == _CHUNKS_AT_ONCE:
      pending.pop(0).result()
    pending.append(store[part].write(array[part]))
  for written in pending:
    written.result()
  return spec


def chunk_shape(shape: tuple[int, ...], max_elements: int) -> tuple[int, ...]:
  """T5X's chunks: the longest side is cut until there are few enough elements.

  A side is only ever cut into equal parts; of equal sides the first.
  """
  sizes = list(shape)
  while math.prod(sizes) > max_elements:
    longest = sizes.index(max(sizes))
    whole = shape[longest]
    sizes[longest] = next(
      n for n in range(sizes[longest] - 1, 0, -1) if whole % n == 0
    )
  return tuple(sizes)


def _slices(
  shape: tuple[int, ...], chunks: tuple[int, ...]
) -> Iterator[tuple[slice, ...]]:
  sides = [range(0, n, c) for n, c in zip(shape, chunks, strict=True)]
  for corner in itertools.product(*sides):
    yield tuple(slice(at, at + c) for at, c in zip(corner, chunks, strict=True))
