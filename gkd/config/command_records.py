"""Records of the commands: what `gkd train`, `evaluate` and `sample` read.

Objects (models, objective, rollout, optimizer) come in built; numbers and names
stay plain, so that everything is checked before anything is compiled. `idle`
lists the macros that have no effect in a run; flags for them are refused.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import Any
from typing import Literal

import jax

from gkd import masks
from gkd import partitioning
from gkd.checkpoints.retention import PreservationPolicy
from gkd.config.model_spec import FromCheckpoint
from gkd.config.model_spec import Role
from gkd.config.records import MODULE_MACROS
from gkd.config.records import MOST_DRAWS
from gkd.config.records import MOST_ROWS
from gkd.config.records import DataConfig
from gkd.config.records import EvalConfig
from gkd.config.records import Idle
from gkd.config.records import at_least_one
from gkd.config.records import check_range
from gkd.config.records import check_seed
from gkd.config.records import idle_in_caches
from gkd.losses.objective import Objective
from gkd.losses.weighted_sum import WeightedSum
from gkd.models import registry
from gkd.models.kept_layers import EveryKth
from gkd.models.kept_layers import KeepLayers
from gkd.models.kept_layers import LayerChoice
from gkd.rewards.reward import Reward
from gkd.rewards.reward import RewardModel
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.sampling.strategies import Strategy
from gkd.training.guard import Guard
from gkd.training.optimizer import Optimizer
from gkd.training.periods import Periods
from gkd.training.rollout import Rollout
from gkd.training.run import Run
from gkd.training.scoring import Scoring
from gkd.training.trackers import Tracker
from gkd.types import UserError

_SAMPLING = ("SAMPLING_TEMPERATURE", "SAMPLING_TOP_K", "SAMPLING_TOP_P")
_GREEDY = "SAMPLING_TEMPERATURE is 0, which is greedy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnDevices:
  """What every command that runs models says of its devices."""

  model_parallelism: int = 1
  fsdp_parallelism: int = 1

  def mesh(
    self, devices: Sequence[jax.Device] | None = None
  ) -> jax.sharding.Mesh:
    """The mesh of these devices; None for all."""
    return partitioning.make_mesh(
      self.model_parallelism, devices, fsdp=self.fsdp_parallelism
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(_OnDevices):
  """`gkd train`; see `configs/runs/train.gin` and `distill.gin`.

  Attributes:
    teachers: the checkpoint of the teacher of each task of a mixture, or of
      each that rows name; otherwise they are as `teacher`. None for one teacher
      of all rows.
    compared_with: further frozen models by role, which evaluations measure the
      distances to.
    every_kth_layer: of the student's checkpoint or, where it has none, of the
      teacher's, take layers 0, k, 2k, …; (k of the encoder, k of the decoder),
      or None for all.
    keep_layers: of the same, take these layers; see `kept_layers.KeepLayers`.
    scoring: the reward of the student's texts, that of evaluations as well.
    samples_per_prompt: rows of a batch that have one prompt.
    evaluation: None never evaluates.
  """

  model_dir: str
  student: Role
  every_kth_layer: int | Sequence[int] | None = None
  keep_layers: str | Sequence[Any] | None = None
  teacher: Role | None = None
  teachers: Mapping[str, str] | None = None
  compared_with: Mapping[str, Role] = dataclasses.field(default_factory=dict)
  objective: Objective
  rollout: Rollout | None = None
  scoring: Scoring | None = None
  optimizer: Optimizer
  data: DataConfig
  batch_size: int
  samples_per_prompt: int = 1
  evaluation: EvalConfig | None = None
  train_steps: int
  seed: int = Run.seed
  reduction: masks.Reduction = Run.reduction
  micro_batches: int = Run.micro_batches
  length_buckets: int = Run.length_buckets
  teacher_decay: float | None = Run.teacher_decay
  periods: Periods = dataclasses.field(default_factory=Periods)
  preservation: PreservationPolicy = dataclasses.field(
    default_factory=PreservationPolicy
  )
  skip_non_finite: int = Run.skip_non_finite
  watchdog_seconds: float = Run.watchdog_seconds
  guard: Guard = Run.guard
  tracker: Tracker | None = None

  def __post_init__(self):
    check_range(1, MOST_ROWS, BATCH_SIZE=self.batch_size)
    check_seed(self.seed)
    if not self.model_dir:
      raise UserError("MODEL_DIR is empty; give the folder of the run")
    if self.rollout is not None:
      self.rollout.check_teacher(self.teacher)
    if self.layers is not None:
      self._check_layers()
    given = {
      "TEACHER_CHECKPOINT_PATH": self.teacher and self.teacher.checkpoint,
      "TEACHER_DECAY": self.teacher_decay,
      "TEACHERS": self.teachers,
    }
    given = {name: x for name, x in given.items() if x not in (None, "")}
    if len(given) > 1:
      listed = " and ".join(f"{name} {x!r}" for name, x in given.items())
      raise UserError(f"{listed} are all given; leave all but one out")
    _ = self.roles  # refuses names

  @property
  def roles(self) -> dict[str, Role]:
    """The models by role, without a teacher that is made of the student.

    Each of TEACHERS has the role of its name.
    """
    own = dict.fromkeys(self.teachers or (), self.teacher)
    _check_names(own)
    if both := sorted(own.keys() & self.compared_with.keys()):
      raise UserError(
        f"TEACHERS and compared_with both have {both}; a model has one name,"
        " give each another"
      )
    roles = _roles(self, self.data)
    if self.teacher_decay is not None or own:
      teacher = roles.pop("teacher")
      roles |= {
        name: dataclasses.replace(
          teacher, checkpoint=self.teachers[name], macro=f"TEACHERS[{name!r}]"
        )
        for name in own
      }
    return roles

  @property
  def layers(self) -> LayerChoice | None:
    """The layers that the student starts from; None for all."""
    if self.every_kth_layer is not None:
      return EveryKth(self.every_kth_layer)
    return None if self.keep_layers is None else KeepLayers(self.keep_layers)

  def _check_layers(self) -> None:
    """Refuses a choice of layers where there is nothing to choose from."""
    model, value = self.student.model, self.every_kth_layer or self.keep_layers
    if self.every_kth_layer is not None and self.keep_layers is not None:
      reason = " and KEEP_LAYERS is given too; leave one of the two out"
    elif not self.student.checkpoint and self.teacher is None:
      reason = (
        " but the student starts from random weights; give"
        " INITIAL_CHECKPOINT_PATH, or a teacher"
      )
    elif not isinstance(model, FromCheckpoint):
      macro = registry.macro_of("student", registry.family_of(model.config))
      reason = (
        f" and {macro} is given: the sizes follow from the layers; leave one of"
        " the two out"
      )
    elif self.optimizer.restore:
      reason = (
        " and RESTORE_OPTIMIZER is True, but the checkpoint's slots belong to"
        " all its layers; leave RESTORE_OPTIMIZER out"
      )
    else:
      return
    raise UserError(f"{self.layers.macro} is {value!r}{reason}")

  def idle(self) -> Idle:
    """Macros that have no effect in this run."""
    splits = self.evaluation.splits if self.evaluation else []
    yield from idle_in_caches(self.data, splits)
    if self.evaluation:
      own = ("teacher",) if self.teacher else ()
      yield from self.evaluation.idle({*self.roles, *own})
    distances = self.evaluation.distances if self.evaluation else ()
    yield from self.guard.idle(distances, self._no_followed_teacher)
    if self.teachers:
      why = "each of TEACHERS scores rows of its own, and none answers"
      yield ["EVAL_TEACHER"], why
    yield from self._idle_in_terms()
    if self.teacher_decay is not None:
      macros = ("MODEL", "DTYPE", "PARTITIONING", "MEMORY")
      why = "TEACHER_DECAY is given and the teacher is made of the student"
      yield [f"TEACHER_{name}" for name in macros], why
    if self.rollout is None:
      return
    schedule, source = self.rollout.schedule, self.rollout.off_policy_source
    if schedule.maximum == 0 and source == "dataset":
      yield _SAMPLING, "STUDENT_DATA_FRACTION is 0 and no step samples"
    elif not self.rollout.decoding.is_random:
      yield _SAMPLING[1:], _GREEDY
    if schedule.maximum == 0:
      why = "STUDENT_DATA_FRACTION is 0 and the student writes nothing"
      writing = ["PROPOSAL", "ROLLOUT_HORIZON", "ROLLOUT_STALENESS"]
      yield [*writing, "SAMPLING_DTYPE"], why
    if not self.rollout.keeps_log_probs:
      why = "without a PROPOSAL, ROLLOUT_STALENESS or SAMPLING_DTYPE it is 1"
      yield ["RATIO_CLIP"], why
    if schedule.maximum == 0 or schedule.minimum == 1:
      why = "at a STUDENT_DATA_FRACTION of 0 or 1 there is nothing to draw"
      yield ["MIXING"], why
      why = "at a STUDENT_DATA_FRACTION of 0 or 1 all text has one source"
      yield ["STUDENT_DIVERGENCE", "STUDENT_WEIGHT"], why

  @property
  def _no_followed_teacher(self) -> str:
    """Why the guard has no distance to follow; "" where it has."""
    if self.teachers:
      return "TEACHERS are several, and it follows the distance to one"
    if self.teacher_decay is not None:
      return "TEACHER_DECAY is given, and the teacher moves with the student"
    return "" if self.teacher else "there is no teacher"

  def _idle_in_terms(self) -> Idle:
    """Macros of rewards, and of what a sum of objectives is made of."""
    objective = self.objective
    terms = objective.active if isinstance(objective, WeightedSum) else []
    if len(terms) < 2:
      why = "the objective is not a sum of several terms"
      yield ["GRADIENT_SHARE_PERIOD"], why
    if not objective.needs_advantages:
      yield ["REWARD_SCALE", "BASELINE"], "nothing is learned from a reward"
    if not objective.roles:
      yield ["ANCHOR_SHARE"], "the objective compares with no frozen model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(_OnDevices):
  """`gkd evaluate`; see `configs/runs/evaluate.gin` and `TrainConfig`."""

  output: str
  student: Role
  teacher: Role | None = None
  compared_with: Mapping[str, Role] = dataclasses.field(default_factory=dict)
  evaluation: EvalConfig
  reward: Reward | RewardModel | None = None
  seed: int = Run.seed

  def __post_init__(self):
    check_seed(self.seed)
    if not self.output:
      raise UserError("MODEL_DIR is empty; give the folder of the results")

  @property
  def roles(self) -> dict[str, Role]:
    """The models by role."""
    return _roles(self, self.evaluation.data)

  def idle(self, *, through_seqio: bool = False) -> Idle:
    """Macros that have no effect; seqio reads TASK_MODULE from caches too."""
    unread = MODULE_MACROS if through_seqio else ()
    for names, why in idle_in_caches(None, self.evaluation.splits):
      yield [name for name in names if name not in unread], why
    yield from self.evaluation.idle(self.roles)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig(_OnDevices):
  """`gkd sample`; see `configs/runs/sample.gin`."""

  output: str
  student: Role
  data: DataConfig
  decoding: SamplingParams = dataclasses.field(default_factory=SamplingParams)
  num_samples: int = 1
  beam_size: int = 0
  beam_alpha: float = BeamSearch.alpha
  batch_size: int = 32
  seed: int = Run.seed
  writer: Literal["teacher", "student"] = "teacher"
  shard_prompts: int | None = None

  def __post_init__(self):
    if not self.output:
      raise UserError("OUTPUT_DIR is empty; give the folder to write")
    check_range(1, MOST_DRAWS, NUM_SAMPLES=self.num_samples)
    check_range(1, MOST_ROWS, BATCH_SIZE=self.batch_size)
    at_least_one(SHARD_PROMPTS=self.shard_prompts)
    check_seed(self.seed)
    if "teacher_inputs" in self.data.lengths:
      raise UserError(
        "gkd sample reads one prompt a row, but TASK_FEATURE_LENGTHS has"
        " 'teacher_inputs'; leave it and TEACHER_… out, and for text of a"
        " privileged teacher name its task in MIXTURE_OR_TASK_NAME"
      )
    self.strategy.validate()
    if self.beam_size and self.num_samples > self.beam_size:
      raise UserError(
        f"NUM_SAMPLES is {self.num_samples} but BEAM_SIZE {self.beam_size}"
        f" finds at most {self.beam_size} completions of a prompt; raise"
        " BEAM_SIZE"
      )
    if self.num_samples > 1 and not (self.beam_size or self.decoding.is_random):
      raise UserError(
        f"NUM_SAMPLES is {self.num_samples} but greedy completions are all the"
        " same; give a SAMPLING_TEMPERATURE above 0, or a BEAM_SIZE"
      )

  @property
  def strategy(self) -> Strategy:
    """How completions come about."""
    if self.beam_size:
      return BeamSearch(self.beam_size, self.beam_alpha)
    return self.decoding

  def idle(self) -> Idle:
    """Macros that have no effect."""
    yield from idle_in_caches(self.data)
    if self.beam_size:
      why = f"BEAM_SIZE is {self.beam_size}, and a beam search draws nothing"
      yield _SAMPLING, why
      return
    yield ["BEAM_ALPHA"], "BEAM_SIZE is 0, so there is no beam search"
    if not self.decoding.is_random:
      yield _SAMPLING[1:], _GREEDY


def _check_names(roles: Iterable[str]) -> None:
  """Refuses roles that cannot be part of a metric's name, or are taken."""
  for role in roles:
    if role in ("student", "teacher") or not re.fullmatch(r"[a-z]\w*", role):
      raise UserError(
        f"compared_with or TEACHERS has {role!r}; expected a name such as"
        " 'judge', in small letters, other than student and teacher"
      )


def _roles(
  config: TrainConfig | EvaluateConfig, data: DataConfig
) -> dict[str, Role]:
  """The models that there are, by role.

  Raises:
    UserError: a role of `compared_with` cannot be part of a metric's name.
  """
  own = {"student": config.student} | (
    {"teacher": config.teacher} if config.teacher else {}
  )
  _check_names(config.compared_with)
  roles = own | dict(config.compared_with)
  if not data.teacher_prompts.macros:
    return roles
  return {
    role: dataclasses.replace(of_role, privileged=role.startswith("teacher"))
    for role, of_role in roles.items()
  }
