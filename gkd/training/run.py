"""What a training run is made of: objects and numbers, checked when built.

Usage:
  run = Run(
    model_dir="runs/gkd",
    roles={"student": Model(lm, params), "teacher": Model(teacher, weights)},
    objective=Distillation(ReverseKL()),
    rollout=Rollout(student_fraction=1.0),
    optimizer=…,
    loader=…,
    train_steps=1000,
  )
  loop.train(run)
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax

from gkd import files
from gkd import masks
from gkd import partitioning
from gkd import structured_settings
from gkd import trees
from gkd import watchdog
from gkd.checkpoints.retention import PreservationPolicy
from gkd.data.loader import Loader
from gkd.evaluation import metric_infos
from gkd.evaluation.evaluation import Evaluation
from gkd.losses.objective import Objective
from gkd.metric_fields import MetricInfo
from gkd.models import vocabulary_check
from gkd.sampling.generate import forbidden_ids
from gkd.structured_settings import setting
from gkd.training import length_buckets
from gkd.training import periods
from gkd.training import schedules
from gkd.training import scoring
from gkd.training import self_teacher
from gkd.training import teacher_per_row
from gkd.training.guard import FOLLOWED
from gkd.training.guard import Guard
from gkd.training.optimizer import Optimizer
from gkd.training.periods import Periods
from gkd.training.rollout import Rollout
from gkd.training.schedules import Adaptive
from gkd.training.scoring import Scoring
from gkd.training.step import TrainStep
from gkd.training.trackers import Tracker
from gkd.types import Model
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
    roles: the models: "student", which learns, "teacher", which may be missing
      or made of it (`teacher_decay`), and frozen ones that evaluations measure
      distances to and that the objective may name. The student's parameters
      are those before step 0: a run that is resumed never asks for them.
    student_slots: makes Adafactor's slots before step 0, see
      `t5x_adafactor_state`; None for empty ones. With `optimizer.restore`, and
      never without.
    objective: what is minimised.
    rollout: who writes the targets of each step; None for fixed data alone.
    scoring: the reward of what the student writes, where the objective needs
      one; evaluations have their own.
    optimizer: update rule and schedule.
    loader: `batch(step)`.
    evaluations: what is evaluated, when `periods` say so and at the end.
    train_steps: steps of this run.
    seed: of λ coin, rollouts and dropout; the loader has that of the data.
    reduction: the loss normaliser, see `masks.coefficients`.
    micro_batches: parts of a batch that are scored one after the other.
    length_buckets: lengths that a batch may be cut to, see `length_buckets`.
    mesh: devices; None for all of them on the data axis.
    periods: when the run reports, evaluates, saves and dumps samples.
    preservation: which checkpoints stay. The best are chosen among those whose
      step was evaluated.
    teacher_decay: of a teacher that is made of the student, and that `roles`
      have not; see `self_teacher`. It reads prompts of its own where the data
      has them. None for a frozen one or none.
    skip_non_finite: so many updates whose loss or gradient is not finite are
      left out; the run stops at the next one.
    watchdog_seconds: without progress for so long the run is stuck, see
      `watchdog`; 0 for no limit.
    guard: what happens when the student seems to hack the teacher.
    tracker: where the run's records go beside its own files.
    config_text: the operative configuration, kept as config.gin.
    about: more JSON for run.json, such as the facts of a model card.
  """

  model_dir: str = dataclasses.field(compare=False)
  roles: Mapping[str, Model] = dataclasses.field(compare=False)
  student_slots: Callable[[], Mapping[str, Any]] | None = dataclasses.field(
    default=None, compare=False
  )
  objective: Objective = setting("OBJECTIVE")
  rollout: Rollout | None = setting("ROLLOUT", default=None)
  scoring: Scoring | None = setting("SCORING", default=None)
  optimizer: Optimizer = setting("OPTIMIZER")
  loader: Loader = dataclasses.field(compare=False)
  evaluations: Sequence[Evaluation] = setting(
    "EVAL_", may_change=True, default=()
  )
  train_steps: int = setting("TRAIN_STEPS", may_change=True)
  seed: int = setting("RANDOM_SEED", default=0)
  reduction: masks.Reduction = setting("REDUCTION", default="sequence")
  micro_batches: int = setting("MICRO_BATCHES", default=1)
  length_buckets: int = setting("LENGTH_BUCKETS", default=1)
  teacher_decay: float | None = setting("TEACHER_DECAY", default=None)
  mesh: jax.sharding.Mesh | None = dataclasses.field(
    default=None, compare=False
  )
  periods: Periods = setting("", may_change=True, default_factory=Periods)
  preservation: PreservationPolicy = setting(
    "KEEP", may_change=True, default_factory=PreservationPolicy
  )
  skip_non_finite: int = setting("SKIP_NON_FINITE", may_change=True, default=0)
  watchdog_seconds: float = dataclasses.field(
    default=watchdog.STUCK_SECONDS, compare=False
  )
  guard: Guard = setting("GUARD", may_change=True, default=Guard())
  tracker: Tracker | None = dataclasses.field(default=None, compare=False)
  config_text: str = dataclasses.field(default="", compare=False)
  about: Mapping[str, Any] = dataclasses.field(
    default_factory=dict, compare=False
  )

  def __post_init__(self):
    folder = str(files.local_path(self.model_dir))
    object.__setattr__(self, "model_dir", folder)
    if self.mesh is None:
      object.__setattr__(self, "mesh", partitioning.make_mesh())
    object.__setattr__(self, "roles", self._all_roles())
    partitioning.check_division(
      self.loader.batch_size, self.micro_batches, self.mesh
    )
    length_buckets.check(self.length_buckets)
    for evaluation in self.evaluations:
      partitioning.check_division(
        evaluation.batch_size, 1, self.mesh, "EVAL_BATCH_SIZE"
      )
    for role, model in self.roles.items():
      vocabulary_check.check(role, model.lm, self.loader.vocabulary)
    self._check_privileged()
    given = self.scoring, self.objective, self.rollout, self.reduction
    scoring.check(*given, self.loader.samples_per_prompt)
    for name in ("objective", "rollout", "optimizer", "scoring"):
      structured_settings.require_comparable(getattr(self, name), name.upper())
    if self.optimizer.restore != (self.student_slots is not None):
      raise UserError(
        f"RESTORE_OPTIMIZER is {self.optimizer.restore} but the run has"
        f" {'no' if self.optimizer.restore else 'some'} slots; give both or"
        " neither"
      )
    teacher_per_row.check(
      self.loader.teachers,
      self.roles,
      self.objective.roles,
      writes=self.rollout is not None and self.rollout.uses_teacher,
    )
    for role in self.objective.roles:
      if role not in self.train_step.frozen:
        raise UserError(
          f"the objective compares the student with a model {role!r} but there"
          " is none; set TEACHER_CHECKPOINT_PATH (another model: as in"
          " methods/rlef.gin) or train by cross-entropy"
        )
    needs_targets = self.rollout is None or self.rollout.needs_targets
    if needs_targets and (missing := self.loader.missing_targets):
      raise UserError(
        f"this run trains on targets of the data set but {missing}; give other"
        " data or a Loader with needs_targets=True, which leaves such rows out,"
        " set STUDENT_DATA_FRACTION to 1, or let the teacher write the rest"
        " (off_policy_source 'teacher')"
      )
    if self.rollout is not None:  # the padding is never generated
      self.rollout.check_num_ids(self.loader.vocabulary.size - 1)
      self.rollout.check_teacher(self.teacher)
    if self.preservation.best:
      self._check_best()
    self._check_guard()
    self._check_fraction()

  @property
  def folder(self) -> Path:
    """`model_dir` as a path."""
    return Path(self.model_dir)

  @property
  def student(self) -> Model:
    """The model that learns, with its parameters before step 0."""
    return self.roles["student"]

  @property
  def teacher(self) -> Model | None:
    """The teacher of all rows, frozen or made of the student, if any."""
    return self.roles.get("teacher")

  @property
  def frozen_roles(self) -> list[str]:
    """The models whose parameters never change, by role."""
    made = {"student"} if self.teacher_decay is None else {"student", "teacher"}
    return [role for role in self.roles if role not in made]

  def initial_params(self) -> Params:
    """The student's parameters before step 0."""
    params = self.student.params
    return params() if callable(params) else params

  @property
  def train_step(self) -> TrainStep:
    """The static part of an update.

    A teacher that the objective does not need stays out: to score it only for
    metrics would make each step of SeqKD as dear as one of distillation. The
    distances to it come from the evaluations.
    """
    return TrainStep(
      student=self.student.lm,
      frozen=teacher_per_row.scoring_models(
        self.objective.roles, self.roles, self.loader.teachers, self.mesh
      ),
      objective=self.objective,
      optimizer=self.optimizer,
      reduction=self.reduction,
      micro_batches=self.micro_batches,
      mesh=self.mesh,
      forbidden_ids=forbidden_ids(
        self.student.lm.start_id, self.loader.vocabulary
      ),
      teacher_decay=self.teacher_decay,
    )

  @functools.cached_property
  def metric_infos(self) -> dict[str, MetricInfo]:
    """What each value of the evaluations is, by its name."""
    return metric_infos.metric_infos(self.evaluations, self.roles)

  @property
  def followed_metric(self) -> str:
    """The distance to a frozen teacher that the guard follows; "" for none."""
    if self.guard.mode == "off" or "teacher" not in self.frozen_roles:
      return ""
    return self.guard.metric or self._first_distance

  @property
  def fraction_metric(self) -> str:
    """What an adaptive student fraction follows; "" without one."""
    schedule = self.rollout and self.rollout.schedule
    if not isinstance(schedule, Adaptive):
      return ""
    return schedule.metric or self._first_distance

  @property
  def _first_distance(self) -> str:
    """The forward KL to the teacher per token; "" if it is not evaluated."""
    distances = (x for x in self._distances if f"/{FOLLOWED}_per_token" in x)
    return next(distances, "")

  @property
  def _distances(self) -> list[str]:
    """The token-summed distances to the teacher, per token, by name."""
    return [
      name
      for name, info in self.metric_infos.items()
      if info.role == "student" and info.compared_with == "teacher"
      if info.metric.endswith("_per_token") and "log_ratio" not in info.metric
    ]

  def evaluates(self, done: int) -> bool:
    """Whether the evaluations run after `done` steps."""
    due = self.periods.evaluates(done, self.train_steps)
    return due and bool(self.evaluations)

  def saves(self, done: int) -> bool:
    """Whether a checkpoint is due after `done` steps."""
    return self.periods.saves(done, self.train_steps)

  def is_due(self, done: int) -> bool:
    """Whether anything is written after `done` steps."""
    return (
      periods.due(done, self.periods.report)
      or periods.due(done, self.periods.sample)
      or self.evaluates(done)
      or self.saves(done)
    )

  def _all_roles(self) -> dict[str, Model]:
    """The models over the mesh, with a teacher that is made of the student."""
    roles = {
      role: dataclasses.replace(
        model, lm=partitioning.partitioned(model.lm, self.mesh)
      )
      for role, model in self.roles.items()
    }
    if self.teacher_decay is None:
      return roles
    decay, read = self.teacher_decay, self.loader.lengths
    made = self_teacher.made(decay, roles, self.objective.roles, read)
    return {"student": roles["student"], "teacher": made, **roles}

  def _check_guard(self) -> None:
    has_teacher = "teacher" in self.frozen_roles
    self.guard.check(
      self.followed_metric,
      self._distances if has_teacher else (),
      has_teacher=has_teacher,
      has_rollout=self.rollout is not None,
      trains_on_distance="teacher" in self.objective.roles,
    )

  def _check_privileged(self) -> None:
    """Refuses prompts of a teacher that no model or no row would have."""
    reads = any(model.lm.privileged for model in self.roles.values())
    if reads != ("teacher_inputs" in self.loader.lengths):
      raise UserError(
        "a privileged teacher and data with its prompts go together, but there"
        f" is no such {'data' if reads else 'model'}; give both (TEACHER_TASK,"
        " TEACHER_INPUTS or TEACHER_CACHE), or leave 'teacher_inputs' of"
        " TASK_FEATURE_LENGTHS and the others out"
      )

  def _check_fraction(self) -> None:
    """Refuses an adaptive student fraction that nothing would ever raise."""
    if self.rollout is None or not isinstance(self.rollout.schedule, Adaptive):
      return
    falling = [n for n, x in self.metric_infos.items() if x.direction == "min"]
    evaluated = sum(map(self.evaluates, range(self.train_steps)))
    schedules.check_followed(self.fraction_metric, falling, evaluated)

  def _check_best(self) -> None:
    """Refuses to look for the best where there will be nothing to choose."""
    names = self.metric_infos
    if self.preservation.metric not in names:
      raise UserError(
        f"BEST_METRIC is {self.preservation.metric!r}, which no evaluation of"
        f" this run reports; choose one of"
        f" {', '.join(names) or 'an evaluated run'}"
      )
    period = self.periods.checkpoint or self.train_steps
    saved = range(period, self.train_steps, period)
    if not any(self.evaluates(done) for done in saved):
      raise UserError(
        f"KEEP_BEST is {self.preservation.best} but no checkpoint before the"
        f" last is evaluated: CHECKPOINT_PERIOD is {self.periods.checkpoint},"
        f" EVAL_PERIOD {self.periods.eval}, TRAIN_STEPS {self.train_steps};"
        " make one period a multiple of the other"
      )

  def describe(self) -> str:
    """The run in words, printed before anything is compiled."""
    count = trees.num_parameters
    lines = [
      f"{role + ':':11}{count(model.lm.abstract_params):,} parameters"
      for role, model in self.roles.items()
    ]
    if self.teacher_decay is not None:
      lines[1] += f", {self_teacher.describe(self.teacher_decay)}"
    data = (
      self.rollout.describe(self.loader.targets)
      if self.rollout
      else "fixed data, as in the cache"
    )
    first = self.optimizer.schedule.begins_at
    last = first + self.train_steps
    if self.objective.needs_advantages:
      lines.append(f"reward:    {self.scoring.describe()}")
    if self.followed_metric:
      followed = f"{self.guard.describe()}, of {self.followed_metric}"
      lines.append(f"guard:     {followed}")
    lines += [
      f"objective: {self.objective.describe()}",
      f"targets:   {data}",
      f"reduction: {self.reduction}",
      f"optimizer: {self.optimizer.describe()}",
      f"data:      {_INDENT.join(self.loader.describe().splitlines())}",
      f"steps:     {self.train_steps:,} of this run, absolute steps {first:,}"
      f" to {last:,}, of batch {self.loader.batch_size}",
      f"folder:    {self.model_dir}",
    ]
    return "\n".join(lines)
