"""The training loop: read this file first.

  batch   = loader.batch(step)                 a pure function of (seed, step)
  batch   = roll_out(batch)                    λ coin; student or teacher writes
  state   = update_step(state, batch)          score, loss, optimizer
  evaluate, report, save                       at their own periods

Everything that the loop needs is in a `Run`, built at the edge (the command,
a notebook, a test). The loop looks nothing up and never runs TensorFlow.
Nothing about randomness or data order is saved: a run that is killed and
started again from its last checkpoint ends bit-identical, files included.
"""

from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import logging
from typing import Any

import jax
import numpy as np

from gkd import files
from gkd import locks
from gkd import metrics
from gkd import partitioning
from gkd.checkpoints.store import Store
from gkd.evaluation.evaluate import evaluate
from gkd.progress import Progress
from gkd.training import init_state
from gkd.training import periods
from gkd.training import resume_check
from gkd.training import run_description
from gkd.training import sample_logging
from gkd.training import teacher_check
from gkd.training import writers
from gkd.training.preemption import PreemptionHandler
from gkd.training.recorder import Listener
from gkd.training.recorder import Recorder
from gkd.training.rollout import roll_out
from gkd.training.run import LOCK_FILE
from gkd.training.run import Run
from gkd.training.state import TrainState
from gkd.training.step import update_step
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


def train(
  run: Run,
  listener: Listener | None = None,
  stop: PreemptionHandler | None = None,
) -> TrainState:
  """Trains from the last checkpoint of `run.model_dir`, or from the start.

  Args:
    run: the run.
    listener: called with each record that goes to metrics.jsonl.
    stop: what takes note of signals, if not the usual one.

  Returns:
    The final state.

  Raises:
    UserError: what the run asks for is impossible, the folder is in use, or the
      disk is full.
    FloatingPointError: loss or gradient is not finite; the message says where,
      and the last checkpoint stands.
    Interrupted: a signal came; the step that was under way is saved.
  """
  _refuse_several_processes()
  log.info("%s", run.describe())
  stop = stop or PreemptionHandler()
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    enter(locks.hold(run.folder / LOCK_FILE, f"MODEL_DIR {run.folder}"))
    enter(files.explaining(_DISK.format(run.folder)))
    enter(stop)
    description = run_description.describe(run)
    for change in resume_check.changes(run, description):
      log.warning("the run goes on with another %s", change)
    store = enter(Store(run.folder / "checkpoints", run.preservation))
    store.values = writers.read_values(run.folder, run.preservation.metric)
    start = _first_step(run, store)
    state, metadata = _state(run, store, start)
    # The evaluation of that step was cut short: it is due again.
    pending_eval = metadata.get("pending_eval", False)
    missing = _missing(run, start, metadata)
    if start == run.train_steps and not missing:
      log.info("%s is complete: all %d steps are done", run.folder, start)
      return state
    run_description.write(run, description, resumed=bool(start))
    sharding = partitioning.batch_sharding(run.mesh)
    student = run.student.lm
    teacher = None if run.teacher is None else run.teacher.lm
    teacher_params = init_state.place_teacher(run.teacher, run.mesh)
    if not start and teacher is not None:
      batch = jax.device_put(run.loader.batch(0), sharding)
      teacher_check.log_teacher_nll(teacher, teacher_params, batch)
    plan = run.plan
    scoring_params = None if plan.teacher is None else teacher_params
    recorder = enter(
      Recorder(
        run.model_dir,
        resume_step=start or None,
        unwritten=metadata.get("unwritten"),
        pending_eval=pending_eval,
        listener=listener,
      )
    )

    def finish_step(done: int) -> bool:
      """What is due after `done` steps; whether the run ends there."""
      evaluated: dict[str, float] | None = {}
      if run.evaluates(done):
        with recorder.timer("evaluate"):
          evaluated = stop.run_preemptible(
            lambda: _evaluate(run, state.params, teacher_params, done)
          )
      if evaluated is not None:
        report = periods.due(done, run.periods.report)
        end = done == run.train_steps
        recorder.write(done, evaluated, report=report, end=end)
        if run.preservation.metric in evaluated:
          store.values[done] = evaluated[run.preservation.metric]
      leaving = bool(stop.requested)  # asked once: who leaves has saved
      if done == start:  # nothing new to save
        store.prune(done)
      elif run.saves(done) or leaving:
        # Whoever resumes from here finds the lines of all steps so far.
        recorder.sync()
        metadata = {
          "unwritten": recorder.unwritten,
          "pending_eval": evaluated is None,
        }
        with recorder.timer("checkpoint"):
          store.save(done, state, metadata, temporary=not run.saves(done))
      return leaving

    done = start
    leaving = bool(stop.requested)
    if pending_eval or "evaluation" in missing or done == 0:
      leaving = finish_step(done)
    elif missing:
      recorder.write(done, {}, report=False, end=True)
    progress = enter(Progress(run.train_steps, start, run.folder.name))
    while done < run.train_steps and not leaving:
      store.check()  # a save that failed stops the run now, not at the next
      step, done = done, done + 1
      with recorder.timer("data"):
        batch = partitioning.place_rows(
          functools.partial(run.loader.batch, step),
          run.loader.batch_size,
          sharding,
        )
      stats: dict[str, metrics.Mean] = {}
      if run.rollout is not None:
        with recorder.timer("sample"):
          batch, stats = roll_out(
            batch,
            step=step,
            seed=run.seed,
            plan=run.rollout,
            student=student,
            student_params=state.params,
            teacher=teacher,
            teacher_params=teacher_params,
            eos_ids=run.loader.vocabulary.eos_ids,
            pad_id=run.loader.vocabulary.pad_id,
          )
          jax.block_until_ready(batch)
      with recorder.timer("update"):
        state, parts = update_step(
          plan, state, scoring_params, batch, np.int32(run.seed)
        )
        parts = jax.device_get(parts)
      if parts["finite"].compute() != 1.0:
        # The good steps have a line of their own.
        recorder.write(step, {}, report=False, end=True)
        recorder.write_alone(done, stats | parts)
        raise _not_finite(parts, step, run)
      recorder.add(stats | parts)
      progress.update(1, {"loss": parts["loss"].compute()})
      if periods.due(done, run.periods.sample):
        vocabulary = run.loader.vocabulary
        recorder.writers.samples(
          done,
          sample_logging.describe(batch, vocabulary, teacher, teacher_params),
        )
      leaving = finish_step(done)
  stop.check(f"after step {done} of {run.train_steps}")
  return state


_DISK = (
  "cannot write to {}; the last checkpoint stands, and the same command goes on"
  " from it once there is space"
)


def _refuse_several_processes() -> None:
  """Lock, files and checkpoints are those of a single process."""
  if (count := jax.process_count()) > 1:
    raise UserError(
      f"this is one of {count} JAX processes, but a run is one process with all"
      " local devices; start it on one machine, without jax.distributed"
    )


def _first_step(run: Run, store: Store) -> int:
  """Number of steps that are done already."""
  start = store.latest_step() or 0
  if start > run.train_steps:
    raise UserError(
      f"TRAIN_STEPS is {run.train_steps} but the run in {run.folder} has"
      f" already {start} steps; raise TRAIN_STEPS or choose another MODEL_DIR"
    )
  return start


def _state(
  run: Run, store: Store, start: int
) -> tuple[TrainState, dict[str, Any]]:
  """The state after `start` steps, and what was noted with it."""
  if not start:
    params = run.initial_params()
    slots = run.student_slots() if run.student_slots else None
    state = init_state.initial_state(
      run.student.lm, params, run.optimizer, run.mesh, slots
    )
    return state, {}
  like = init_state.abstract_state(run.student.lm, run.optimizer, run.mesh)
  state = store.restore(start, like)
  store.prune(start)
  log.info("resuming after step %d", start)
  return state, store.metadata(start)


def _missing(run: Run, start: int, metadata: Mapping[str, Any]) -> set[str]:
  """What the files of a run lack that has done all its steps.

  It was killed in its last evaluation, or was to be longer before.
  """
  if start != run.train_steps:
    return set()
  missing = set()
  due = metadata.get("pending_eval", False) or run.evaluates(start)
  if due and not writers.has_values(run.folder, start, "eval/"):
    missing.add("evaluation")
  unwritten = metadata.get("unwritten", {}).get("means")
  if unwritten and not writers.has_values(run.folder, start, "train/"):
    missing.add("means of the last steps")
  return missing


def _evaluate(
  run: Run, params: Params, teacher_params: Params | None, done: int
) -> dict[str, float]:
  """Values of all evaluations after `done` steps; changes nothing."""
  values: dict[str, float] = {}
  roles = {"student": dataclasses.replace(run.student, params=params)}
  if run.teacher is not None:
    teacher = dataclasses.replace(run.teacher, params=teacher_params)
    roles["teacher"] = teacher
  for evaluation in run.evaluations:
    values |= evaluate(
      evaluation,
      roles,
      seed=run.seed,
      step=done,
      predictions_dir=str(run.folder / "predictions"),
      batch_sharding=partitioning.batch_sharding(run.mesh),
    )
  return values


def _not_finite(
  parts: dict[str, metrics.Mean], step: int, run: Run
) -> FloatingPointError:
  """Why the run stops: nothing was updated, nothing is hidden."""
  return FloatingPointError(
    f"step {step}: loss {float(parts['loss'].total)}, gradient norm"
    f" {float(parts['grad_norm'].total)}; the parameters were not updated and"
    f" the last checkpoint in {run.model_dir} stands. Lower LEARNING_RATE, set"
    " clip_norm, or look at the samples of this step"
  )
