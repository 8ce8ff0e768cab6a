"""Models that T5X saved.

Reads what `use_orbax=False` writes (all public checkpoints), what T5X writes
today (Orbax), and the generations between; layers one by one or stacked
(scalable_t5, umT5).

  checkpoint = open_checkpoint(Path("t5_1_1_base/checkpoint_1000000"), {})

Names and shapes are T5X's: `encoder/layers_0/attention/query/kernel`.

Memory: an array at a time. Of stacked layers up to 1 GiB of the decoded chunks
is kept for the next layer, see `zarr_arrays.py`.
"""

from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

import numpy as np

from gkd.checkpoints import config_from_shapes
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import stacked_layers
from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.checkpoints.t5x.zarr_arrays import Stored
from gkd.errors import listed
from gkd.models import t5_params
from gkd.types import UserError

_TARGET = "target/"
_STEP = "state/step"
_SLOTS = "state/param_states/"
_KEPT_EXACTLY = ("float32", "bfloat16")
_EXACT_STEPS = 256  # all integers up to here are bfloat16 numbers


def open_checkpoint(
  path: str | os.PathLike, given: Mapping[str, Any]
) -> Checkpoint:
  """Opens a T5X checkpoint; arrays are read later, one at a time.

  Args:
    path: the folder of a checkpoint, or of a run: then its newest one.
    given: fields of T5Config that shapes do not tell, see
      `config_from_shapes.config_of`.

  Returns:
    The checkpoint, unscanned. `slots` are Adafactor's, in float32, for every
    parameter or none at all; what was left out is in `assumed`.

  Raises:
    UserError: no T5X checkpoint, half-written or damaged, not of a T5
      encoder–decoder, of a type that gkd does not keep, or contradicting
      `given`.
  """
  location = t5x_folders.find(path)
  arrays, layout = t5x_index.read(location)
  params = {
    name.removeprefix(_TARGET): array
    for name, array in arrays.items()
    if name.startswith(_TARGET)
  }
  _check_nothing_else(arrays, location.path)
  try:
    leaves = _leaves(params)
    config, assumed = config_from_shapes.config_of(
      {name: leaf.shape for name, leaf in leaves.items()}, given
    )
    _check_heads(params, config.num_heads)
  except UserError as error:
    raise UserError(f"{location.path}: {error}") from error
  is_stacked = any(map(stacked_layers.is_stacked, params))
  step, about_step = _step(arrays.get(_STEP))
  slots, about_slots = _slots(arrays, leaves, is_stacked)
  stacking = "layers stacked" if is_stacked else "one array a layer"
  sentences = (location.choice, *assumed, about_step, about_slots)
  return Checkpoint(
    path=location.path,
    format="t5x",
    layout=f"T5X, {layout}, {stacking}",
    config=config,
    leaves=leaves,
    step=step,
    slots=slots,
    assumed=tuple(filter(None, sentences)),
  )


def _check_nothing_else(arrays: Mapping[str, Stored], path: Path) -> None:
  """Parameters, a step and slots are what a T5 has."""
  known = (_TARGET, _STEP, _SLOTS)
  others = sorted(n for n in arrays if not n.startswith(known))
  if others:
    raise UserError(
      f"{path} holds more than the parameters, step and optimizer of a T5:"
      f" {listed(others)}; gkd has no place for these, save it without them"
    )


def _leaves(params: Mapping[str, Stored]) -> dict[str, Leaf]:
  """Parameters by unscanned name, sorted."""
  leaves: dict[str, Leaf] = {}
  twice = []
  for name, array in params.items():
    if stacked_layers.is_stacked(name):
      unscanned = _layers(name, array)
    else:
      unscanned = {name: Leaf(array.shape, array.dtype, array.read)}
    twice += sorted(unscanned.keys() & leaves.keys())
    leaves |= unscanned
  if twice:
    raise UserError(
      f"{len(twice)} parameters are there twice, in a stack of layers and on"
      f" their own: {listed(twice)}; save the model in one of the two ways"
    )
  return dict(sorted(leaves.items()))


def _layers(name: str, array: Stored) -> dict[str, Leaf]:
  """The layers of a stacked parameter, by unscanned name."""
  shape = stacked_layers.layer_shape(name, array.shape)

  def layer(i: int) -> Leaf:
    def read() -> np.ndarray:
      return np.ascontiguousarray(array.read(i)).reshape(shape)

    return Leaf(shape, array.dtype, read)

  names = stacked_layers.layer_names(name, array.shape[1])
  return {layer_name: layer(i) for i, layer_name in enumerate(names)}


def _check_heads(params: Mapping[str, Stored], num_heads: int) -> None:
  """Joined, kernels of other heads than the bias has would look the same."""
  wrong = []
  for name, array in params.items():
    if stacked_layers.is_stacked(name):
      sizes = stacked_layers.stacked_sizes(name, array.shape)
      if sizes.get("heads", num_heads) != num_heads:
        wrong.append(f"{name} {array.shape} has {sizes['heads']}")
  if wrong:
    raise UserError(
      f"{len(wrong)} stacked parameters have other heads than the relative"
      f" bias, which has {num_heads}: {listed(wrong)}; save them of one model"
    )


def _step(array: Stored | None) -> tuple[int | None, str]:
  """The step, which T5X turns into a float at times, and a warning or ""."""
  if array is None:
    return None, ""
  value = np.asarray(array.read()).astype(np.float64)
  if value.size != 1 or not value.item().is_integer() or value.item() < 0:
    raise UserError(
      f"{array.place}: the step is {value.tolist()}; expected one whole number"
    )
  step = int(value.item())
  if array.dtype == "bfloat16" and step > _EXACT_STEPS:
    return step, f"step: {step} was stored as bfloat16, which rounds it"
  return step, ""


def _slots(
  arrays: Mapping[str, Stored], leaves: Mapping[str, Leaf], is_stacked: bool
) -> tuple[dict[str, Leaf], str]:
  """Adafactor's slots in float32, or none and why."""
  saved = {n: array for n, array in arrays.items() if n.startswith(_SLOTS)}
  if not saved:
    return {}, ""
  wanted = {
    f"{_SLOTS}{name}/{kind}": f"{kind}/{name}"
    for name in leaves
    for kind in t5_params.SLOT_KINDS
  }
  others = [
    f"{name.removeprefix(_SLOTS)} {array.dtype}"
    for name, array in saved.items()
    if array.dtype not in _KEPT_EXACTLY
  ]
  reason = ""
  if is_stacked:
    reason = "slots of stacked layers are factored differently"
  elif saved.keys() != wanted.keys():
    reason = (
      f"it is not Adafactor's for every parameter ({next(iter(saved))}, …)"
    )
  elif others:
    reason = f"slots are neither float32 nor bfloat16 ({listed(others)})"
  if reason:
    return {}, f"optimizer: left out, because {reason}"
  slots = {wanted[name]: _slot(array) for name, array in saved.items()}
  return dict(sorted(slots.items())), ""


def _slot(array: Stored) -> Leaf:
  """In float32, which holds every bfloat16."""

  def read() -> np.ndarray:
    return array.read().astype(np.float32, copy=False)

  return Leaf(array.shape, "float32", read)
