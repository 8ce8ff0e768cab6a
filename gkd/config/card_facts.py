"""What a run writes down for the model card of its student, in words."""

from collections.abc import Mapping
from typing import Any

from gkd import trees
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.config import setup
from gkd.config.command_records import TrainConfig
from gkd.data.loader import Loader
from gkd.types import LanguageModel


def facts(
  settings: TrainConfig, found: Mapping[str, Checkpoint], loader: Loader
) -> dict[str, Any]:
  """`run.json["card"]`: strings and numbers.

  Args:
    settings: with their models.
    found: the checkpoints that the run starts from.
    loader: of its data.
  """
  teacher = settings.teacher
  return {
    "teacher": _checkpoint(settings.teacher_checkpoint, found, "teacher"),
    "teacher_parameters": _parameters(teacher) if teacher else None,
    "student_parameters": _parameters(settings.student),
    "initial": _initial(settings, found),
    "data": loader.describe(),
    "objective": settings.objective.describe(),
    "targets": (
      settings.rollout.describe()
      if settings.rollout
      else "fixed data, as in the cache"
    ),
    "optimizer": settings.optimizer.describe(),
    "steps": settings.train_steps,
    "seed": settings.seed,
  }


def _initial(settings: TrainConfig, found: Mapping[str, Checkpoint]) -> str:
  path = settings.initial_checkpoint
  if strides := setup.strides(settings):
    start = _checkpoint(path, found, "initial") if path else "the teacher"
    encoder, decoder = strides
    return (
      f"layers 0, k, 2k, … of {start}, k = {encoder} (encoder) and {decoder}"
      " (decoder)"
    )
  return _checkpoint(path, found, "initial") if path else "random weights"


def _checkpoint(path: str, found: Mapping[str, Checkpoint], role: str) -> str:
  """As the user gave it, with its step where that is known."""
  one = found.get(f"{role}_checkpoint")
  if one is None or one.step is None:
    return path
  return f"{path}, step {one.step:,}"


def _parameters(model: LanguageModel) -> int:
  params = model.abstract_params
  return trees.num_parameters(params)
