"""What a run starts from: its last checkpoint, its guard, its frozen models."""

from collections.abc import Mapping
import dataclasses
import logging
from typing import Any

from gkd import partitioning
from gkd import processes
from gkd import watchdog
from gkd.checkpoints.native import run_folder
from gkd.checkpoints.store import Store
from gkd.models import layer_stack
from gkd.training import guard_controller
from gkd.training import rollout_ahead
from gkd.training import sample_logging
from gkd.training import self_teacher
from gkd.training import state as states
from gkd.training import writers
from gkd.training.guard_controller import Controller
from gkd.training.rollout import RolledOut
from gkd.training.run import Run
from gkd.training.state import TrainState
from gkd.types import Model
from gkd.types import UserError

log = logging.getLogger("gkd")


def restored(
  run: Run, store: Store
) -> tuple[int, TrainState, RolledOut | None, dict[str, Any]]:
  """Number of finished steps, the state after them, and what was saved with it.

  That is the rollout of the next step, if it was drawn, and the metadata.
  """
  start = processes.from_writer(store.latest_step) or 0
  watchdog.of_process.saved = start
  if start > run.train_steps:
    raise UserError(
      f"TRAIN_STEPS is {run.train_steps} but the run in {run.folder} has"
      f" already {start} steps; raise TRAIN_STEPS or choose another MODEL_DIR"
    )
  student, rule, mesh = run.student.lm, run.optimizer, run.mesh
  decay = run.teacher_decay
  if not start:
    params = run.initial_params()
    slots = run.student_slots() if run.student_slots else None
    state = states.initial_state(student, params, rule, mesh, slots, decay)
    return 0, state, None, {}
  abstract = states.abstract_state(student, rule, mesh, decay)
  like, batch = layer_stack.unstacked(abstract), None
  if run.rollout is not None and run.rollout.staleness:
    sharding = partitioning.batch_sharding(mesh)
    batch = partitioning.place(run.loader.batch(start), sharding)
    like = like.replace(ahead=rollout_ahead.like(batch))
  saved, metadata = store.restore(start, like), store.metadata(start)
  ahead = batch and rollout_ahead.restored(saved.ahead, metadata, batch)
  state = states.with_stacks(saved.replace(ahead=None), abstract)
  run_folder.check_identity(
    store.folder(start), int(state.step), metadata.get(run_folder.IDENTITY)
  )
  store.prune(start)
  log.info("resuming after step %d", start)
  return start, state, ahead, metadata


def guard(run: Run, start: int, metadata: Mapping[str, Any]) -> Controller:
  """The run's guard with what it noted in the checkpoint that was restored.

  An evaluation that was due after it may have been made by an earlier start.
  """

  def saved() -> dict[str, Any]:
    noted = metadata.get(guard_controller.NOTE, {})
    if metadata.get("pending_eval") and writers.has_values(
      run.folder, start, "guard/"
    ):
      return {**noted, **guard_controller.read_history(run.folder, start)}
    return noted

  return Controller(
    run.guard,
    metric=run.followed_metric,
    plan=run.rollout,
    batch_size=run.loader.batch_size,
    num_rows=run.loader.num_rows,
    first_step=run.optimizer.schedule.warmup_end,
    folder=run.folder,
    saved=processes.from_writer(saved),
  )


def is_over(run: Run, start: int, missing: set[str], guard: Controller) -> bool:
  """Whether nothing is left to do, or the guard has ended the run before."""
  if start == run.train_steps and not missing:
    log.info("%s is complete: all %d steps are done", run.folder, start)
    return True
  if guard.is_stopped:
    log.warning(
      "%s stays as it was after step %d: its guard has seen teacher hacking and"
      " GUARD is 'stop', see %s; to go on set GUARD to 'warn', 'go_online' or"
      " 'off'",
      *(run.folder, start, guard_controller.FILE_NAME),
    )
  return guard.is_stopped


def frozen(
  run: Run, state: TrainState, *, first_start: bool
) -> dict[str, Model]:
  """Frozen models on the mesh; the teacher's first likelihood is logged."""
  frozen = {
    role: partitioning.place_model(run.roles[role], run.mesh)
    for role in run.frozen_roles
  }
  if first_start and (run.teacher is not None or run.loader.teachers):
    sharding = partitioning.batch_sharding(run.mesh)
    batch = partitioning.place(run.loader.batch(0), sharding)
    by_role = models(run, state, frozen)
    for index, name in enumerate(run.loader.teachers or ("teacher",)):
      weights = batch.weights
      if batch.teacher is not None:
        weights = weights * (batch.teacher == index)[:, None]
      sample_logging.log_teacher_nll(
        by_role[name], batch.replace(weights=weights), name
      )
  return frozen


def models(
  run: Run, state: TrainState, frozen: Mapping[str, Model]
) -> dict[str, Model]:
  """All models by role, those that learn as they are in a state."""
  own = {"student": state.params}
  if (decay := run.teacher_decay) is not None:
    own["teacher"] = self_teacher.params_of(decay, state.params, state.average)
  return {
    role: dataclasses.replace(model, params=own[role])
    if role in own
    else frozen[role]
    for role, model in run.roles.items()
  }


def missing(run: Run, start: int, metadata: Mapping[str, Any]) -> set[str]:
  """Kinds of values that a run with all its steps has not written yet.

  It was killed in its last evaluation, or was to be longer before.
  """
  if start != run.train_steps:
    return set()
  due = {
    "eval": metadata.get("pending_eval", False) or run.evaluates(start),
    "train": bool(metadata.get("unwritten", {}).get("means")),
  }
  return set(
    processes.from_writer(
      lambda: [
        kind
        for kind, is_due in due.items()
        if is_due and not writers.has_values(run.folder, start, f"{kind}/")
      ]
    )
  )
