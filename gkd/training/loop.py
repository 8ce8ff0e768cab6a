"""The training loop: read this file first.

  batch   = loader.batch(step)                 a pure function of (seed, step)
  batch   = roll_out(batch)                    λ coin; student or teacher writes
  batch   = score(batch)                       advantages, where a reward asks
  state   = update_step(state, batch)          score, loss, optimizer
  evaluate, report, save                       at their own periods

Step n is launched before the metrics of step n − 1 are read, so the device
never waits for the host; a failure is found one step late. Where something is
due (a report, an evaluation, a checkpoint, a dump) the step is waited for, and
the rollout of every step where it is rewarded on the host. With staleness 1 the
rollout of step n + 1 is launched before step n, so that the host rewards it
while the device is at step n.

Everything that the loop needs is in a `Run`, built at the edge (the command,
a notebook, a test). The loop looks nothing up and never runs TensorFlow.
Nothing about randomness or data order is saved: a run that is killed and
started again from its last checkpoint ends bit-identical, files included.

Several processes run the same loop on one mesh, see `processes`. Each reads its
rows of a batch; all decide the same, as they see the same metrics.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import logging
from typing import NamedTuple

import jax
import numpy as np

from gkd import disk_errors
from gkd import locks
from gkd import metrics
from gkd import partitioning
from gkd import processes
from gkd import watchdog
from gkd.checkpoints.store import Store
from gkd.errors import explaining_memory
from gkd.evaluation.evaluate import evaluate
from gkd.evaluation.predictions import Record
from gkd.progress import Progress
from gkd.training import periods
from gkd.training import resume_check
from gkd.training import rollout_ahead
from gkd.training import run_description
from gkd.training import sample_logging
from gkd.training import starting_point
from gkd.training import teacher_per_row
from gkd.training import writers
from gkd.training.adaptive_fraction import AdaptiveFraction
from gkd.training.gradient_shares import gradient_shares
from gkd.training.length_buckets import cut
from gkd.training.preemption import PreemptionHandler
from gkd.training.profiling import Profiler
from gkd.training.recorder import Listener
from gkd.training.recorder import Recorder
from gkd.training.rollout import RolledOut
from gkd.training.rollout import Rollout
from gkd.training.rollout import raise_failure
from gkd.training.rollout import roll_out
from gkd.training.run import LOCK_FILE
from gkd.training.run import Run
from gkd.training.scoring import score
from gkd.training.skipped_updates import NOTE as SKIPPED
from gkd.training.skipped_updates import SkippedUpdates
from gkd.training.state import TrainState
from gkd.training.state import without_stacks
from gkd.training.step import update_step
from gkd.training.step_flops import StepFlops
from gkd.training.telemetry import PhaseTimer
from gkd.training.trackers import tracking
from gkd.training.writers import EVENTS_FOLDER
from gkd.types import Batch
from gkd.types import Model

log = logging.getLogger("gkd")


def train(
  run: Run,
  listener: Listener | None = None,
  stop: PreemptionHandler | None = None,
  profile: range = range(0),
) -> TrainState:
  """Trains from the last checkpoint of `run.model_dir`, or from the start.

  Args:
    run: the run.
    listener: called with each record that goes to metrics.jsonl.
    stop: what takes note of signals, if not the usual one.
    profile: steps whose trace is written, see `Profiler`.

  Returns:
    The final state.

  Raises:
    UserError: what the run asks for is impossible, the folder is in use, or the
      disk is full.
    FloatingPointError: loss, gradient, update or logits are not finite; the
      message says where, and which checkpoint is left.
    Interrupted: a signal came; the step that was under way is saved.
  """
  log.info("%s", run.describe())
  stop = stop or PreemptionHandler()
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    enter(_at_work(run))
    enter(stop)
    description = run_description.describe(run)
    for change in resume_check.changes(run, description):
      log.warning("the run goes on with another %s", change)
    processes.agree("run", run_description.compared(run, description))
    store = enter(Store(run.folder / "checkpoints", run.preservation))
    enter(_naming_checkpoint(store))
    store.values = writers.read_values(run.folder, run.preservation.metric)
    start, state, ahead, metadata = starting_point.restored(run, store)
    missing = starting_point.missing(run, start, metadata)
    guard = starting_point.guard(run, start, metadata)
    if starting_point.is_over(run, start, missing, guard):
      return state
    fraction = AdaptiveFraction(run.rollout, run.fraction_metric, metadata)
    identity = run_description.write(run, description, resumed=bool(start))
    frozen = starting_point.frozen(run, state, first_start=not start)
    train_step, vocabulary = run.train_step, run.loader.vocabulary
    scoring = teacher_per_row.scoring_params(train_step.frozen, frozen)
    track = enter(tracking(run.tracker, run.folder, description))
    recorder = enter(
      Recorder(run.model_dir, start, metadata, listener, track, run.mesh)
    )
    profiler = enter(Profiler(profile, run.folder / EVENTS_FOLDER, start))
    count_flops = StepFlops(train_step, frozen, run.rollout, vocabulary)
    skipped = SkippedUpdates(run.skip_non_finite, metadata.get(SKIPPED, 0))

    def models() -> dict[str, Model]:
      return starting_point.models(run, state, frozen)

    def finish_step(done: int) -> bool:
      """What is due after `done` steps; whether the run ends there."""
      evaluated: dict[str, float] | None = {}
      if run.evaluates(done):
        with recorder.timer("evaluate"):
          job = functools.partial(_evaluate, run, models(), done, stop)
          evaluated = stop.run_preemptible(job)
      if evaluated is not None:
        fraction.observe(done, evaluated)
        evaluated |= guard.observe(done, evaluated, store.newest)
        report = periods.due(done, run.periods.report)
        end = guard.is_stopped or done == run.train_steps
        recorder.write(done, evaluated, report=report, end=end)
        if run.preservation.metric in evaluated:
          store.values[done] = evaluated[run.preservation.metric]
      leaving = bool(stop.requested or guard.is_stopped)  # once: leaving saves
      if done == start:  # nothing new to save
        store.prune(done)
      elif run.saves(done) or leaving:
        # Whoever resumes from here finds the lines of all steps so far.
        recorder.writers.sync()
        noted = recorder.metadata(pending_eval=evaluated is None)
        noted |= identity | guard.notes() | fraction.notes() | skipped.notes()
        with recorder.timer("checkpoint"):
          whole, own = rollout_ahead.joined(without_stacks(state), ahead)
          store.save(done, whole, noted | own, temporary=not run.saves(done))
      return leaving

    def collect(launched: _Launched) -> None:
      """Waits for a step and gathers its metrics, or raises what failed."""
      step, rolled, batch, update = launched
      means, checks = {}, {}
      # The sampler ends first, so each wait is the time of its own program.
      if run.rollout is not None:
        with recorder.timer("sample", waits=True):
          means, checks = jax.device_get((rolled.metrics, rolled.checks))
      with recorder.timer("update", waits=True):
        means |= collections.ChainMap(*jax.device_get(update))
      means["flops"] = count_flops(state, rolled, batch, means)
      raise_failure(checks, step + 1)  # no line: the update was on garbage
      try:
        loss, means = means["loss"].compute(), skipped.checked(means, step + 1)
      except FloatingPointError:
        # The good steps have a line of their own.
        recorder.write(step, {}, report=False, end=True)
        recorder.write_alone(step + 1, means)
        raise
      recorder.add(means)
      guard.add(means)
      progress.update(1, {"loss": loss})

    done, leaving = start, bool(stop.requested)
    # An evaluation that was cut short is due again.
    if done == 0 or "eval" in missing or metadata.get("pending_eval"):
      leaving = finish_step(done)
    elif missing:
      recorder.write(done, {}, report=False, end=True)
    progress = Progress(run.train_steps, start, run.folder.name, compiles=True)
    enter(progress)
    before: _Launched | None = None  # the step whose metrics are not read yet
    while done < run.train_steps and not leaving:
      store.check()  # a save that failed stops the run now, not at the next
      step, done = done, done + 1
      profiler.begin(done)
      plan = fraction.applied(guard.plan)
      rolled, ahead = _texts(run, plan, step, ahead, recorder.timer, models())
      batch = cut(rolled.batch, run.length_buckets, recorder.timer)
      with recorder.timer("update"):
        shares, trained = {}, (scoring, batch, np.int32(run.seed))
        if periods.due(done, run.periods.gradient_share):
          shares = gradient_shares(train_step, state, *trained)
        state, update = update_step(train_step, state, *trained)
      if before is not None:
        collect(before)
      stop.vote()
      before = _Launched(step, rolled, batch, (update, shares))
      # Otherwise the next step is launched before this one is waited for.
      if run.is_due(done) or stop.requested or profiler.waits(done):
        collect(before)
        before = None
        profiler.end(done)
        if periods.due(done, run.periods.sample):
          texts = sample_logging.describe(
            *(rolled.batch, vocabulary, models().get("teacher")),
            *(rolled.rewards, run.loader.teachers),
          )
          recorder.samples(done, texts)
        with progress.paused():
          leaving = finish_step(done)
    log.info("%s", recorder.throughput.describe())
  stop.check(f"after step {done} of {run.train_steps}")
  return state


def _texts(
  run: Run,
  plan: Rollout | None,
  step: int,
  ahead: RolledOut | None,
  timer: PhaseTimer,
  models: Mapping[str, Model],
) -> tuple[RolledOut, RolledOut | None]:
  """The batch of a step as it is trained on, if asked for with advantages.

  Args:
    run: the run.
    plan: who writes the targets; None leaves them.
    step: counted from 0.
    ahead: its rollout, if it was drawn already.
    timer: of the phases.
    models: by role, before the update of the step.

  Returns:
    The batch, and with a staleness of 1 the rollout of the next step. That is
    launched before rewards are computed, which the device works through
    meanwhile, and before the update of this step, to which the parameters are
    donated.
  """
  draw = functools.partial(_draw, run, plan, timer, models)
  rolled = ahead or draw(step)
  if plan is not None and plan.staleness:
    ahead = draw(step + 1, staleness=1)
  if plan is None or not run.objective.needs_advantages:
    return rolled, ahead
  with timer("data"):
    examples = run.loader.examples(step)
  scored = score(
    rolled,
    examples,
    plan=run.scoring,
    samples_per_prompt=run.loader.samples_per_prompt,
    vocabulary=run.loader.vocabulary,
    timer=timer,
  )
  return scored, ahead


def _draw(
  run: Run,
  plan: Rollout | None,
  timer: PhaseTimer,
  models: Mapping[str, Model],
  step: int,
  staleness: int = 0,
) -> RolledOut:
  """The batch of a step with its targets; launched, not waited for."""
  size = run.loader.batch_size
  with timer("data", step=step):
    read = functools.cache(functools.partial(run.loader.batch, step))
    sharding = partitioning.batch_sharding(run.mesh)
    batch = partitioning.place_rows(read, size, sharding)
  if plan is None:
    return RolledOut(batch, {}, {})
  with timer("sample"):
    return roll_out(
      batch,
      step=step,
      seed=run.seed,
      plan=plan,
      student=models["student"],
      teacher=models.get("teacher"),
      vocabulary=run.loader.vocabulary,
      input_width=plan.input_width(lambda: read(range(size))),
      staleness=staleness,
    )


class _Launched(NamedTuple):
  """A step that was launched; the device may still be at it."""

  step: int
  rolled: RolledOut
  batch: Batch  # as it is scored
  update: tuple[Mapping[str, metrics.Mean], ...]


_MEMORY = (
  "lower BATCH_SIZE, raise MICRO_BATCHES or set CHUNK_SIZE; in another"
  " MODEL_DIR if this one has results"
)
_DISK = (
  "cannot write to {}; what was saved stands, and the same command goes on from"
  " it"
)


@contextlib.contextmanager
def _at_work(run: Run) -> Iterator[None]:
  """The run's folder is its own, and errors of its machine are explained."""
  processes.refuse_unknown()
  with contextlib.ExitStack() as stack:
    stack.enter_context(watchdog.of_process.limited(run.watchdog_seconds))
    if processes.is_writer():
      lock = locks.hold(run.folder / LOCK_FILE, f"MODEL_DIR {run.folder}")
      stack.enter_context(lock)
    stack.enter_context(disk_errors.explaining(_DISK.format(run.folder)))
    stack.enter_context(explaining_memory(_MEMORY))
    yield


@contextlib.contextmanager
def _naming_checkpoint(store: Store) -> Iterator[None]:
  """Adds to numbers that are not finite what is left to go on from."""
  try:
    yield
  except FloatingPointError as error:
    step = max(store.steps(), default=0)
    left = "no checkpoint was saved yet"
    if step:
      left = f"INITIAL_CHECKPOINT_PATH={store.folder(step)} goes on from there"
    message = f"{error}. A run with other settings needs another MODEL_DIR;"
    raise FloatingPointError(f"{message} {left}") from error


def _evaluate(
  run: Run,
  models: Mapping[str, Model],
  done: int,
  stop: PreemptionHandler,
) -> dict[str, float]:
  """Values of all evaluations after `done` steps; changes nothing."""
  values: dict[str, float] = {}
  for evaluation in run.evaluations:
    answers: list[Sequence[Record]] = []
    scored = evaluate(
      evaluation,
      models,
      seed=run.seed,
      step=done,
      predictions_dir=str(run.folder / "predictions"),
      batch_sharding=partitioning.batch_sharding(run.mesh),
      on_answers=answers.extend,
      on_batch=stop.vote_to_leave,
    )
    # All decide by the same numbers, whatever metrics of one's own do.
    values |= processes.from_writer(lambda scored=scored: scored)
    sample_logging.log_evaluation(
      run, evaluation, done, scored, answers[0], models.get("teacher")
    )
  return values
