"""The models of a run: of given sizes, or whatever their checkpoints say.

gin builds the one or the other (`configs/models/t5.gin`); a command that has
located its checkpoints replaces the second by a model:

  model = built(settings.model, checkpoint, "STUDENT_MODEL", size)
"""

from collections.abc import Mapping
import dataclasses
import logging
from typing import Any

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.models import registry
from gkd.models import t5 as family
from gkd.models.t5 import T5Config
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")

_NOT_IN_SHAPES = (
  "mlp_activations",
  "relative_max_distance",
  "layer_norm_epsilon",
)
_PATHS = {
  "STUDENT_MODEL": "INITIAL_CHECKPOINT_PATH",
  "TEACHER_MODEL": "TEACHER_CHECKPOINT_PATH",
}


@dataclasses.dataclass(frozen=True)
class OfCheckpoint:
  """A model whose sizes its checkpoint says.

  Attributes:
    dropout_rate: of this run.
    dtype: of this run's computation.
  """

  dropout_rate: float
  dtype: str


Model = LanguageModel | OfCheckpoint


def t5(
  size: Mapping[str, Any] | str | None = None,
  dropout_rate: float = 0.0,
  dtype: str = "float32",
) -> Model:
  """A T5 of given sizes, or with None the one of the checkpoint.

  Args:
    size: a name of `models.sizes.NAMES`, or fields of T5Config.
    dropout_rate: see T5Config.
    dtype: see T5Config.
  """
  if size is None:
    return OfCheckpoint(dropout_rate, dtype)
  config = T5Config.from_size(size, dropout_rate=dropout_rate, dtype=dtype)
  return family.encoder_decoder(config)


def built(
  model: Model,
  checkpoint: Checkpoint | None,
  name: str,
  vocabulary_size: int,
) -> LanguageModel:
  """The model, with sizes of its checkpoint where none were given.

  Args:
    model: as configured.
    checkpoint: that says the sizes; None without one.
    name: of the macro, for messages.
    vocabulary_size: ids of the data's vocabulary. Where the checkpoint knows
      only the rows of its table, these are the real ones.

  Raises:
    UserError: nothing says the sizes, or given sizes contradict the checkpoint
      in what shapes do not tell.
  """
  if not isinstance(model, OfCheckpoint):
    if checkpoint is not None:
      _check_agrees(model, checkpoint, name)
    return model
  if checkpoint is None:
    raise UserError(
      f"{name} is None and there is no checkpoint that says the sizes; give"
      f" {_PATHS[name]}, or sizes such as --gin.{name}=%T5_1_1_SMALL"
    )
  config = checkpoint.config
  if checkpoint.family != registry.T5:
    return registry.build(config)
  for sentence in checkpoint.assumed:
    if not sentence.startswith("vocabulary_size:"):
      log.info("%s: assumed from the checkpoint: %s", name, sentence)
  rows = config.vocab_size
  if not checkpoint.ids_known and vocabulary_size <= rows:
    log.info(
      "%s: %s of the %s rows are real ids, as the data's vocabulary has them",
      *(name, format(vocabulary_size, ","), format(rows, ",")),
    )
    config = dataclasses.replace(config, vocabulary_size=vocabulary_size)
  config = dataclasses.replace(
    config, dropout_rate=model.dropout_rate, dtype=model.dtype
  )
  return family.encoder_decoder(config)


def _check_agrees(
  model: LanguageModel, checkpoint: Checkpoint, name: str
) -> None:
  """Other activations or buckets compute something else, and load all the same.

  Shapes are compared when the parameters are loaded.
  """
  kind = registry.family_of(model.config)
  if kind != checkpoint.family:
    raise UserError(
      f"{name} is of the model family {kind!r}, but {_PATHS[name]} of"
      f" {checkpoint.family!r}; give the model that it was saved with"
    )
  if kind != registry.T5:
    return
  assumed = {text.partition(":")[0] for text in checkpoint.assumed}
  for field in _NOT_IN_SHAPES:
    given = getattr(model.config, field)
    saved = getattr(checkpoint.config, field)
    if field not in assumed and given != saved:
      raise UserError(
        f"{name} has {field}={given!r}, but {_PATHS[name]} was trained with"
        f" {saved!r}; leave {name} out to take the checkpoint's"
      )


def check_vocabularies(models: Mapping[str, LanguageModel], size: int) -> None:
  """All models must have as many real ids as the data's vocabulary.

  Raises:
    UserError: says which, and whether its table is too narrow.
  """
  for role, model in models.items():
    rows = getattr(model.config, "vocab_size", model.vocabulary_size)
    if rows < size:
      raise UserError(
        f"the {role} has {model.vocabulary_size} ids but VOCABULARY has {size},"
        f" more than its table of {rows} rows can hold; choose the VOCABULARY"
        " that it was trained with, or another model"
      )
    if model.vocabulary_size != size:
      raise UserError(
        f"the {role} has {model.vocabulary_size} ids but VOCABULARY has {size}:"
        f" different vocabularies; set 'vocabulary_size': {size} in"
        f" {role.upper()}_MODEL if only its table is wider, or choose another"
        " model or VOCABULARY"
      )


def say_widths(models: Mapping[str, LanguageModel], size: int) -> None:
  """One line where a table has more rows than the vocabulary has ids."""
  rows = {
    role: getattr(model.config, "vocab_size", model.vocabulary_size)
    for role, model in models.items()
  }
  if set(rows.values()) != {size}:
    listed = ", ".join(f"{role} {count:,} rows" for role, count in rows.items())
    log.info(
      "vocabulary: %s for the same %s ids; rows beyond them are masked",
      *(listed, format(size, ",")),
    )
