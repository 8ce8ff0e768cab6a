"""The models of a run: of given sizes, or whatever their checkpoints say.

gin builds the one or the other (`configs/models/t5.gin`); a command that has
located its checkpoints replaces the second by a model:

  model = built(settings.model, described(found), "STUDENT_MODEL", size)
"""

from collections.abc import Mapping
import dataclasses
import logging
from typing import Any
from typing import NamedTuple

from gkd.checkpoints import config_from_shapes
from gkd.checkpoints import one_by_one
from gkd.checkpoints.trained import Located
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


class Described(NamedTuple):
  """What a checkpoint says of its model."""

  config: T5Config
  assumed: tuple[str, ...]  # sentences
  # Whether the number of real ids is known, or only that of the rows.
  ids_known: bool


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


def described(found: Located) -> Described:
  """Sizes that a saved model, or the run of a checkpoint, wrote down.

  One that wrote down none (gkd's first ones) is measured by its shapes.
  """
  about = found.describe()
  assumed = tuple(about.get("assumed", ()))
  if size := about.get("model"):
    config = T5Config.from_size(size)
  else:
    below = "" if found.is_model else "params"
    leaves = one_by_one.open_arrays(found.path, below)
    shapes = {name: leaf.shape for name, leaf in leaves.items()}
    config, assumed = config_from_shapes.config_of(shapes, {})
  guessed = any(text.startswith("vocabulary_size:") for text in assumed)
  padded = config.vocabulary_size < config.vocab_size
  made_with = about.get("vocabulary_sha256")
  return Described(config, assumed, bool(made_with or padded) and not guessed)


def built(
  model: Model,
  told: Described | None,
  name: str,
  vocabulary_size: int,
) -> LanguageModel:
  """The model, with sizes of its checkpoint where none were given.

  Args:
    model: as configured.
    told: what the checkpoint says; None without one.
    name: of the macro, for messages.
    vocabulary_size: ids of the data's vocabulary. Where the checkpoint knows
      only the rows of its table, these are the real ones.
  """
  if not isinstance(model, OfCheckpoint):
    return model
  if told is None:
    raise UserError(
      f"{name} is None and there is no checkpoint that says the sizes; give"
      f" {_PATHS[name]}, or sizes such as --gin.{name}=%T5_1_1_SMALL"
    )
  config, assumed, ids_known = told
  for sentence in assumed:
    if not sentence.startswith("vocabulary_size:"):
      log.info("%s: assumed from the checkpoint: %s", name, sentence)
  rows = config.vocab_size
  if not ids_known and vocabulary_size <= rows:
    log.info(
      "%s: %s of the %s rows are real ids, as the data's vocabulary has them",
      *(name, format(vocabulary_size, ","), format(rows, ",")),
    )
    config = dataclasses.replace(config, vocabulary_size=vocabulary_size)
  config = dataclasses.replace(
    config, dropout_rate=model.dropout_rate, dtype=model.dtype
  )
  return family.encoder_decoder(config)


def of(
  model: Model, found: Located, name: str, vocabulary_size: int
) -> LanguageModel:
  """`built`, with what a checkpoint says where that is asked for.

  Raises:
    UserError: given sizes contradict it in what shapes do not tell.
  """
  told = described(found)
  if not isinstance(model, OfCheckpoint):
    _check_agrees(model, told, name)
  return built(model, told, name, vocabulary_size)


def _check_agrees(model: LanguageModel, told: Described, name: str) -> None:
  """Other activations or buckets compute something else, and load all the same.

  Shapes are compared when the parameters are loaded.
  """
  assumed = {text.partition(":")[0] for text in told.assumed}
  for field in _NOT_IN_SHAPES:
    given = getattr(model.config, field, None)
    saved = getattr(told.config, field)
    if field not in assumed and given not in (None, saved):
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
