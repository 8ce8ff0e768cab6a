"""`gkd train`: from settings to a `Run`, every check before any compile."""

import dataclasses
import logging
from pathlib import Path

import jax

from gkd import keys
from gkd import partitioning
from gkd.checkpoints.trained import write_description
from gkd.commands import configuration
from gkd.commands import outputs
from gkd.commands import parameters
from gkd.commands.datasets import Folders
from gkd.commands.datasets import check_before_opening
from gkd.commands.datasets import check_disjoint
from gkd.commands.datasets import open_cache
from gkd.commands.settings import Scoring
from gkd.commands.settings import Training
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.evaluation.decode import Evaluation
from gkd.sampling.filters import Decoding
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.types import LanguageModel
from gkd.types import UserError

log = logging.getLogger("gkd")


def train(folders: Folders) -> None:
  """Trains what the loaded configuration describes."""
  settings = configuration.build(Training)
  outputs.check_folder(settings.model_dir, "MODEL_DIR")
  _refuse_idle_rollout(settings.rollout)
  run = assemble(settings, folders)
  vocabulary = run.loader.cache.info["vocabulary"]
  write_description(
    run.model_dir,
    {
      "vocabulary_sha256": vocabulary["sha256"],
      "model": dataclasses.asdict(run.student.config),
    },
  )
  loop.train(run)
  log.info(
    "done: %s holds metrics.jsonl, checkpoints/ and predictions/; see them with"
    " gkd report %s",
    run.model_dir,
    run.model_dir,
  )


def assemble(settings: Training, folders: Folders) -> loop.Run:
  """Opens data and checkpoints and checks that all of it fits together.

  Raises:
    UserError: something is missing or impossible; nothing was compiled.
  """
  mesh = partitioning.make_mesh(model=settings.model_parallelism)
  models = {"student": settings.student}
  if settings.teacher is not None:
    models["teacher"] = settings.teacher
  scoring = settings.scoring
  size = check_before_opening(
    settings.data, scoring.data if scoring else None, folders
  )
  if size is not None:
    check_vocabularies(models, size)
  cache = open_cache(settings.data, folders)
  # Its own file is read: a damaged one would be found at the first dump.
  check_vocabularies(models, cache.vocabulary.size)
  evaluations: list[Evaluation] = []
  if scoring is not None:
    scored = open_cache(scoring.data, folders)
    check_vocabularies(models, scored.info["vocabulary"]["size"])
    check_disjoint(cache, scored)
    evaluations = make_evaluations(scoring, scored)
  loader = Loader(
    cache,
    batch_size=settings.batch_size,
    lengths=settings.data.lengths,
    seed=settings.seed,
    limit=settings.data.limit,
  )
  teacher_params = parameters.load_teacher(
    settings.teacher_checkpoint, settings.teacher, cache
  )
  # Everything is checked with abstract parameters before any are made.
  run = loop.Run(
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
    keep=settings.keep,
    evaluate_first=settings.evaluate_first,
    config_text=configuration.operative(),
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


def make_evaluations(scoring: Scoring, cache: TokenCache) -> list[Evaluation]:
  """One evaluation for each temperature; the distance is measured once.

  Raises:
    UserError: the cache cannot serve an evaluation; without this it would be
      found only when the first one runs, maybe hours later.
  """
  width, longest = scoring.data.lengths["inputs"], cache.info["longest"]
  if longest["inputs"] > width:
    raise UserError(
      f"inputs length {width} is too short for the cache {cache.path}, which"
      f" has a row of {longest['inputs']}; raise TASK_FEATURE_LENGTHS or make"
      " a cache with the shorter length"
    )
  # Each is found, and imported, when it is first asked for.
  _ = cache.vocabulary, cache.postprocess, cache.metric_fns
  return [
    Evaluation(
      name=cache.info["task"],
      split=cache.info["split"],
      cache=cache,
      lengths=scoring.data.lengths,
      decoding=Decoding(temperature=float(temperature)),
      batch_size=scoring.batch_size,
      num_examples=scoring.num_examples,
      # Greedy answers are all the same.
      num_samples=scoring.num_samples if temperature else 1,
      chunk_size=scoring.chunk_size,
      label=f"t{temperature:g}" if temperature else "",
      distance=place == 0,
    )
    for place, temperature in enumerate(scoring.temperatures)
  ]


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
