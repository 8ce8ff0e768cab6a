"""Meshes, and models, states and batches laid out over them.

  mesh = make_mesh(model=2)
  lm = partitioned(lm, mesh)
  batch = place(batch, batch_sharding(mesh))

Parameters are split by the rules of their model, see `logical_axes`, batches
over the axes "data" and "fsdp", activations as their batch and their wide
dimensions are.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
from jax.sharding import Sharding
import numpy as np

from gkd import logical_axes
from gkd import trees
from gkd.logical_axes import BATCH
from gkd.logical_axes import MESH_AXES
from gkd.logical_axes import as_tuple
from gkd.types import Axes
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import Rules
from gkd.types import UserError


def make_mesh(
  model: int = 1,
  devices: Sequence[jax.Device] | None = None,
  *,
  fsdp: int = 1,
) -> Mesh:
  """Mesh with the axes of `MESH_AXES`, all automatic: XLA splits the work.

  Args:
    model: devices that work on the same rows, each with a part of the wide
      dimensions of a model.
    devices: all devices of all processes when None.
    fsdp: devices with rows of their own that share the parameters of models
      whose rules say so. What is left are copies.

  Raises:
    UserError: these do not divide the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  left = len(devices)
  sizes = {"MODEL_PARALLELISM": model, "FSDP_PARALLELISM": fsdp}
  for macro, size in sizes.items():
    if size < 1 or left % size:
      raise UserError(
        f"{macro} {size} does not divide {left} device{'s' * (left > 1)};"
        " choose one of "
        f"{', '.join(str(n) for n in range(1, left + 1) if left % n == 0)}"
      )
    left //= size
  # Automatic axes: make_mesh's default since jax 0.9 is explicit sharding in
  # types, which linen does not support.
  return jax.make_mesh(
    (left, fsdp, model),
    MESH_AXES,
    axis_types=(AxisType.Auto,) * len(MESH_AXES),
    devices=devices,
  )


def partitioned(
  model: LanguageModel, mesh: Mesh, rules: Rules | None = None
) -> LanguageModel:
  """The model, with activations that `constrain` lays out over a mesh.

  Args:
    model: may be partitioned over another mesh.
    mesh: of `make_mesh`.
    rules: of its parameters; None keeps those that it has.
  """

  def within(function: Callable[..., Any]) -> Callable[..., Any]:
    if isinstance(function, _Within):
      function = function.function
    return function if mesh.size == 1 else _Within(function, mesh)

  changed = dataclasses.replace(
    model,
    hidden=within(model.hidden),
    head=within(model.head),
    prefill=within(model.prefill),
    decode=within(model.decode),
    gathered=within(model.gathered),
    rules=rules or model.rules,
  )
  return model if changed == model else changed


@dataclasses.dataclass(frozen=True)
class _Within:
  """A function of a model that is traced with a mesh in reach."""

  function: Callable[..., Any]
  mesh: Mesh

  def __call__(self, *args: Any, **kwargs: Any) -> Any:
    with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
      return self.function(*args, **kwargs)


def shardings(axes: Any, mesh: Mesh, rules: Rules | None = None) -> Any:
  """Tree of shardings from a tree of logical axis names.

  Args:
    axes: tree with an `Axes` tuple for each array; () is a scalar.
    mesh: of `make_mesh`.
    rules: see `logical_axes`; None for the default.

  Raises:
    UserError: a name without a rule.
  """
  rules = rules or logical_axes.PRESETS[logical_axes.DEFAULT]

  def one(path: Any, names: Axes) -> NamedSharding:
    try:
      return NamedSharding(mesh, logical_axes.spec(names, rules))
    except KeyError as error:
      raise UserError(
        f"LanguageModel.axes names {error} for {_name(path)}; expected None or"
        f" one of {', '.join(dict(rules))}"
      ) from None

  return jax.tree_util.tree_map_with_path(one, axes, is_leaf=_is_axes)


def parameter_shardings(
  model: LanguageModel, params: Params, mesh: Mesh
) -> Any:
  """Tree of shardings of a model's parameters, which may be abstract.

  Raises:
    UserError: the model's `axes` are not those of its parameters.
  """
  layout = shardings(model.axes(params), mesh, model.rules)
  names = trees.flatten(params).keys()
  if different := sorted(names ^ trees.flatten(layout).keys()):
    name = different[0]
    missing = "no axes for" if name in names else "axes without a parameter:"
    raise UserError(
      f"LanguageModel.axes has {missing} {name}; give a tuple of names for each"
      " parameter and for nothing else"
    )
  if model.memory == "device":
    return layout
  return jax.tree.map(lambda own: own.with_memory_kind(model.memory), layout)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Rows over the axes of copies, for every array of a batch."""
  return NamedSharding(mesh, PartitionSpec(BATCH))


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
  copies = mesh.size // mesh.shape["model"]
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
    for size, axes in zip(shape, sharding.spec, strict=False):
      parts = math.prod(sizes[axis] for axis in as_tuple(axes))
      if size % parts:
        raise UserError(
          f"{_name(path)} of shape {shape}: dimension {size} does not divide "
          f"over {parts} devices of mesh axis {'/'.join(as_tuple(axes))!r};"
          " choose a mesh that divides it, or a PARTITIONING that leaves it"
          " whole"
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
    line, params, axes, shardings(axes, mesh, model.rules)
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
