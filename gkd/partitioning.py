"""Meshes, and the way from logical axis names to shardings.

Parameters carry logical names (`LanguageModel.axes`); RULES, T5X's standard
ones, map them to the two axes of the mesh: batches are split over "data", the
wide dimensions of parameters over "model". Activations are left to XLA, which
derives their layout from these two.

  mesh = make_mesh(model=2)
  model = place_model(model, mesh)
  batch = place(batch, batch_sharding(mesh))
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from jax.sharding import Sharding
import numpy as np

from gkd import trees
from gkd.types import Axes
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

# T5X's standard_logical_axis_rules(1, 1).
RULES: Mapping[str, str | None] = {
  "batch": "data",
  "vocab": "model",
  "embed": None,
  "mlp": "model",
  "heads": "model",
  "kv": None,
  "joined_kv": "model",
  "relpos_buckets": None,
  "length": None,
  "layers": None,
}


def make_mesh(
  model: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Mesh with axes ("data", "model"), both automatic: XLA places activations.

  Args:
    model: devices that one copy of the model is split over; the copies share a
      batch.
    devices: all devices of all processes when None.

  Raises:
    UserError: `model` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  count = len(devices)
  if model < 1 or count % model:
    raise UserError(
      f"MODEL_PARALLELISM {model} does not divide {count}"
      f" device{'s' * (count > 1)}; choose one of "
      f"{', '.join(str(n) for n in range(1, count + 1) if count % n == 0)}"
    )
  # Automatic axes: make_mesh's default since jax 0.9 is explicit sharding in
  # types, which linen does not support.
  return jax.make_mesh(
    (count // model, model),
    ("data", "model"),
    axis_types=(AxisType.Auto,) * 2,
    devices=devices,
  )


def shardings(axes: Any, mesh: Mesh) -> Any:
  """Tree of shardings from a tree of logical axis names.

  A mesh axis is used once per array: the first logical axis that asks for it
  gets it.

  Args:
    axes: tree with an `Axes` tuple for each array; () is a scalar.
    mesh: of `make_mesh`.

  Raises:
    UserError: a name without a rule.
  """

  def one(path: Any, names: Axes) -> NamedSharding:
    spec, used = [], set()
    for name in names:
      if name is not None and name not in RULES:
        raise UserError(
          f"LanguageModel.axes names {name!r} for {_name(path)}; expected"
          f" None or one of {', '.join(RULES)}"
        )
      axis = None if name is None else RULES[name]
      spec.append(None if axis in used else axis)
      used.add(axis)
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(one, axes, is_leaf=_is_axes)


def parameter_shardings(
  model: LanguageModel, params: Params, mesh: Mesh
) -> Any:
  """Tree of shardings of a model's parameters, which may be abstract.

  Raises:
    UserError: the model's `axes` are not those of its parameters.
  """
  layout = shardings(model.axes(params), mesh)
  names = trees.flatten(params).keys()
  if different := sorted(names ^ trees.flatten(layout).keys()):
    name = different[0]
    missing = "no axes for" if name in names else "axes without a parameter:"
    raise UserError(
      f"LanguageModel.axes has {missing} {name}; give a tuple of names for each"
      " parameter and for nothing else"
    )
  return layout


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over the data axis, for every array of a batch."""
  return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device."""
  return NamedSharding(mesh, PartitionSpec())


def place(tree: Any, shardings: Any) -> Any:
  """Puts the arrays of a tree where the shardings say.

  Args:
    tree: arrays; host arrays hold the global value in every process, of which
      each process transfers only the parts of its own devices.
    shardings: one sharding for all, or a tree of them (a prefix is enough).

  Raises:
    UserError: a dimension does not divide over its mesh axis.
  """
  check_divisible(tree, shardings)

  def put(sharding, subtree):
    return jax.tree.map(lambda leaf: _put(leaf, sharding), subtree)

  return jax.tree.map(put, shardings, tree)


def place_model(model: Model, mesh: Mesh) -> Model:
  """A model with its parameters laid out over a mesh."""
  layout = parameter_shardings(model.lm, model.params, mesh)
  return dataclasses.replace(model, params=place(model.params, layout))


def place_rows(
  read: Callable[[range], Any], num_rows: int, sharding: NamedSharding
) -> Any:
  """A global batch of which each process reads the rows of its own devices.

  Args:
    read: gives the host arrays of these rows of the batch, row first.
    num_rows: rows of the whole batch.
    sharding: of all its arrays, see `batch_sharding`.
  """
  if sharding.is_fully_addressable:
    return jax.device_put(read(range(num_rows)), sharding)
  indices = sharding.addressable_devices_indices_map((num_rows,)).values()
  bounds = [index[0].indices(num_rows) for index in indices]
  own = range(min(b[0] for b in bounds), max(b[1] for b in bounds))

  def put(leaf):
    def rows(index):
      first, last, _ = index[0].indices(num_rows)
      return leaf[first - own.start : last - own.start]

    shape = (num_rows, *leaf.shape[1:])
    return jax.make_array_from_callback(shape, sharding, rows)

  return jax.tree.map(put, read(own))


def check_division(
  batch_size: int,
  micro_batches: int,
  mesh: Mesh,
  name: str = "BATCH_SIZE",
) -> None:
  """Raises a UserError unless micro-batches split evenly over the mesh.

  `name` is that of the batch size, as the user gave it.
  """
  copies = mesh.shape["data"]
  if micro_batches < 1 or batch_size % (copies * micro_batches):
    parts = f"{micro_batches} micro-batches over " * (micro_batches != 1)
    raise UserError(
      f"{name} {batch_size} does not split into {parts}{copies} copies of the"
      f" model; choose a multiple of {copies * max(micro_batches, 1)}"
    )


def check_divisible(tree: Any, shardings: Any) -> None:
  """Raises a UserError for the first array that does not divide evenly.

  As `place`, but also for `jax.ShapeDtypeStruct`s, before any allocation.
  """
  full = jax.tree.map(
    lambda sharding, subtree: jax.tree.map(lambda _: sharding, subtree),
    shardings,
    tree,
  )
  named = jax.tree_util.tree_flatten_with_path(tree)[0]
  for (path, leaf), sharding in zip(named, jax.tree.leaves(full), strict=True):
    shape, sizes = tuple(np.shape(leaf)), sharding.mesh.shape
    for size, axis in zip(shape, sharding.spec, strict=False):
      if axis is not None and size % sizes[axis]:
        raise UserError(
          f"{_name(path)} of shape {shape}: dimension {size} does not divide "
          f"over the {sizes[axis]} devices of mesh axis {axis!r}; choose a "
          "size or a mesh that divides"
        )


def model_info(model: LanguageModel, mesh: Mesh) -> str:
  """T5X's model-info.txt: a line per parameter and the total."""

  def line(path, leaf, names, sharding):
    shape = ", ".join(
      f"{name}={size}" for name, size in zip(names, leaf.shape, strict=True)
    )
    return (
      f"Variable {_name(path):<80} size {leaf.size:<12} "
      f"shape {f'({shape})':<40} partition spec {tuple(sharding.spec)}\n"
    )

  params = model.abstract_params
  axes = model.axes(params)
  lines = jax.tree_util.tree_map_with_path(
    line, params, axes, shardings(axes, mesh)
  )
  total = trees.num_parameters(params)
  text = "".join(jax.tree.leaves(lines))
  return f"{text}Total number of parameters: {total}\n"


def _is_axes(node: Any) -> bool:
  """A plain tuple of names; a tuple of subtrees is not one."""
  return type(node) is tuple and all(
    name is None or isinstance(name, str) for name in node
  )


def _put(leaf: Any, sharding: Sharding) -> jax.Array:
  is_global = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
  if sharding.is_fully_addressable or is_global:
    return jax.device_put(leaf, sharding)
  host = np.asarray(leaf)
  return jax.make_array_from_callback(
    host.shape, sharding, lambda index: host[index]
  )


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
