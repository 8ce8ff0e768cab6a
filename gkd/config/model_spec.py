"""Models by role as a configuration names them: a spec and a checkpoint.

gin builds a `Role` for the student and for each frozen model, see
`configs/models/t5.gin`. A spec is a `LanguageModel`, of any family, or leaves
the sizes to the checkpoint; `build` makes the model of it.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from typing import Any
from typing import Literal

import jax

from gkd import logical_axes
from gkd import partitioning
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.models import registry
from gkd.models import sizes
from gkd.models import vocabulary_check
from gkd.models.config_fields import SPECIAL_IDS
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.text.vocabulary import Vocabulary
from gkd.types import LanguageModel
from gkd.types import Memory
from gkd.types import UserError

log = logging.getLogger("gkd")

# Fields that a run sets, with their values where it does not.
_OF_THIS_RUN = {"dropout_rate": 0.0, "dtype": "float32"}


@dataclasses.dataclass(frozen=True)
class FromCheckpoint:
  """A model whose sizes its checkpoint says; dropout and type are the run's."""

  dropout_rate: float
  dtype: str

  def build(
    self, config: Any, family: str, role: str, path: str
  ) -> LanguageModel:
    """The model of the config that a checkpoint or a run saved.

    Args:
      config: of the family, or its fields where nothing registers the family.
      family: its name.
      role: "student", "teacher" or another.
      path: macro and folder of the checkpoint, for the messages.
    """
    origin = f"{path} holds a model of the family {family!r}"
    remedy = f"bind {role.upper()} = @module.function()"
    if isinstance(config, Mapping):
      raise UserError(
        f"{origin}, which nothing registers; import the module that defines it"
        f" in a --gin_file and {remedy}"
      )
    fields = {field.name for field in dataclasses.fields(config)}
    for name, default in _OF_THIS_RUN.items():
      value = getattr(self, name)
      if name in fields:
        config = dataclasses.replace(config, **{name: value})
      elif value != default:
        raise UserError(
          f"{name.upper()} is {value!r} but {origin}, whose config has no"
          f" {name!r}; leave it out, or {remedy}"
        )
    return registry.build(config)


ModelSpec = LanguageModel | FromCheckpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
  """A model and its parameters, as a configuration names them.

  Attributes:
    model: the model, or where its sizes come from.
    checkpoint: folder of a run, of one of its checkpoints, of a saved model, of
      T5X or of Hugging Face; "" for a student that starts from random weights.
    dtype: "float32" or "bfloat16" of the loaded parameters; None for that of
      the model.
    partitioning: how they are split over the mesh: a name of
      `logical_axes.PRESETS`, or pairs of a logical and a mesh axis.
    execution: how the layers are run.
    gather_to_sample: whether devices that share the parameters gather them
      once for all tokens of a batch, and not for each.
    privileged: whether it reads the teacher's prompts where data has them.
    memory: of a frozen model, where its parameters wait for a program that uses
      them.
    macro: what names the checkpoint in messages; "" for the role's own macro.
  """

  model: ModelSpec
  checkpoint: str
  dtype: Literal["float32", "bfloat16"] | None = None
  partitioning: str | Sequence[Any] = logical_axes.DEFAULT
  execution: Execution = PLAIN
  gather_to_sample: bool = True
  privileged: bool = False
  memory: Memory = "device"
  macro: str = ""

  def checkpoint_macro(self, name: str) -> str:
    """What names the checkpoint of the role of that name."""
    return self.macro or checkpoint_macro(name)

  def on_mesh(
    self, model: LanguageModel, name: str, mesh: jax.sharding.Mesh
  ) -> LanguageModel:
    """The model, run and split as the role says; its name is for messages."""
    macro = "PARTITIONING" if name == "student" else "TEACHER_PARTITIONING"
    rules = logical_axes.rules_of(self.partitioning, macro)
    if self.execution != PLAIN:
      model = registry.build(model.config, f"the {name}", self.execution)
    model = partitioning.partitioned(model, mesh, rules)
    self._check_memory(name, mesh.devices.flat[0])
    changed = dataclasses.replace(
      model,
      gathers_to_sample=self.gather_to_sample,
      privileged=self.privileged,
      memory=self.memory,
    )
    return model if changed == model else changed

  def _check_memory(self, name: str, device: jax.Device) -> None:
    if self.memory == "device":
      return
    kinds = [memory.kind for memory in device.addressable_memories()]
    if name == "student":
      why = "is for frozen models, and the student learns"
    elif self.memory not in kinds:
      why = f"but {device.device_kind} devices have only {', '.join(kinds)}"
    else:
      return
    raise UserError(
      f"TEACHER_MEMORY is {self.memory!r} {why}; leave the memory of the {name}"
      " out"
    )


def t5(
  size: str | Mapping[str, Any] | None = None,
  dropout_rate: float = 0.0,
  dtype: str = "float32",
) -> ModelSpec:
  """A T5 of a size, or a model of another family of ours.

  Args:
    size: a name of `models.sizes.NAMES`; fields of T5Config or, with a "family"
      such as "decoder_only" among them, of its config; None for the family and
      the sizes of the checkpoint.
    dropout_rate: see the config, as for dtype.
  """
  if size is None:
    return FromCheckpoint(dropout_rate, dtype)
  fields = sizes.named(size) if isinstance(size, str) else dict(size)
  family = str(fields.pop("family", registry.T5))
  fields |= {"dropout_rate": dropout_rate, "dtype": dtype}
  config = registry.config_of(family, fields)
  if isinstance(config, dict):
    raise UserError(
      f"there is no model family {family!r}; expected one of"
      f" {', '.join(registry.with_sizes())}"
    )
  return registry.build(config)


def checkpoint_macro(role: str) -> str:
  """The macro of a role's parameters."""
  if role == "student":
    return "INITIAL_CHECKPOINT_PATH"
  return f"{role.upper()}_CHECKPOINT_PATH"


def build(
  role: str,
  spec: ModelSpec,
  checkpoint: Checkpoint | None,
  vocabulary: Vocabulary,
) -> LanguageModel:
  """The model of a role, with sizes of its checkpoint where none are given.

  A model has the special ids of its checkpoint, or else of the data's
  vocabulary: sizes by name and T5X's checkpoints have none, and an export
  writes them.
  Where a checkpoint knows only the rows of its table, the vocabulary's ids are
  the real ones.

  Raises:
    UserError: nothing says the sizes, or given sizes contradict the checkpoint
      in what shapes do not tell.
  """
  name, path = registry.macro_of(role, registry.T5), checkpoint_macro(role)
  if isinstance(spec, LanguageModel):
    model = spec
    if checkpoint is not None:
      _check_agrees(model, checkpoint, role)
  elif checkpoint is None:
    raise UserError(
      f"{name} is None and there is no checkpoint that says the sizes; give"
      f" {path}, or sizes such as --gin.{name}=T5_1_1_SMALL"
    )
  else:
    config = _config(name, checkpoint, vocabulary.size)
    origin = f"{path} {checkpoint.path}"
    model = spec.build(config, checkpoint.family, role, origin)
  config = model.config
  if registry.layout_of(config) is None:
    return model
  ids = {"pad_id": vocabulary.pad_id, "eos_ids": vocabulary.eos_ids}
  if checkpoint is not None and checkpoint.format != "t5x":
    ids = {name: getattr(checkpoint.config, name) for name in SPECIAL_IDS}
  if ids == {name: getattr(config, name) for name in ids}:
    return model
  return registry.build(dataclasses.replace(config, **ids))


def log_widths(models: Mapping[str, LanguageModel], size: int) -> None:
  """Logs one line where a table has more rows than the vocabulary has ids."""
  rows = {
    role: vocabulary_check.table_rows(model) for role, model in models.items()
  }
  if set(rows.values()) - {size}:
    listed = ", ".join(f"{role} {count:,} rows" for role, count in rows.items())
    log.info(
      "vocabulary: %s for the same %s ids; rows beyond them are masked",
      *(listed, format(size, ",")),
    )


def _config(macro: str, checkpoint: Checkpoint, num_ids: int) -> Any:
  """The config of a checkpoint, with `num_ids` if it does not know its own."""
  config = checkpoint.config
  for sentence in checkpoint.assumed:
    if not sentence.startswith("vocabulary_size:"):
      log.info("%s: assumed from the checkpoint: %s", macro, sentence)
  if checkpoint.ids_known or num_ids > config.vocab_size:
    return config
  log.info(
    "%s: %s of the %s rows are real ids, as the data's vocabulary has them",
    *(macro, format(num_ids, ","), format(config.vocab_size, ",")),
  )
  return dataclasses.replace(config, vocabulary_size=num_ids)


def _check_agrees(
  model: LanguageModel, checkpoint: Checkpoint, role: str
) -> None:
  """Refuses another family, or other activations, … than were trained.

  They compute something else, and load all the same; shapes are compared when
  the parameters are loaded.
  """
  family = registry.family_of(model.config)
  name, path = registry.macro_of(role, family), checkpoint_macro(role)
  if family != checkpoint.family:
    raise UserError(
      f"{name} is of the model family {family!r}, but {path} of"
      f" {checkpoint.family!r}; give the model that it was saved with"
    )
  if (layout := registry.layout_of(model.config)) is None:
    return
  assumed = {text.partition(":")[0] for text in checkpoint.assumed}
  if checkpoint.format == "t5x":
    assumed |= set(SPECIAL_IDS)
  for field in (*layout.not_in_shapes, *SPECIAL_IDS):
    value = getattr(model.config, field)
    saved = getattr(checkpoint.config, field)
    # Sizes that leave the ids out get those of the checkpoint.
    left_out = field in SPECIAL_IDS and value == getattr(
      type(model.config), field
    )
    if field not in assumed and value != saved and not left_out:
      raise UserError(
        f"{name} has {field}={value!r}, but {path} was trained with {saved!r};"
        f" leave {name} out to take the checkpoint's"
      )
