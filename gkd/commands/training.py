"""`gkd train`: from settings to a `Run`, every check before any compile."""

import dataclasses
import logging
from pathlib import Path

import jax

from gkd import keys
from gkd import partitioning
from gkd.checkpoints.retention import Keep
from gkd.commands import configuration
from gkd.commands import outputs
from gkd.commands import parameters
from gkd.commands import scoring
from gkd.commands.datasets import Folders
from gkd.commands.datasets import check_before_opening
from gkd.commands.datasets import check_disjoint
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Training
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.evaluation.evaluation import Evaluation
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.training.run import Run
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")


def train(folders: Folders) -> None:
  """Trains what the loaded configuration describes."""
  settings = configuration.build(Training)
  outputs.check_folder(settings.model_dir, "MODEL_DIR")
  _refuse_idle_rollout(settings.rollout)
  scoring.refuse_idle_flags(settings.teacher)
  run = assemble(settings, folders)
  loop.train(run)
  log.info(
    "done: %s holds metrics.jsonl, checkpoints/ and predictions/; see them with"
    " gkd report %s",
    run.model_dir,
    run.model_dir,
  )


def assemble(settings: Training, folders: Folders) -> Run:
  """Opens data and checkpoints and checks that all of it fits together.

  Raises:
    UserError: something is missing or impossible; nothing was compiled.
  """
  mesh = partitioning.make_mesh(model=settings.model_parallelism)
  models = {"student": settings.student}
  if settings.teacher is not None:
    models["teacher"] = settings.teacher
  splits = settings.scoring.splits if settings.scoring else [None]
  for split in splits:
    size = check_before_opening(settings.data, split, folders)
  if size is not None:
    check_vocabularies(models, size)
  cache = open_cache(settings.data, folders)
  # Its own file is read: a damaged one would be found at the first dump.
  check_vocabularies(models, cache.vocabulary.size)
  evaluations: list[Evaluation] = []
  if settings.scoring is not None:
    caches = scoring.open_caches(settings.scoring, folders)
    for scored in caches:
      check_vocabularies(models, scored.info["vocabulary"]["size"])
      check_disjoint(cache, scored)
    evaluations = scoring.make_evaluations(settings.scoring, caches)
  loader = Loader(
    cache,
    batch_size=settings.batch_size,
    lengths=settings.data.lengths,
    seed=settings.seed,
    subset=settings.data.subset,
  )
  teacher_params = parameters.load_teacher(
    settings.teacher_checkpoint, settings.teacher, cache
  )
  # Everything is checked with abstract parameters before any are made.
  run = Run(
    model_dir=str(Path(settings.model_dir).expanduser()),
    student=settings.student,
    student_params=jax.eval_shape(settings.student.init, jax.random.key(0)),
    teacher=settings.teacher,
    teacher_params=teacher_params,
    objective=settings.objective,
    rollout=settings.rollout,
    optimizer=settings.optimizer,
    loader=loader,
    evaluations=evaluations,
    train_steps=settings.train_steps,
    seed=settings.seed,
    reduction=settings.reduction,
    micro_batches=settings.micro_batches,
    mesh=mesh,
    report_period=settings.report_period,
    eval_period=settings.eval_period,
    checkpoint_period=settings.checkpoint_period,
    sample_period=settings.sample_period,
    keep=Keep(latest=settings.keep),
    evaluate_first=settings.evaluate_first,
    config_text=configuration.operative(),
    about={
      "vocabulary_sha256": cache.info["vocabulary"]["sha256"],
      "model": dataclasses.asdict(settings.student.config),
    },
  )
  return dataclasses.replace(
    run, student_params=initial_params(settings, cache)
  )


def initial_params(settings: Training, cache: TokenCache):
  """The student before step 0."""
  if settings.initial_checkpoint:
    return parameters.load(
      settings.initial_checkpoint,
      settings.student,
      "INITIAL_CHECKPOINT_PATH",
      cache,
    )
  log.warning(
    "INITIAL_CHECKPOINT_PATH is empty: the student starts from RANDOM weights"
  )
  key = keys.stream(settings.seed, 0, keys.Role.INIT)
  return jax.jit(settings.student.init)(key)


def check_vocabularies(models: dict[str, LanguageModel], size: int) -> None:
  """All models must have as many real ids as the data's vocabulary."""
  for role, model in models.items():
    if model.vocabulary_size != size:
      raise UserError(
        f"the {role} has {model.vocabulary_size} ids but VOCABULARY has {size}:"
        f" different vocabularies; set 'vocabulary_size': {size} in"
        f" {role.upper()}_MODEL if only its table is wider, or choose another"
        " model or VOCABULARY"
      )


def _refuse_idle_rollout(rollout: Rollout | None) -> None:
  """Choices of the rollout that do nothing at this λ."""
  if rollout is None:
    return
  schedule, source = rollout.schedule, rollout.fixed_source
  if schedule.maximum == 0 and source == "dataset":
    names = ("SAMPLING_TEMPERATURE", "SAMPLING_TOP_K", "SAMPLING_TOP_P")
    why = "STUDENT_DATA_FRACTION is 0 and no step samples"
    configuration.refuse_idle_flags(names, why)
  if schedule.maximum == 0 or schedule.minimum == 1:
    why = "at a STUDENT_DATA_FRACTION of 0 or 1 there is nothing to draw"
    configuration.refuse_idle_flags(("GRANULARITY",), why)
