"""The door for models: any checkpoint opened, and loaded onto a mesh.

A source is the folder of a run of ours (its newest sound checkpoint), one
checkpoint of it, a saved model, a T5X checkpoint, a Hugging Face folder or a
GGUF file.
Nothing is copied on disk, and no array is whole on a device unless its sharding
says so: host memory holds the largest array beside what the devices keep, or
the arrays of all layers where the model loops over them.

  checkpoint = open_checkpoint("flan-t5-small")
  model = registry.build(checkpoint.config)
  params = load_params(checkpoint, model, mesh, dtype="bfloat16")
"""

from collections.abc import Sequence
import dataclasses
import hashlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gkd import partitioning
from gkd import trees
from gkd.checkpoints import expected_leaves
from gkd.checkpoints import format_detection
from gkd.checkpoints.checkpoint import CONTENT_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.checkpoint import hash_array
from gkd.checkpoints.gguf import gguf_checkpoint
from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.native import native_checkpoint
from gkd.checkpoints.t5x import t5x_reader
from gkd.models import kept_layers
from gkd.models import layer_stack
from gkd.models import registry
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

_FORMATS: dict[Format, ModuleType] = {
  "gkd": native_checkpoint,
  "t5x": t5x_reader,
  "hf": hf_folder,
  "gguf": gguf_checkpoint,
}
_MAX_LISTED = 4  # steps in an error


def open_checkpoint(
  path: str | os.PathLike,
  *,
  step: int | None = None,
  verify: bool = True,
  **given: Any,
) -> Checkpoint:
  """Detects the format of a model's folder and opens it; reads no array.

  Args:
    path: see the module; "~" is expanded.
    step: chooses among the checkpoints of a run, as its folders are numbered;
      None takes the newest sound one. Of any other folder it is ignored.
    verify: compare our own files with their hashes; without it the newest
      finished checkpoint of a run is taken as it is.
    **given: fields of its config: those of the program, dropout_rate and dtype,
      replace what was saved, others fill in what the format does not say, or
      have to agree with it. None counts as not given.

  Raises:
    UserError: no folder or step, none of the formats, damaged, a given field
      that it contradicts, or leaves that its config does not have.
  """
  folder = at_step(path, step)
  given = {name: value for name, value in given.items() if value is not None}
  format = format_detection.detect(folder)
  options = {"verify": verify} if format == "gkd" else {}
  checkpoint = _FORMATS[format].open_checkpoint(folder, given, **options)
  is_chosen = checkpoint.path.parent == format_detection.existing_path(path)
  if format == "t5x" and is_chosen:  # among several, by its name
    t5x_reader.check_name(checkpoint)
  if registry.layout_of(checkpoint.config) is not None:
    expected_leaves.check(
      checkpoint.path,
      checkpoint.config,
      checkpoint.leaves,
      slots=checkpoint.slots,
    )
  return checkpoint


def load_params(
  checkpoint: Checkpoint,
  model: LanguageModel,
  mesh: jax.sharding.Mesh,
  *,
  dtype: str | None = None,
) -> Params:
  """Parameters of a model, array by array from disk onto a mesh.

  Args:
    checkpoint: see `open_checkpoint`.
    model: whose parameters they have to be, by name, shape and kind of number.
    mesh: of `partitioning.make_mesh`; arrays are laid out by its rules.
    dtype: "float32" or "bfloat16" of the loaded parameters; None for that of
      `model.init`.

  Raises:
    UserError: another model, an array that cannot be read, or one that does not
      divide over the mesh.
  """
  like = model.abstract_params
  layout = partitioning.parameter_shardings(model, like, mesh)
  partitioning.check_divisible(like, layout)
  shardings, wanted = trees.flatten(layout), trees.flatten(like)
  stored = trees.flatten(layer_stack.unstacked(like))
  differences = trees.shape_differences(
    {name: _described(leaf) for name, leaf in stored.items()},
    {name: _described(leaf) for name, leaf in checkpoint.leaves.items()},
  )
  if any(differences.values()):
    raise UserError(
      f"checkpoint {checkpoint.path} does not fit the model:"
      f" {trees.in_one_line(differences)}; use the model that it was saved with"
    )
  is_hashed = stored.keys() == wanted.keys()  # stacks come in another order
  is_hashed &= CONTENT_KEY not in checkpoint.metadata
  is_hashed &= "content_sha256" not in vars(checkpoint)
  content = hashlib.sha256()
  params = {}
  for name, leaf in wanted.items():
    names = layer_stack.layer_names(name, leaf.shape)
    arrays = [checkpoint.leaves[own].read() for own in names]
    if is_hashed:
      hash_array(content, name, *arrays)
    kept = leaf.dtype
    if dtype is not None and jnp.issubdtype(kept, jnp.floating):
      kept = jnp.dtype(dtype)
    params[name] = _place(arrays, leaf.shape, shardings[name], kept)
    del arrays
  if is_hashed:  # what the cached property would read all arrays for
    vars(checkpoint)["content_sha256"] = content.hexdigest()
  return trees.unflatten(params)


def pick_layers(
  checkpoint: Checkpoint, choice: kept_layers.LayerChoice
) -> Checkpoint:
  """The smaller model of some layers; arrays of others are never read.

  Raises:
    UserError: a family of one's own, or see `kept_layers.pick`.
  """
  if registry.layout_of(checkpoint.config) is None:
    raise UserError(
      f"{choice.macro} is for T5, T5Gemma and decoder-only models;"
      f" {checkpoint.path} is"
      f" of the family {checkpoint.family!r}; leave it out"
    )
  config, leaves = kept_layers.pick(
    checkpoint.config, checkpoint.leaves, choice
  )
  metadata = dict(checkpoint.metadata)
  metadata.pop(CONTENT_KEY, None)  # that of all layers
  return dataclasses.replace(
    checkpoint, config=config, leaves=leaves, slots={}, metadata=metadata
  )


def at_step(path: str | os.PathLike, step: int | None) -> Path:
  """The checkpoint of a step, as the folders of a run (ours, T5X's) number it.

  Any other folder is returned as it is, and so is each where step is None.
  """
  folder = format_detection.existing_path(path)
  if step is None:
    return folder
  steps = format_detection.steps_within(folder)
  if steps and step not in steps:
    newest = ", ".join(map(str, sorted(steps)[-_MAX_LISTED:]))
    raise UserError(
      f"{folder} has no checkpoint of step {step}; it has {newest}; give one of"
      " these"
    )
  return steps.get(step, folder)


def _described(leaf: Any) -> str:
  """Shape, and type unless it is a floating one, which may be cast."""
  kind = jnp.dtype(leaf.dtype)
  is_floating = jnp.issubdtype(kind, jnp.floating)
  return f"{tuple(leaf.shape)} {'float' if is_floating else kind.name}"


def _place(
  arrays: Sequence[np.ndarray],
  shape: tuple[int, ...],
  sharding: jax.sharding.Sharding,
  dtype: Any,
) -> jax.Array:
  """An array, or the arrays of all layers as one of a shape.

  Each device gets a copy of its part alone, cast on the host.
  """

  def part(index) -> np.ndarray:
    if arrays[0].shape == shape:
      return np.array(arrays[0][index], dtype, order="C")
    layers, *inner = index
    return np.stack(
      [np.array(array[tuple(inner)], dtype) for array in arrays[layers]]
    )

  return jax.make_array_from_callback(shape, sharding, part)
