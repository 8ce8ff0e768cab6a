"""The training loop: read this file first.

  batch   = loader.batch(step)                 a pure function of (seed, step)
  batch   = roll_out(batch)                    λ coin; student or teacher writes
  state   = update_step(state, batch)          score, loss, optimizer
  report, evaluate, save                       at their own periods

Everything that the loop needs is in a `Run`, built at the edge (the command,
a notebook, a test). The loop looks nothing up and never runs TensorFlow.
Nothing about randomness or data order is saved: a run that is killed and
started again from its last checkpoint ends bit-identical.
"""

from collections.abc import Sequence
import contextlib
import dataclasses
import logging
import pathlib

import jax
import numpy as np

from gkd import masks
from gkd import metrics
from gkd import partitioning
from gkd import trees
from gkd.checkpoints.store import Store
from gkd.data.loader import Loader
from gkd.evaluation.decode import Evaluation
from gkd.evaluation.decode import evaluate
from gkd.losses.objective import Objective
from gkd.progress import Progress
from gkd.training import dumps
from gkd.training import placement
from gkd.training.optimizer import Optimizer
from gkd.training.recorder import Listener
from gkd.training.recorder import Recorder
from gkd.training.rollout import Rollout
from gkd.training.rollout import roll_out
from gkd.training.state import TrainState
from gkd.training.step import Update
from gkd.training.step import update_step
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One training run: objects and numbers, nothing to look up.

  Attributes:
    model_dir: folder of the run; made if missing, resumed if it has a
      checkpoint.
    student: the model that learns.
    student_params: its parameters before step 0.
    teacher: the frozen model; None for supervised fine-tuning.
    teacher_params: its parameters.
    objective: what is minimised.
    rollout: who writes the targets of each step; None for fixed data alone.
    optimizer: update rule and schedule.
    loader: `batch(step)`.
    evaluations: run every `eval_period` steps and at the end.
    train_steps: steps of this run.
    seed: of data order, λ coin, rollouts and dropout.
    reduction: the loss normaliser, see `masks.coefficients`.
    micro_batches: parts of a batch that are scored one after the other.
    mesh: devices; None for all of them on the data axis.
    report_period: steps between lines of metrics.jsonl.
    eval_period: steps between evaluations; 0 for the last step alone.
    checkpoint_period: steps between checkpoints; 0 for the last step alone.
    sample_period: steps between dumps of the batch as trained; 0 for none.
    keep: number of checkpoints to keep.
    evaluate_first: also evaluate before the first step.
    config_text: the operative configuration, kept as config.gin.
  """

  model_dir: str
  student: LanguageModel
  student_params: Params
  teacher: LanguageModel | None = None
  teacher_params: Params | None = None
  objective: Objective
  rollout: Rollout | None = None
  optimizer: Optimizer
  loader: Loader
  evaluations: Sequence[Evaluation] = ()
  train_steps: int
  seed: int = 0
  reduction: masks.Reduction = "sequence"
  micro_batches: int = 1
  mesh: jax.sharding.Mesh | None = None
  report_period: int = 50
  eval_period: int = 1000
  checkpoint_period: int = 1000
  sample_period: int = 0
  keep: int = 3
  evaluate_first: bool = False
  config_text: str = ""

  def __post_init__(self):
    if self.mesh is None:
      object.__setattr__(self, "mesh", partitioning.make_mesh())
    partitioning.check_division(
      self.loader.batch_size, self.micro_batches, self.mesh
    )
    for evaluation in self.evaluations:
      partitioning.check_division(
        evaluation.batch_size, 1, self.mesh, "EVAL_BATCH_SIZE"
      )
    if self.objective.needs_teacher and self.teacher is None:
      raise UserError(
        "the objective compares the student with a teacher but there is none;"
        " set TEACHER_CHECKPOINT_PATH or train by cross-entropy"
      )
    if self.report_period < 1:
      raise UserError(f"report_period is {self.report_period}; give 1 or more")
    needs_targets = self.rollout is None or self.rollout.needs_targets
    if needs_targets and not self.loader.cache.info["has_targets"]:
      raise UserError(
        "this run trains on targets of the data set but the data has prompts"
        " only; set STUDENT_DATA_FRACTION to 1 or let the teacher write the"
        " rest (fixed_source 'teacher')"
      )

  @property
  def plan(self) -> Update:
    """The static part of an update.

    A teacher that the objective does not need stays out: to score it only for
    metrics would make each step of SeqKD as dear as one of distillation. The
    distances to it come from the evaluations.
    """
    return Update(
      student=self.student,
      teacher=self.teacher if self.objective.needs_teacher else None,
      objective=self.objective,
      optimizer=self.optimizer,
      reduction=self.reduction,
      micro_batches=self.micro_batches,
    )

  @property
  def words(self) -> str:
    """The run in words, printed before anything is compiled."""
    count = trees.num_parameters
    lines = [f"student:   {count(self.student_params):,} parameters"]
    if self.teacher is not None:
      lines.append(f"teacher:   {count(self.teacher_params):,} parameters")
    data = self.rollout.words if self.rollout else "fixed data, as in the cache"
    lines += [
      f"objective: {self.objective.words}",
      f"targets:   {data}",
      f"reduction: {self.reduction}",
      f"optimizer: {self.optimizer.words}",
      f"data:      {len(self.loader.cache):,} rows, batch"
      f" {self.loader.batch_size}, {self.train_steps:,} steps",
      f"folder:    {self.model_dir}",
    ]
    return "\n".join(lines)


def train(run: Run, listener: Listener | None = None) -> TrainState:
  """Trains from the last checkpoint of `run.model_dir`, or from the start.

  Args:
    run: the run.
    listener: called with each record that goes to metrics.jsonl.

  Returns:
    The final state.

  Raises:
    UserError: what the run asks for is impossible.
    FloatingPointError: loss or gradient is not finite; the message says where,
      and the last checkpoint stands.
  """
  log.info("%s", run.words)
  folder = pathlib.Path(run.model_dir)
  store = Store(str(folder / "checkpoints"), keep=run.keep)
  start = store.latest_step() or 0
  if start > run.train_steps:
    raise UserError(
      f"TRAIN_STEPS is {run.train_steps} but the run in {folder} has already"
      f" {start} steps; raise TRAIN_STEPS or choose another MODEL_DIR"
    )
  state = placement.initial_state(
    run.student, run.student_params, run.optimizer, run.mesh
  )
  if start:
    state = store.restore(start, state)
    log.info("resuming after step %d", start)
  if start == run.train_steps:
    log.info("%s is complete: all %d steps are done", folder, start)
    return state
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.gin").write_text(run.config_text)
  (folder / "model-info.txt").write_text(
    placement.description(run.student, run.student_params, run.mesh)
  )
  teacher_params = placement.frozen(run.teacher, run.teacher_params, run.mesh)
  plan = run.plan
  scoring_params = None if plan.teacher is None else teacher_params
  batch_sharding = partitioning.batch_sharding(run.mesh)

  def run_evaluations(step: int) -> dict[str, float]:
    values: dict[str, float] = {}
    with recorder.timer("evaluate"):
      for evaluation in run.evaluations:
        values |= evaluate(
          run.student,
          state.params,
          evaluation,
          seed=run.seed,
          step=step,
          predictions_dir=str(folder / "predictions"),
          teacher=run.teacher,
          teacher_params=teacher_params,
          batch_sharding=batch_sharding,
        )
    return values

  with contextlib.ExitStack() as stack:
    stack.callback(store.wait)
    recorder = stack.enter_context(
      Recorder(run.model_dir, resume_step=start or None, listener=listener)
    )
    if run.evaluate_first and start == 0:
      recorder.write(0, run_evaluations(0))
    progress = Progress(run.train_steps, start, folder.name)
    stack.enter_context(progress)
    for step in range(start, run.train_steps):
      with recorder.timer("data"):
        batch = jax.device_put(run.loader.batch(step), batch_sharding)
      stats: dict[str, metrics.Mean] = {}
      if run.rollout is not None:
        with recorder.timer("sample"):
          batch, stats = roll_out(
            batch,
            step=step,
            seed=run.seed,
            plan=run.rollout,
            student=run.student,
            student_params=state.params,
            teacher=run.teacher,
            teacher_params=teacher_params,
          )
          jax.block_until_ready(batch)
      with recorder.timer("update"):
        state, parts = update_step(
          plan, state, scoring_params, batch, np.int32(run.seed)
        )
        parts = jax.device_get(parts)
      done = step + 1
      if parts["finite"].compute() != 1.0:
        recorder.flush()  # the good steps have a line of their own
        recorder.add(done, stats | parts)
        raise _not_finite(parts, step, run)
      recorder.add(done, stats | parts)
      last = done == run.train_steps
      progress.update(1, {"loss": parts["loss"].compute()})
      if _due(done, run.sample_period):
        recorder.writers.samples(
          done,
          dumps.describe(
            batch, run.loader.cache.vocabulary, run.teacher, teacher_params
          ),
        )
      evaluating = last or _due(done, run.eval_period)
      saving = last or _due(done, run.checkpoint_period)
      evaluated = run_evaluations(done) if evaluating else {}
      if saving:
        # Begun before the line is written, which then has its time; complete
        # only after it, so that a run resumed from here has the line.
        with recorder.timer("checkpoint"):
          store.save(done, state)
      # A report at every evaluation and save: records then never span one, so
      # a resumed run writes the same lines as a straight one, each step once.
      if _due(done, run.report_period) or evaluating or saving:
        recorder.write(done, evaluated)
  return state


def _due(done: int, period: int) -> bool:
  """Whether something of this period happens after `done` steps; 0: never."""
  return bool(period) and done % period == 0


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
