"""Models that T5X saved.

Reads what `use_orbax=False` writes (all public checkpoints), what T5X writes
today (Orbax), and the generations between; layers one by one or stacked
(scalable_t5, umT5). Memory holds an array at a time, and of stacked layers up
to 1 GiB of the decoded chunks, see `zarr_arrays`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_dtypes import bfloat16
import numpy as np

from gkd import trees
from gkd.checkpoints import config_from_shapes
from gkd.checkpoints import format_detection
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.checkpoint import Leaf
from gkd.checkpoints.t5x import stacked_layers
from gkd.checkpoints.t5x import t5x_folders
from gkd.checkpoints.t5x import t5x_index
from gkd.errors import listed
from gkd.models import t5_params
from gkd.models.t5 import T5Config
from gkd.types import UserError

_TARGET = "target/"
_STEP = "state/step"
_SLOTS = "state/param_states/"
_KEPT_EXACTLY = ("float32", "bfloat16")
_MAX_LAYERS = 1000  # of a stack; T5's have up to 24
_EXACT_STEPS = 256  # all integers up to here are bfloat16 numbers


def open_checkpoint(path: Path, given: Mapping[str, Any]) -> Checkpoint:
  """Opens a checkpoint, of a run's folder the newest.

  See `source.open_checkpoint`. Layers are unscanned; slots are Adafactor's, in
  float32, for every parameter or none at all, and `assumed` says why.
  """
  location = t5x_folders.find(path)
  path = location.path
  arrays, layout = t5x_index.read(location)
  others = [n for n in arrays if not n.startswith((_TARGET, _STEP, _SLOTS))]
  if others:
    raise UserError(
      f"{path} holds more than the parameters, step and optimizer of a T5:"
      f" {listed(others)}; gkd has no place for these, save it without them"
    )
  params = {
    name.removeprefix(_TARGET): array
    for name, array in arrays.items()
    if name.startswith(_TARGET)
  }
  try:
    leaves = _leaves(params)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    config, assumed = config_from_shapes.config_of(shapes, given)
    _check_stacks(params, config)
    step, about_step = _step(arrays.get(_STEP))
  except UserError as error:
    raise UserError(f"{path}: {error}") from error
  is_stacked = any(map(stacked_layers.is_stacked, params))
  slots, about_slots = _slots(arrays, leaves, is_stacked)
  stacking = "layers stacked" if is_stacked else "one array a layer"
  about_step = about_step or _about_name(path, step)
  sentences = (location.choice, *assumed, about_step, about_slots)
  return Checkpoint(
    path=path,
    format="t5x",
    layout=f"T5X, {layout}, {stacking}",
    config=config,
    leaves=leaves,
    step=step,
    slots=slots,
    assumed=tuple(filter(None, sentences)),
  )


def check_name(checkpoint: Checkpoint) -> None:
  """Raises a UserError where the step that is saved is not that of the name."""
  if about := _about_name(checkpoint.path, checkpoint.step):
    raise UserError(
      f"{checkpoint.path}: {about}; give each checkpoint the name of its step,"
      " or give the folder of this one"
    )


def _about_name(path: Path, step: int | None) -> str:
  """What to say of a checkpoint under the name of another step, or ""."""
  match = format_detection.T5X_STEP.fullmatch(path.name)
  if step is None or match is None:
    return ""
  named = min(int(match[1]), 1 << 31)
  # T5X stores the step as bfloat16 at times.
  if step in (named, int(bfloat16(named))):
    return ""
  return f"step: {step} is saved, though the folder is {path.name}"


def _leaves(params: Mapping[str, Leaf]) -> dict[str, Leaf]:
  """Parameters by unscanned name, sorted."""
  leaves: dict[str, Leaf] = {}
  twice = []
  for name, array in params.items():
    is_stacked = stacked_layers.is_stacked(name)
    unscanned = _layers(name, array) if is_stacked else {name: array}
    twice += sorted(unscanned.keys() & leaves.keys())
    leaves |= unscanned
  if twice:
    raise UserError(
      f"{len(twice)} parameters are there twice, in a stack of layers and on"
      f" their own: {listed(twice)}; save the model in one of the two ways"
    )
  return dict(sorted(leaves.items()))


def _layers(name: str, array: Leaf) -> dict[str, Leaf]:
  """The layers of a stacked parameter, by unscanned name."""
  shape = stacked_layers.layer_shape(name, array.shape)
  stack, _, rest = name.split("/", 2)

  def layer(i: int) -> Leaf:
    def read() -> np.ndarray:
      return np.ascontiguousarray(array.read(i)).reshape(shape)

    return Leaf(shape, array.dtype, read)

  depth = array.shape[1]
  if depth > _MAX_LAYERS:
    raise UserError(
      f"{name} stacks {depth} layers; expected at most {_MAX_LAYERS}; give the"
      " checkpoint of a T5"
    )
  return {f"{stack}/layers_{i}/{rest}": layer(i) for i in range(depth)}


def _check_stacks(params: Mapping[str, Leaf], config: T5Config) -> None:
  """Joined, kernels of other heads than the bias has would look the same."""
  stacks = filter(stacked_layers.is_stacked, params)
  wanted = {n: stacked_layers.stacked_shape(config, n) for n in stacks}
  shapes = {name: params[name].shape for name in wanted}
  if wrong := trees.in_one_line(trees.shape_differences(wanted, shapes)):
    raise UserError(
      f"stacked parameters differ in their heads or layers: {wrong}; save them"
      " of one model"
    )


def _step(array: Leaf | None) -> tuple[int | None, str]:
  """The step, which T5X turns into a float at times, and a remark or ""."""
  if array is None:
    return None, ""
  value = np.asarray(array.read()).astype(np.float64)
  if value.size != 1 or not value.item().is_integer() or value.item() < 0:
    raise UserError(f"{_STEP} is {value.tolist()}; expected one whole number")
  step = int(value.item())
  if array.dtype == "bfloat16" and step > _EXACT_STEPS:
    return step, f"step: {step} was stored as bfloat16, which rounds it"
  return step, ""


def _slots(
  arrays: Mapping[str, Leaf], leaves: Mapping[str, Leaf], is_stacked: bool
) -> tuple[dict[str, Leaf], str]:
  """Adafactor's slots in float32, or none and why."""
  saved = {n: array for n, array in arrays.items() if n.startswith(_SLOTS)}
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
  if not saved:
    return {}, ""
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
  slots = {
    wanted[name]: array.map(lambda x: x.astype("float32"), dtype="float32")
    for name, array in saved.items()
  }
  return dict(sorted(slots.items())), ""
