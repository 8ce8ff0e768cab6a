"""RESTORE_OPTIMIZER and INITIAL_STEP = 'checkpoint': going on from another run.

Not the resumption of a run in its own folder, which needs none of this: slots
and step are those of INITIAL_CHECKPOINT_PATH, read when a run first starts.
"""

from collections.abc import Callable
import logging
from pathlib import Path

import jax
import numpy as np

from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.native import run_folder
from gkd.models import layer_stack
from gkd.training import optimizer as optimizers
from gkd.training import t5x_adafactor_state
from gkd.training.optimizer import Optimizer
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")

_NAME = "INITIAL_CHECKPOINT_PATH"

Slots = Callable[[], dict[str, np.ndarray]]


def from_checkpoint(
  optimizer: Optimizer,
  checkpoint: Checkpoint | None,
  student: LanguageModel,
  resumed: Path | None,
) -> tuple[Optimizer, Slots | None]:
  """The optimizer with the step that it begins at, and what reads its slots.

  Args:
    optimizer: as configured.
    checkpoint: INITIAL_CHECKPOINT_PATH; None without one.
    student: whose parameters the slots belong to.
    resumed: folder of a run that goes on: its step is known, and the first
      checkpoint may be gone.

  Raises:
    UserError: no checkpoint, one without a step, or without slots that fit.
  """
  restore = optimizer.restore
  if not restore and not optimizers.starts_at_checkpoint(optimizer):
    return optimizer, None
  why = (
    "RESTORE_OPTIMIZER is True" if restore else "INITIAL_STEP is 'checkpoint'"
  )
  slots = (lambda: _read_slots(checkpoint)) if restore else None
  if resumed is not None:
    if not run_folder.describe_run(resumed):
      raise UserError(
        f"{resumed / run_folder.DESCRIPTION_FILE} does not say the step that"
        " the run began at; restore that file"
      )
    step = run_folder.initial_step(resumed)
    return optimizers.starting_at(optimizer, step), slots
  if checkpoint is None:
    raise UserError(
      f"{why} but {_NAME} is empty; give the checkpoint to go on from"
    )
  if checkpoint.step is None:
    raise UserError(
      f"{why} but {_NAME} {str(checkpoint.path)!r} does not say its step; give"
      " a number as INITIAL_STEP" + ", without RESTORE_OPTIMIZER" * restore
    )
  optimizer = optimizers.starting_at(optimizer, checkpoint.step)
  if restore:
    _check_slots(checkpoint, student, optimizer)
  return optimizer, slots


def warn_of_t5x_steps(checkpoint: Checkpoint | None, train_steps: int) -> None:
  """Warns where TRAIN_STEPS may be T5X's, which counts those before the run."""
  if checkpoint is None or checkpoint.format != "t5x" or not checkpoint.step:
    return
  if checkpoint.step < train_steps:
    log.warning(
      "TRAIN_STEPS %s counts the steps of this run alone, unlike T5X's, which"
      " would include the %s of %s; for the end that T5X would have give %s",
      *(format(train_steps, ","), format(checkpoint.step, ","), _NAME),
      train_steps - checkpoint.step,
    )


def _read_slots(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
  step = format(checkpoint.step, ",")
  log.info("%s: %d slots of step %s", _NAME, len(checkpoint.slots), step)
  return {name: leaf.read() for name, leaf in checkpoint.slots.items()}


def _check_slots(
  checkpoint: Checkpoint, student: LanguageModel, optimizer: Optimizer
) -> None:
  """Refuses missing slots and, by shapes alone, those of other parameters."""
  if not checkpoint.slots:
    assumed = dict(text.partition(": ")[::2] for text in checkpoint.assumed)
    reason = assumed.get("optimizer", "it has none")
    raise UserError(
      f"RESTORE_OPTIMIZER is True but {checkpoint.path} has no slots to go on"
      f" with ({reason}); leave RESTORE_OPTIMIZER out, or give another"
      " checkpoint"
    )
  params = layer_stack.unstacked(student.abstract_params)
  state = jax.eval_shape(optimizer.transformation().init, params)
  try:
    t5x_adafactor_state.check_fits(state, params, checkpoint.slots)
  except UserError as error:
    raise UserError(f"{_NAME}: {error}") from error
