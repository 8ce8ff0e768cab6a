"""What a training run starts from: checkpoints, models, tokenizer.

found = locate(settings)
settings = with_tokenizer(settings, found)
settings = with_models(settings, found, vocabulary_size)
"""

from collections.abc import Mapping
import dataclasses
import logging
from pathlib import Path

from gkd.checkpoints import source
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.native import run_folder
from gkd.config import model_spec
from gkd.config import parameters
from gkd.config.command_records import TrainConfig
from gkd.config.records import DataConfig
from gkd.models import registry
from gkd.models import t5_layers
from gkd.models.t5 import T5Config
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.training.resume_check import has_checkpoint
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")

STUDENT = "initial_checkpoint"
TEACHER = "teacher_checkpoint"
MACROS = {
  STUDENT: "INITIAL_CHECKPOINT_PATH",
  TEACHER: "TEACHER_CHECKPOINT_PATH",
}


def locate(settings: TrainConfig) -> dict[str, Checkpoint]:
  """The checkpoints that the run starts from, by their field.

  A run that goes on does not load its first student: nothing of it is read
  but its mark, and one that is gone is not missed.
  """
  found = {}
  if path := settings.teacher_checkpoint:
    found[TEACHER] = parameters.locate(path, MACROS[TEACHER])
  if path := settings.initial_checkpoint:
    begun = has_checkpoint(settings.model_dir)
    try:
      found[STUDENT] = parameters.locate(
        path, MACROS[STUDENT], verify=not begun
      )
    except UserError as error:
      if not begun:
        raise
      log.warning("%s; this run goes on without it", error)
  return found


def with_tokenizer(
  settings: TrainConfig, found: Mapping[str, Checkpoint]
) -> TrainConfig:
  """Where VOCABULARY is empty, that of the student's or the teacher's.

  A run that goes on keeps its own, whatever became of its first checkpoint.
  """
  named = {MACROS[f]: found[f] for f in (STUDENT, TEACHER) if f in found}
  run = Path(settings.model_dir).expanduser()
  kept = has_checkpoint(run) and tokenizer_folder.load(run) is not None

  def chosen(data: DataConfig) -> DataConfig:
    if kept and not data.vocabulary and not data.cache:
      log.info("VOCABULARY: the tokenizer of this run, which goes on")
      return dataclasses.replace(data, vocabulary=str(run))
    return parameters.with_tokenizer(data, named)

  scoring = settings.evaluation
  if scoring is not None:
    scoring = dataclasses.replace(scoring, data=chosen(scoring.data))
  data = chosen(settings.data)
  return dataclasses.replace(settings, data=data, evaluation=scoring)


def with_models(
  settings: TrainConfig, found: Mapping[str, Checkpoint], vocabulary_size: int
) -> TrainConfig:
  """Student and teacher as models, of their checkpoints where none is given.

  Args:
    settings: as configured.
    found: see `locate`.
    vocabulary_size: ids of the data's vocabulary.

  Raises:
    UserError: nothing says the sizes of a model.
  """
  student, teacher = settings.student, settings.teacher
  if isinstance(student, model_spec.OfCheckpoint):
    begun_with = _of_run(settings.model_dir, student)
    student = begun_with or model_spec.built(
      student, initial(settings, found), "STUDENT_MODEL", vocabulary_size
    )
  elif STUDENT in found:
    student = model_spec.built(
      student, found[STUDENT], "STUDENT_MODEL", vocabulary_size
    )
  if teacher is not None:
    teacher = model_spec.built(
      teacher, found[TEACHER], "TEACHER_MODEL", vocabulary_size
    )
  return dataclasses.replace(settings, student=student, teacher=teacher)


def roles(settings: TrainConfig) -> dict[str, LanguageModel]:
  """The models by the words for them."""
  both = {"student": settings.student}
  if settings.teacher is not None:
    both["teacher"] = settings.teacher
  return both


def check_tokenizers(
  found: Mapping[str, Checkpoint], vocabulary: Vocabulary
) -> None:
  """See `parameters.check_tokenizer`."""
  for field, one in found.items():
    parameters.check_tokenizer(one, MACROS[field], vocabulary)


def strides(settings: TrainConfig) -> t5_layers.Strides | None:
  """EVERY_KTH_LAYER for encoder and decoder; None for all layers."""
  given = settings.every_kth_layer
  if given is None:
    return None
  return (given, given) if isinstance(given, int) else tuple(given)


def check_strides(settings: TrainConfig) -> None:
  """EVERY_KTH_LAYER must be such a number and do something.

  Args:
    settings: as configured, the models not looked up.

  Raises:
    UserError: it is not, or does not.
  """
  given = settings.every_kth_layer
  if given is None:
    return
  pair = strides(settings)
  if len(pair) != 2 or not all(isinstance(k, int) and k >= 1 for k in pair):
    raise UserError(
      f"EVERY_KTH_LAYER is {given!r}; give a number of at least 2, or two:"
      " (k of the encoder, k of the decoder)"
    )
  if pair == (1, 1):
    raise UserError(
      f"EVERY_KTH_LAYER is {given!r}, which takes all layers; leave it out"
    )
  if not (settings.initial_checkpoint or settings.teacher_checkpoint):
    raise UserError(
      f"EVERY_KTH_LAYER is {given!r} but the student starts from random"
      " weights; give INITIAL_CHECKPOINT_PATH, or a teacher"
    )
  if not isinstance(settings.student, model_spec.OfCheckpoint):
    raise UserError(
      f"EVERY_KTH_LAYER is {given!r} and STUDENT_MODEL is given: the sizes"
      " follow from the layers; set STUDENT_MODEL to None"
    )
  if settings.optimizer.restore:
    raise UserError(
      f"EVERY_KTH_LAYER is {given!r} and RESTORE_OPTIMIZER is True, but the"
      " checkpoint's slots belong to all its layers; leave RESTORE_OPTIMIZER"
      " out"
    )


def initial(
  settings: TrainConfig, found: Mapping[str, Checkpoint]
) -> Checkpoint | None:
  """The checkpoint that the student starts from, without layers left out."""
  pair = strides(settings)
  checkpoint = found.get(initial_field(settings))
  if checkpoint is None or pair is None:
    return checkpoint
  return source.every_kth_layer(checkpoint, pair)


def initial_field(settings: TrainConfig) -> str:
  """Field of the checkpoint that the student's parameters come from."""
  if settings.initial_checkpoint or settings.every_kth_layer is None:
    return STUDENT
  return TEACHER


def _of_run(
  model_dir: str, student: model_spec.OfCheckpoint
) -> LanguageModel | None:
  """The student that a run began with; None for a run that begins."""
  if not has_checkpoint(model_dir):
    return None
  described = run_folder.describe_run(Path(model_dir).expanduser())
  if not (fields := described.get("model")):
    return None
  config = registry.config_of(described.get("family") or registry.T5, fields)
  if isinstance(config, T5Config):
    config = dataclasses.replace(
      config, dropout_rate=student.dropout_rate, dtype=student.dtype
    )
  return registry.build(config)
