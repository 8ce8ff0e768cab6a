"""The two programs of a step, compiled for devices that need not be here.

Usage:
  for program in compiled(config, models(config, mesh), mesh):
    print(program.name, program.memory.peak)
"""

from collections.abc import Iterator
from collections.abc import Mapping
import re
import time
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gkd import flops
from gkd import partitioning
from gkd.checkpoints import source
from gkd.config.command_records import TrainConfig
from gkd.config.model_spec import FromCheckpoint
from gkd.models import layer_stack
from gkd.models import registry
from gkd.plan import cost
from gkd.sampling import generate
from gkd.sampling.strategies import Strategy
from gkd.training import self_teacher
from gkd.training import state as states
from gkd.training import step
from gkd.training import teacher_per_row
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

_TOO_LARGE = re.compile(r"required.*?\(([\d.]+)([KMGT])\).*?available", re.S)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Memory(NamedTuple):
  """Bytes on one device; the peak counts what a program does not use, too."""

  student: int
  optimizer: int = 0
  teacher: int = 0
  host: int = 0  # frozen models that wait in pinned host memory
  cache: int = 0  # of decoding, among the temporaries
  temporary: int = 0
  peak: int = 0


class Program(NamedTuple):
  """A compiled program.

  Attributes:
    name: "sample", "teacher" for a sampler of the teacher's, "update", or
      "save", which copies a state of stacked layers.
    memory: of one device.
    products: matrix products of all devices.
    collectives: of one device.
    compile_seconds: process time.
    fits: whether it compiled; else the compiler says what it would need.
  """

  name: str
  memory: Memory
  products: flops.Products
  collectives: list[cost.Collective]
  compile_seconds: float
  fits: bool


def models(
  config: TrainConfig, mesh: jax.sharding.Mesh
) -> dict[str, LanguageModel]:
  """The models of a run, partitioned over a mesh; no parameter is read.

  Raises:
    UserError: neither sizes nor a checkpoint that says them.
  """
  found = {}
  for name, role in config.roles.items():
    model = role.model
    if isinstance(model, FromCheckpoint):
      macro, path = role.checkpoint_macro(name), role.checkpoint
      layers = config.layers if name == "student" else None
      if layers is not None and not path:  # out of the teacher's
        path = config.teacher.checkpoint
      if not path:
        kind = "teacher" if name in (config.teachers or ()) else name
        raise UserError(
          f"nothing says the sizes of the {name}; give {macro}, or"
          f" --gin.{registry.macro_of(kind, registry.T5)}=T5_1_1_SMALL"
        )
      opened = source.open_checkpoint(path, verify=False)
      if layers is not None:
        opened = source.pick_layers(opened, layers)
      model = model.build(opened.config, opened.family, name, macro)
    found[name] = role.on_mesh(model, name, mesh)
  if (decay := config.teacher_decay) is not None:
    roles = {"student": Model(found["student"], {})}
    compared, read = config.objective.roles, config.data.lengths
    found["teacher"] = self_teacher.made(decay, roles, compared, read).lm
  return found


def compiled(
  config: TrainConfig,
  roles: Mapping[str, LanguageModel],
  mesh: jax.sharding.Mesh,
) -> Iterator[Program]:
  """Compiles the samplers that the rollout needs, and the update.

  All models of the run count as held; its evaluations are not compiled.

  Args:
    config: of the run.
    roles: see `models`.
    mesh: devices.
  """
  student = roles["student"]
  partitioning.check_division(config.batch_size, config.micro_batches, mesh)
  batch = _batch(config, mesh)
  decay = config.teacher_decay
  state = states.abstract_state(student, config.optimizer, mesh, decay)
  held = {
    role: _placed(model, mesh, config.roles[role].dtype)
    for role, model in roles.items()
    if role != "student" and role in config.roles
  }
  frozen = {role: Model(roles[role], params) for role, params in held.items()}
  plan = _train_step(config, roles, mesh)
  scored = teacher_per_row.scoring_params(plan.frozen, frozen)
  waiting = {role for role in held if roles[role].memory != "device"}
  known = Memory(
    student=_on_a_device(state.params),
    optimizer=_on_a_device(state.opt_state),
    teacher=_on_a_device(
      [[held[role] for role in held.keys() - waiting], state.average]
    ),
    host=_on_a_device([held[role] for role in waiting]),
  )
  rollout = config.rollout
  teacher = frozen.get("teacher")
  if decay is not None:
    own = self_teacher.params_of(decay, state.params, state.average)
    teacher = Model(roles["teacher"], own)
  if rollout is not None and rollout.schedule.maximum > 0:
    own = Model(student, state.params)
    writer, strategy = rollout.student_sampler(own, teacher)
    yield _sampler("sample", strategy, writer, batch, known)
  if rollout is not None and rollout.needs_teacher:
    yield _sampler("teacher", rollout.decoding, teacher, batch, known)
  seed = _array((), jnp.int32, partitioning.replicated(mesh))
  traced = step.update_step.trace(plan, state, scored, batch, seed)
  needed = {*config.objective.roles, *(config.teachers or ())} & held.keys()
  used = [[held[role] for role in needed - waiting], state.average]
  unused = known.teacher - _on_a_device(used)
  yield _program("update", traced, known._replace(peak=unused), 1)
  if layer_stack.is_stacked(state.params):
    copy = _on_a_device(state)
    memory = known._replace(temporary=copy, peak=sum(known[:3]) + copy)
    yield Program("save", memory, flops.Products(), [], 0.0, fits=True)


def _train_step(
  config: TrainConfig,
  roles: Mapping[str, LanguageModel],
  mesh: jax.sharding.Mesh,
) -> step.TrainStep:
  """As that of the `Run`."""
  return step.TrainStep(
    student=roles["student"],
    frozen=teacher_per_row.scoring_models(
      config.objective.roles,
      {role: Model(lm, {}) for role, lm in roles.items()},
      sorted(config.teachers or ()),
      mesh,
    ),
    objective=config.objective,
    optimizer=config.optimizer,
    reduction=config.reduction,
    micro_batches=config.micro_batches,
    mesh=mesh,
    forbidden_ids=(roles["student"].start_id,),
    teacher_decay=config.teacher_decay,
  )


def _sampler(
  name: str, strategy: Strategy, writer: Model, batch: Batch, known: Memory
) -> Program:
  """The compiled rollout of a whole batch by a model, or by a pair."""
  model, longest = writer.lm, batch.targets.shape[1]
  inputs, input_mask = model.prompts(batch)
  cache = jax.eval_shape(
    lambda params, inputs, input_mask: model.prefill(
      params, inputs, longest, input_mask=input_mask
    )[0],
    *(model.abstract_params, inputs, input_mask),
  )
  traced = generate._generate.trace(
    strategy.as_arrays(),
    writer.params,
    (inputs, input_mask, batch.rows),
    jax.random.key(0),
    model=model,
    num_best=None,
    max_length=longest,
    eos_ids=tuple(model.config.eos_ids),
    forbidden_ids=(model.start_id,),
  )
  held = _bytes(cache) // batch.inputs.sharding.mesh.size
  others = known.student + known.optimizer + known.teacher
  own = _on_a_device(writer.params) if model.memory == "device" else 0
  known = known._replace(cache=held, peak=others - own)
  return _program(name, traced, known, longest)


def _program(name: str, traced: Any, known: Memory, trips: int) -> Program:
  """Compiles a trace; `known` lacks what the compiler says.

  Its peak is what lies on a device beside the program's own arguments.
  """
  products = flops.products(traced.jaxpr, trips)
  start = time.process_time()
  try:
    done = traced.lower().compile()
  except jax.errors.JaxRuntimeError as error:
    needed = _TOO_LARGE.search(str(error))
    if needed is None:
      raise
    seconds = time.process_time() - start
    # libtpu speaks of temporaries; arguments come to them.
    temporary = int(float(needed[1]) * _UNITS[needed[2]])
    held = known.student + known.optimizer + known.teacher
    memory = known._replace(temporary=temporary, peak=held + temporary)
    return Program(name, memory, products, [], seconds, fits=False)
  seconds = time.process_time() - start
  analysis = done.memory_analysis()
  temporary = analysis.temp_size_in_bytes
  peak = known.peak + temporary + analysis.argument_size_in_bytes
  peak += analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  memory = known._replace(temporary=temporary, peak=peak)
  found = cost.collectives(done.as_text(), trips)
  return Program(name, memory, products, found, seconds, fits=True)


def _batch(config: TrainConfig, mesh: jax.sharding.Mesh) -> Batch:
  split = partitioning.batch_sharding(mesh)
  rows, lengths = config.batch_size, config.data.lengths
  fields = {}
  if config.objective.needs_advantages:
    fields["advantages"] = _array((rows,), jnp.float32, split)
  if config.teachers:
    fields["teacher"] = _array((rows,), jnp.int32, split)
  for name, mask in (
    ("inputs", "input_mask"),
    ("teacher_inputs", "teacher_input_mask"),
  ):
    if name in lengths:
      shape = rows, lengths[name]
      fields[name] = _array(shape, jnp.int32, split)
      fields[mask] = _array(shape, bool, split)
  targets, rollout = (rows, lengths["targets"]), config.rollout
  if rollout is not None and rollout.staleness:
    fields["staleness"] = _array((rows,), jnp.int32, split)
  if rollout is not None and rollout.keeps_log_probs:
    fields["log_probs"] = _array(targets, jnp.float32, split)
  return Batch(
    **fields,
    targets=_array(targets, jnp.int32, split),
    weights=_array(targets, jnp.float32, split),
    rows=_array((rows,), jnp.int32, split),
    source=_array((rows,), jnp.int32, split),
  )


def _placed(
  model: LanguageModel, mesh: jax.sharding.Mesh, dtype: str | None
) -> Params:
  """Abstract parameters where they would lie, of the type that is loaded."""
  params = model.abstract_params
  layout = partitioning.parameter_shardings(model, params, mesh)
  partitioning.check_divisible(params, layout)
  return jax.tree.map(
    lambda leaf, own: _array(leaf.shape, dtype or leaf.dtype, own),
    *(params, layout),
  )


def _array(shape: tuple[int, ...], dtype: Any, sharding: Any) -> Any:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def _bytes(tree: Any) -> int:
  return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def _on_a_device(tree: Any) -> int:
  """Bytes of one device's part of arrays with shardings."""
  return sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
    for x in jax.tree.leaves(tree)
  )
