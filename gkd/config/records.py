"""What a gin file describes: the records that the commands read.

Objects (models, objective, rollout, optimizer) come in built; numbers and names
stay plain, so that everything can be checked before anything is compiled.
Attributes named like a T5X macro mean the same; see `configs/runs/`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses

from gkd import masks
from gkd.checkpoints.retention import Mode
from gkd.checkpoints.retention import PreservationPolicy
from gkd.config import checks
from gkd.config import decoding
from gkd.config.also import named
from gkd.config.model_spec import Model
from gkd.data.subset import Subset
from gkd.evaluation.bootstrap import RESAMPLES
from gkd.losses.objective import Objective
from gkd.sampling.strategies import Strategy
from gkd.training.optimizer import Optimizer
from gkd.training.rollout import Rollout
from gkd.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
  """One split of one task, tokenised.

  Attributes:
    task: name of a seqio task, MIXTURE_OR_TASK_NAME.
    split: its split; of a TFDS task also a slice, "train[:90%]".
    lengths: TASK_FEATURE_LENGTHS, {"inputs": I, "targets": T}.
    module: module that registers the task; only read when a cache is made.
    vocabulary: "bytes", "characters:…", a SentencePiece file, relative to the
      working folder or to the data folder, or a folder with a tokenizer;
      "" or None takes that of the model's checkpoint.
    extra_ids: T5's sentinels at the end (100 for T5); a folder says its own.
    overlong: "truncate" rows beyond `lengths` (counted) or "refuse" them.
    cache: folder of a token cache to read instead, several to mix, or folders
      with their rates; "" finds or makes the one of task, split, lengths and
      vocabulary.
    mixture: MIXTURE, tasks of `module` with their rates, instead of `task`.
    limit: use only so many rows, TRAIN_LIMIT; None for all.
    fraction: use only this share of the rows, TRAIN_FRACTION; None for all.
    targets_per_prompt: the first so many targets of each prompt; None takes
      rows as they come.
    subset_seed: draws the rows in use; None for the seed of the run.
  """

  task: str
  split: str
  lengths: Mapping[str, int]
  module: str = ""
  vocabulary: str | None = ""
  extra_ids: int = 0
  overlong: str = "truncate"
  cache: str | Sequence[str] | Mapping[str, float] = ""
  mixture: Mapping[str, float] | None = None
  limit: int | None = None
  fraction: float | None = None
  targets_per_prompt: int | None = None
  subset_seed: int | None = None

  @property
  def subset(self) -> Subset:
    """The part of the rows that is used."""
    return Subset(
      limit=self.limit,
      fraction=self.fraction,
      targets_per_prompt=self.targets_per_prompt,
      seed=self.subset_seed,
    )

  def __post_init__(self):
    _ = self.subset  # what cannot be is refused now
    if sorted(self.lengths) != ["inputs", "targets"] or not all(
      length >= 1 for length in self.lengths.values()
    ):
      raise UserError(
        f"TASK_FEATURE_LENGTHS is {dict(self.lengths)}; expected"
        " {'inputs': I, 'targets': T} with lengths of at least 1"
      )
    if not self.cache and not self.task:
      raise UserError(
        "MIXTURE_OR_TASK_NAME is empty; give the name of a task or the folder"
        " of a token cache"
      )
    if self.mixture is not None and self.cache:
      raise UserError(
        f"MIXTURE and TRAIN_CACHE {self.cache!r} are both given; give one of"
        " the two: TRAIN_CACHE takes folders with their rates as well"
      )
    if self.mixture is not None and not self.mixture:
      raise UserError(
        "MIXTURE is empty; give tasks with their rates, as {'gsm8k': 3,"
        " 'chain_addition': 1}, or None"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
  """How a model is evaluated by generation.

  Attributes:
    data: where the prompts and references are.
    also: more splits to evaluate on, see `gkd.config.also`; lengths and
      vocabulary are those of `data`.
    batch_size: prompts decoded at once.
    num_examples: the first examples of each split only; None for all.
    temperatures: one evaluation each; 0 is greedy.
    beam_size: one evaluation more, by a search with so many beams; 0 for none.
    beam_alpha: exponent of its length penalty.
    num_samples: answers to each prompt at temperatures above 0; metrics are
      means over them.
    chunk_size: target positions whose logits exist at once when the distance
      to a teacher is measured; None for all.
    bootstrap: resamples for the confidence intervals; 0 for none.
    teacher: also score the answers of the teacher, where there is one.
  """

  data: Data
  also: Sequence[str] = ()
  batch_size: int
  num_examples: int | None = None
  temperatures: Sequence[float] = (0.0,)
  beam_size: int = 0
  beam_alpha: float = 0.6
  num_samples: int = 1
  chunk_size: int | None = None
  bootstrap: int = RESAMPLES
  teacher: bool = True

  def __post_init__(self):
    checks.at_least_one("EVAL_BATCH_SIZE", self.batch_size)
    if self.bootstrap < 0:
      raise UserError(
        f"EVAL_BOOTSTRAP is {self.bootstrap}; give a number of resamples, or 0"
        " for no confidence intervals"
      )
    if len(set(self.also)) < len(self.also):
      raise UserError(f"EVAL_ALSO is {tuple(self.also)}; give each split once")
    _ = self.splits  # what cannot be read is refused now
    if self.data.mixture is not None or not isinstance(self.data.cache, str):
      raise UserError(
        "evaluation is of one task and split at a time; name one in EVAL_TASK,"
        " EVAL_SPLIT or EVAL_CACHE and the others in EVAL_ALSO"
      )
    if self.num_examples is not None:
      checks.at_least_one("EVAL_EXAMPLES", self.num_examples)
    checks.at_least_one("EVAL_SAMPLES", self.num_samples)
    if self.chunk_size is not None:
      checks.at_least_one("EVAL_CHUNK_SIZE", self.chunk_size)
    _ = self.ways

  @property
  def ways(self) -> list[Strategy]:
    """Of decoding, one evaluation each."""
    return decoding.evaluated(
      self.temperatures, self.beam_size, self.beam_alpha, self.num_samples
    )

  @property
  def splits(self) -> list[Data]:
    """`data`, then one for each entry of `also`."""
    more = (dataclasses.replace(self.data, **named(x)) for x in self.also)
    return [self.data, *more]


_PERIODS = [
  "EVAL_PERIOD",
  "EVAL_LOG_STEPS",
  "CHECKPOINT_PERIOD",
  "SAMPLE_PERIOD",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
  """`gkd train`: see `gkd.training.run.Run` for what is not said here.

  Attributes:
    initial_checkpoint: the student's parameters, INITIAL_CHECKPOINT_PATH; ""
      starts from random weights, and says so.
    every_kth_layer: of it, or of the teacher's if it is "", take layers 0, k,
      2k, …; (k of the encoder, k of the decoder), or None for all.
    teacher_checkpoint: TEACHER_CHECKPOINT_PATH.
    data: the training split.
    scoring: None never evaluates.
    model_parallelism: devices that share one copy of the parameters.
    keep: number of the newest checkpoints that stay.
    keep_every: those of such steps stay too; 0 for none.
    keep_best: number of the best ones that stay too; 0 for none.
    best_metric: what "best" means, "eval/gsm8k/accuracy".
    best_mode: "max" or "min" of it.
  """

  model_dir: str
  student: Model
  initial_checkpoint: str = ""
  every_kth_layer: int | Sequence[int] | None = None
  teacher: Model | None = None
  teacher_checkpoint: str = ""
  objective: Objective
  rollout: Rollout | None = None
  optimizer: Optimizer
  data: Data
  batch_size: int
  scoring: Scoring | None = None
  train_steps: int
  seed: int = 0
  reduction: masks.Reduction = "sequence"
  micro_batches: int = 1
  model_parallelism: int = 1
  report_period: int = 50
  eval_period: int = 1000
  checkpoint_period: int = 1000
  sample_period: int = 0
  keep: int = 3
  keep_every: int = 0
  keep_best: int = 0
  best_metric: str = ""
  best_mode: Mode = "max"
  evaluate_first: bool = False
  eval_log_steps: int = 0

  @property
  def kept(self) -> PreservationPolicy:
    """Which checkpoints stay."""
    return PreservationPolicy(
      latest=self.keep,
      every=self.keep_every,
      best=self.keep_best,
      metric=self.best_metric,
      mode=self.best_mode,
    )

  def __post_init__(self):
    checks.at_least_one("BATCH_SIZE", self.batch_size)
    checks.at_least_one("TRAIN_STEPS", self.train_steps)
    checks.at_least_one("MODEL_PARALLELISM", self.model_parallelism)
    checks.seed(self.seed)
    _ = self.kept  # what cannot be is refused now
    checks.at_least_one("REPORT_PERIOD", self.report_period)
    for name in _PERIODS:
      if (value := getattr(self, name.lower())) < 0:
        raise UserError(
          f"{name} is {value}; give a number of steps, or 0 for none"
        )
    if not self.model_dir:
      raise UserError("MODEL_DIR is empty; give the folder of the run")
    if self.teacher is not None and not self.teacher_checkpoint:
      raise UserError(
        "TEACHER_CHECKPOINT_PATH is empty but a teacher is configured; give"
        " the checkpoint of the teacher"
      )
    asks = self.rollout is not None and self.rollout.needs_teacher
    if asks and self.teacher is None:
      raise UserError(
        "FIXED_SOURCE is 'teacher' but there is no teacher; use"
        " runs/distill.gin and set TEACHER_MODEL and TEACHER_CHECKPOINT_PATH"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluating:
  """`gkd evaluate`.

  Attributes:
    output: folder of metrics.json and predictions/.
    model: the model to evaluate.
    checkpoint: its parameters.
    teacher: optional model to compare with: its score, the distances to it.
    teacher_checkpoint: its parameters.
    scoring: the task and how it is decoded.
    seed: of the draws at temperatures above 0.
  """

  output: str
  model: Model
  checkpoint: str
  teacher: Model | None = None
  teacher_checkpoint: str = ""
  scoring: Scoring
  seed: int = 0

  def __post_init__(self):
    checks.seed(self.seed)
    if not self.output:
      raise UserError("MODEL_DIR is empty; give the folder of the results")
