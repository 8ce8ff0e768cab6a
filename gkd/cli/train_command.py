"""`gkd train`: from settings to a `Run`, every check before any compile."""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path
import signal
from typing import Any

import jax

from gkd import files
from gkd import keys
from gkd import locks
from gkd import partitioning
from gkd.checkpoints.trained import Located
from gkd.config import card_facts
from gkd.config import configuration
from gkd.config import evaluations
from gkd.config import model_spec
from gkd.config import parameters
from gkd.config import setup
from gkd.config import vocabularies
from gkd.config import warm_start
from gkd.config.command_records import TrainConfig
from gkd.config.datasets import check_before_opening
from gkd.config.datasets import check_disjoint
from gkd.config.datasets import open_mixture
from gkd.config.records import Folders
from gkd.data import hashes
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.mixture import Mixture
from gkd.evaluation.evaluation import Evaluation
from gkd.training import loop
from gkd.training.preemption import PreemptionHandler
from gkd.training.run import LOCK_FILE
from gkd.training.run import Run
from gkd.types import Params

log = logging.getLogger("gkd")


def train(folders: Folders) -> None:
  """Trains what the loaded configuration describes."""
  settings = configuration.build(TrainConfig)
  files.check_folder(settings.model_dir, "MODEL_DIR")
  configuration.refuse_idle_flags(settings.idle())
  _refuse_if_in_use(settings.model_dir)
  run = prepare(settings, folders)
  # A second ctrl-C ends the process even inside a long compile.
  stop = PreemptionHandler(second=signal.SIG_DFL)
  loop.train(run, stop=stop)
  log.info(
    "done: %s holds metrics.jsonl, checkpoints/ and predictions/; see them with"
    " gkd report %s",
    run.model_dir,
    run.model_dir,
  )


def prepare(settings: TrainConfig, folders: Folders) -> Run:
  """Opens data and checkpoints and checks that all of it fits together.

  Raises:
    UserError: something is missing or impossible; nothing was compiled.
  """
  mesh = partitioning.make_mesh(model=settings.model_parallelism)
  setup.check_strides(settings)
  _check_names(settings, folders)
  # Once, so that what is written down is what is loaded: they may grow.
  found = setup.locate(settings, folders)
  settings = setup.with_tokenizer(settings, found)
  settings, mixture, evaluations = _open_data(settings, found, folders)
  cache = mixture.caches[0]  # of the vocabulary of them all
  loader = Loader(
    mixture,
    batch_size=settings.batch_size,
    lengths=settings.data.lengths,
    seed=settings.seed,
    subset=settings.data.subset,
  )
  optimizer, slots = warm_start.of_checkpoint(
    settings.optimizer,
    settings.initial_checkpoint,
    found.get("initial_checkpoint"),
    settings.model_dir,
    settings.student,
  )
  settings = dataclasses.replace(settings, optimizer=optimizer)
  teacher = found.get("teacher_checkpoint")
  teacher_params = None
  if settings.teacher is not None:
    teacher_params = parameters.load(
      str(teacher.path), settings.teacher, "TEACHER_CHECKPOINT_PATH"
    )
  return Run(
    model_dir=str(Path(settings.model_dir).expanduser()),
    student=settings.student,
    # Made where they are needed: in a run that is not resumed.
    student_params=lambda: initial_params(settings, found),
    student_slots=slots,
    teacher=settings.teacher,
    teacher_params=teacher_params,
    objective=settings.objective,
    rollout=settings.rollout,
    optimizer=optimizer,
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
    preservation=settings.preservation,
    evaluate_first=settings.evaluate_first,
    eval_log_steps=settings.eval_log_steps,
    config_text=configuration.operative(),
    about={
      "vocabulary_sha256": cache.info["vocabulary"]["sha256"],
      "model": dataclasses.asdict(settings.student.config),
      "contents": _contents(found, mixture, evaluations),
      warm_start.FIRST_STEP: optimizer.begins_at,
      "training_text": _writers(mixture),
      "card": card_facts.facts(settings, found, loader),
    },
  )


def _check_names(settings: TrainConfig, folders: Folders) -> None:
  """What needs neither data nor checkpoints, before any of them is made."""
  splits = settings.evaluation.splits if settings.evaluation else [None]
  given = {
    role: model
    for role, model in setup.roles(settings).items()
    if not isinstance(model, model_spec.OfCheckpoint)
  }
  for split in splits:
    size = check_before_opening(settings.data, split, folders)
  if size is not None:
    model_spec.check_vocabularies(given, size)


def _open_data(
  settings: TrainConfig, found: Mapping[str, Located], folders: Folders
) -> tuple[TrainConfig, Mixture, list[Evaluation]]:
  """The settings with their models, and the data, all of it checked."""
  mixture = None
  if settings.data.cache:
    mixture = open_mixture(settings.data, folders)
    # Its own file is read: a damaged one would be found at the first dump.
    vocabulary = mixture.caches[0].vocabulary
  else:
    vocabulary = vocabularies.of(settings.data, folders)
  setup.check_tokenizers(found, vocabulary)
  settings = setup.with_models(settings, found, vocabulary.size)
  both = setup.roles(settings)
  model_spec.check_vocabularies(both, vocabulary.size)
  model_spec.say_widths(both, vocabulary.size)
  if mixture is None:  # made only for models that can read it
    mixture = open_mixture(settings.data, folders)
    _ = mixture.caches[0].vocabulary
  if settings.evaluation is None:
    return settings, mixture, []
  caches = evaluations.open_caches(settings.evaluation, folders)
  for scored in caches:
    model_spec.check_vocabularies(both, scored.info["vocabulary"]["size"])
    check_disjoint(mixture, scored)
  made = evaluations.make_evaluations(settings.evaluation, caches)
  return settings, mixture, made


def initial_params(
  settings: TrainConfig, found: Mapping[str, Located]
) -> Params:
  """The student before step 0."""
  field = setup.source(settings)
  if field in found:
    path, name = str(found[field].path), setup.MACROS[field]
    strides = setup.strides(settings)
    if strides is None:
      return parameters.load(path, settings.student, name)
    config = model_spec.described(found[field]).config
    return parameters.load_every_kth(path, config, name, strides)
  log.warning(
    "INITIAL_CHECKPOINT_PATH is empty: the student starts from RANDOM weights"
  )
  key = keys.stream(settings.seed, 0, keys.Role.INIT)
  return jax.jit(settings.student.init)(key)


def _contents(
  found: Mapping[str, Located],
  mixture: Mixture,
  evaluations: Sequence[Evaluation],
) -> dict[str, str]:
  """Hashes of what the run reads, to know it again wherever it lies."""
  data = [
    [rate, _file_hashes(cache)]
    for cache, rate in zip(mixture.caches, mixture.rates, strict=True)
  ]
  contents = {"training_data": hashes.content_hash(data)}
  scored = {str(x.cache.path): _file_hashes(x.cache) for x in evaluations}
  if scored:  # however often and under whatever names they are scored
    contents["evaluation_data"] = hashes.content_hash(list(scored.values()))
  return contents | {name: one.sha256 for name, one in found.items()}


def _file_hashes(cache: TokenCache) -> dict[str, str]:
  return {name: file["sha256"] for name, file in cache.info["files"].items()}


def _writers(mixture: Mixture) -> dict[str, dict[str, Any]]:
  """{cache: provenance} of training texts that a model wrote."""
  return {
    cache.path.name: {"written_by": cache.info["written_by"]}
    for cache in mixture.caches
    if "written_by" in cache.info
  }


def _refuse_if_in_use(model_dir: str) -> None:
  """At once, not after data and checkpoints were read; the loop holds it."""
  lock = Path(model_dir).expanduser() / LOCK_FILE
  if lock.exists():
    with locks.hold(lock, f"MODEL_DIR {model_dir}"):
      pass
