"""RESTORE_OPTIMIZER and INITIAL_STEP = 'checkpoint': going on from another.

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
from gkd.training import optimizer as optimizers
from gkd.training import t5x_adafactor_state
from gkd.training.optimizer import Optimizer
from gkd.training.resume_check import has_checkpoint
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")

# Of run.json: the absolute step of the run's step 0.
INITIAL_STEP = "first_step"
_NAME = "INITIAL_CHECKPOINT_PATH"

Slots = Callable[[], dict[str, np.ndarray]]


def of_checkpoint(
  optimizer: Optimizer,
  path: str,
  checkpoint: Checkpoint | None,
  model_dir: str,
  student: LanguageModel,
) -> tuple[Optimizer, Slots | None]:
  """The optimizer with the step that it begins at, and what reads its slots.

  Args:
    optimizer: as configured.
    path: INITIAL_CHECKPOINT_PATH: of T5X, a run of ours, or a saved model.
    checkpoint: the one that it is; None where a run goes on without it.
    model_dir: folder of the run. Of one that goes on the step is known, and the
      first checkpoint may be gone.
    student: whose parameters the slots belong to.

  Raises:
    UserError: no checkpoint, one without a step, or with slots asked for and
      none there that fit the student.
  """
  if not optimizers.starts_at_checkpoint(optimizer) and not optimizer.restore:
    return optimizer, None
  restore = optimizer.restore
  asks = (
    "RESTORE_OPTIMIZER is True" if restore else "INITIAL_STEP is 'checkpoint'"
  )
  if not path:
    raise UserError(
      f"{asks} but {_NAME} is empty; give the checkpoint to go on from"
    )
  slots = (lambda: _read_slots(checkpoint)) if restore else None
  if has_checkpoint(model_dir):
    return optimizers.starting_at(optimizer, _step_of_run(model_dir)), slots
  if checkpoint.step is None:
    raise UserError(
      f"{asks} but {_NAME} {path!r} does not say its step; give a number as"
      " INITIAL_STEP" + ", without RESTORE_OPTIMIZER" * restore
    )
  optimizer = optimizers.starting_at(optimizer, checkpoint.step)
  if restore:
    _check_slots(checkpoint)
    _check_fit(checkpoint, student, optimizer)
  return optimizer, slots


def _step_of_run(model_dir: str) -> int:
  step = run_folder.describe_run(Path(model_dir).expanduser()).get(INITIAL_STEP)
  if step is None:
    raise UserError(
      f"{model_dir}/{run_folder.DESCRIPTION_FILE} does not say"
      f" {INITIAL_STEP!r}, the step that the run began at; restore that file"
    )
  return step


def _read_slots(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
  _check_slots(checkpoint)
  log.info(
    "%s: %d optimizer slots of step %s",
    _NAME,
    len(checkpoint.slots),
    format(checkpoint.step, ","),
  )
  return {name: leaf.read() for name, leaf in checkpoint.slots.items()}


def _check_slots(checkpoint: Checkpoint) -> None:
  if checkpoint.slots:
    return
  start = "optimizer: "
  said = [text for text in checkpoint.assumed if text.startswith(start)]
  reason = said[0].removeprefix(start) if said else "it has none"
  raise UserError(
    f"RESTORE_OPTIMIZER is True but {checkpoint.path} has no slots to go on"
    f" with ({reason}); leave RESTORE_OPTIMIZER out, or give another checkpoint"
  )


def _check_fit(
  checkpoint: Checkpoint, student: LanguageModel, optimizer: Optimizer
) -> None:
  """By shapes alone: the slots are put in after MODEL_DIR was made."""
  params = student.abstract_params
  state = jax.eval_shape(optimizer.transformation().init, params)
  try:
    t5x_adafactor_state.check_fits(state, params, checkpoint.slots)
  except UserError as error:
    raise UserError(f"{_NAME}: {error}") from error
