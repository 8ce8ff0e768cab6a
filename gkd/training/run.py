"""What a training run is made of: objects and numbers, checked when built."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from pathlib import Path
from typing import Any

import jax

from gkd import masks
from gkd import partitioning
from gkd import trees
from gkd.checkpoints.retention import PreservationPolicy
from gkd.data.loader import Loader
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.metric_infos import metric_infos
from gkd.losses.objective import Objective
from gkd.training import periods
from gkd.training.optimizer import Optimizer
from gkd.training.rollout import Rollout
from gkd.training.step import TrainStep
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import UserError

# Held while a process trains in the folder.
LOCK_FILE = ".lock"
_INDENT = "\n" + 11 * " "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One training run: objects and numbers, nothing to look up.

  Attributes:
    model_dir: folder of the run; made if missing, resumed if it has a
      checkpoint.
    student: the model that learns.
    student_params: its parameters before step 0, or what makes them: a run that
      is resumed never asks for them.
    student_slots: makes Adafactor's slots before step 0; None for empty ones.
      See `t5x_adafactor_state`. With `optimizer.restore`, and never without.
    teacher: the frozen model; None for supervised fine-tuning.
    teacher_params: its parameters.
    objective: what is minimised.
    rollout: who writes the targets of each step; None for fixed data alone.
    optimizer: update rule and schedule.
    loader: `batch(step)`.
    evaluations: run every `eval_period` steps, at log-spaced ones if asked for,
      and at the end.
    train_steps: steps of this run.
    seed: of data order, λ coin, rollouts and dropout.
    reduction: the loss normaliser, see `masks.coefficients`.
    micro_batches: parts of a batch that are scored one after the other.
    mesh: devices; None for all of them on the data axis.
    report_period: steps between lines of metrics.jsonl.
    eval_period: steps between evaluations; 0 for the last step alone.
    eval_log_steps: also evaluate at so many steps a decade, see
      `periods.log_spaced`; 0 for none.
    evaluate_first: also evaluate before the first step.
    checkpoint_period: steps between checkpoints; 0 for the last step alone.
    sample_period: steps between dumps of the batch as trained; 0 for none.
    preservation: which checkpoints stay. The best are chosen among those whose
      step was evaluated.
    config_text: the operative configuration, kept as config.gin.
    about: JSON of what the run was made from, kept as run.json.
  """

  model_dir: str
  student: LanguageModel
  student_params: Params | Callable[[], Params]
  student_slots: Callable[[], Mapping[str, Any]] | None = None
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
  eval_log_steps: int = 0
  evaluate_first: bool = False
  checkpoint_period: int = 1000
  sample_period: int = 0
  preservation: PreservationPolicy = dataclasses.field(
    default_factory=PreservationPolicy
  )
  config_text: str = ""
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
    if bool(self.optimizer.restore) != (self.student_slots is not None):
      raise UserError(
        f"RESTORE_OPTIMIZER is {self.optimizer.restore} but the run has"
        f" {'no' if self.optimizer.restore else 'some'} slots; give both or"
        " neither"
      )
    if self.objective.needs_teacher and self.teacher is None:
      raise UserError(
        "the objective compares the student with a teacher but there is none;"
        " set TEACHER_CHECKPOINT_PATH or train by cross-entropy"
      )
    if self.report_period < 1:
      raise UserError(f"report_period is {self.report_period}; give 1 or more")
    needs_targets = self.rollout is None or self.rollout.needs_targets
    if needs_targets and not self.loader.has_targets:
      raise UserError(
        "this run trains on targets of the data set but the data has prompts"
        " only; set STUDENT_DATA_FRACTION to 1 or let the teacher write the"
        " rest (off_policy_source 'teacher')"
      )
    if self.preservation.best:
      self._check_best()

  @property
  def folder(self) -> Path:
    """`model_dir` as a path."""
    return Path(self.model_dir)

  @property
  def abstract_params(self) -> Params:
    """Shapes and types of the student's parameters."""
    return jax.eval_shape(self.student.init, jax.random.key(0))

  def initial_params(self) -> Params:
    """The student's parameters before step 0."""
    given = self.student_params
    return given() if callable(given) else given

  @property
  def plan(self) -> TrainStep:
    """The static part of an update.

    A teacher that the objective does not need stays out: to score it only for
    metrics would make each step of SeqKD as dear as one of distillation. The
    distances to it come from the evaluations.
    """
    return TrainStep(
      student=self.student,
      teacher=self.teacher if self.objective.needs_teacher else None,
      objective=self.objective,
      optimizer=self.optimizer,
      reduction=self.reduction,
      micro_batches=self.micro_batches,
    )

  def evaluates(self, done: int) -> bool:
    """Whether the evaluations run after `done` steps."""
    if done == 0:
      scheduled = self.evaluate_first
    else:
      scheduled = (
        done == self.train_steps
        or periods.due(done, self.eval_period)
        or periods.log_spaced(done, self.eval_log_steps)
      )
    return scheduled and bool(self.evaluations)

  def saves(self, done: int) -> bool:
    """Whether a checkpoint is due after `done` steps."""
    return done > 0 and (
      done == self.train_steps or periods.due(done, self.checkpoint_period)
    )

  def _check_best(self) -> None:
    """Refuses to look for the best where there will be nothing to choose."""
    names = [
      name
      for evaluation in self.evaluations
      for name in metric_infos(evaluation, teacher=self.teacher is not None)
    ]
    if self.preservation.metric not in names:
      raise UserError(
        f"BEST_METRIC is {self.preservation.metric!r}, which no evaluation of"
        f" this run reports; choose one of"
        f" {', '.join(names) or 'an evaluated run'}"
      )
    period = self.checkpoint_period or self.train_steps
    saved = range(period, self.train_steps, period)
    if not any(self.evaluates(done) for done in saved):
      raise UserError(
        f"KEEP_BEST is {self.preservation.best} but no checkpoint before the"
        f" last is evaluated: CHECKPOINT_PERIOD is {self.checkpoint_period},"
        f" EVAL_PERIOD {self.eval_period}, TRAIN_STEPS {self.train_steps}; make"
        " one period a multiple of the other"
      )

  def describe(self) -> str:
    """The run in words, printed before anything is compiled."""
    count = trees.num_parameters
    lines = [f"student:   {count(self.abstract_params):,} parameters"]
    if self.teacher is not None:
      lines.append(f"teacher:   {count(self.teacher_params):,} parameters")
    data = (
      self.rollout.describe() if self.rollout else "fixed data, as in the cache"
    )
    lines += [
      f"objective: {self.objective.describe()}",
      f"targets:   {data}",
      f"reduction: {self.reduction}",
      f"optimizer: {self.optimizer.describe()}",
      f"data:      {_INDENT.join(self.loader.words.splitlines())}",
      f"steps:     {self.train_steps:,} of batch {self.loader.batch_size}",
      f"folder:    {self.model_dir}",
    ]
    return "\n".join(lines)
