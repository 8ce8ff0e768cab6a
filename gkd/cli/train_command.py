"""`gkd train`: from settings to a `Run`, every check before any compile."""

from collections.abc import Mapping
import dataclasses
import logging
from pathlib import Path
import signal

import jax

from gkd import files
from gkd import keys
from gkd import locks
from gkd import partitioning
from gkd.checkpoints.checkpoint import Checkpoint
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
from gkd.data.loader import Loader
from gkd.data.mixture import Mixture
from gkd.evaluation.evaluation import Evaluation
from gkd.models import t5_layers
from gkd.training import init_state
from gkd.training import loop
from gkd.training.preemption import PreemptionHandler
from gkd.training.run import LOCK_FILE
from gkd.training.run import Run
from gkd.types import Model
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
  found = setup.locate(settings)
  settings = setup.with_tokenizer(settings, found)
  settings, mixture, evaluations = _open_data(settings, found, folders)
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
  return Run(
    model_dir=str(Path(settings.model_dir).expanduser()),
    roles=_roles(settings, found, mesh),
    student_slots=slots,
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
    periods=settings.periods,
    preservation=settings.preservation,
    config_text=configuration.operative(),
    about={"card": card_facts.facts(settings, found, loader)},
  )


def _roles(
  settings: TrainConfig,
  found: Mapping[str, Checkpoint],
  mesh: jax.sharding.Mesh,
) -> dict[str, Model]:
  """The models with their parameters; the student's are made when needed."""
  initial = found.get(setup.STUDENT)
  roles = {
    "student": Model(
      settings.student,
      lambda: initial_params(settings, found, mesh),
      path=settings.initial_checkpoint,
      content_sha256=initial.content_sha256 if initial else "",
    )
  }
  if settings.teacher is not None:
    one = found[setup.TEACHER]
    params = parameters.load(
      one, settings.teacher, setup.MACROS[setup.TEACHER], mesh
    )
    roles["teacher"] = Model(
      settings.teacher,
      params,
      path=settings.teacher_checkpoint,
      content_sha256=one.content_sha256,
    )
  return roles


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
  settings: TrainConfig, found: Mapping[str, Checkpoint], folders: Folders
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
  settings: TrainConfig,
  found: Mapping[str, Checkpoint],
  mesh: jax.sharding.Mesh,
) -> Params:
  """The student before step 0."""
  field = setup.initial_field(settings)
  checkpoint = setup.initial(settings, found)
  if checkpoint is not None:
    if strides := setup.strides(settings):
      words = t5_layers.describe(found[field].config, strides)
      log.info("student: %s", words)
    name = setup.MACROS[field]
    return parameters.load(checkpoint, settings.student, name, mesh)
  log.warning(
    "INITIAL_CHECKPOINT_PATH is empty: the student starts from RANDOM weights"
  )
  key = keys.stream(settings.seed, 0, keys.Role.INIT)
  return init_state.random_params(settings.student, key)


def _refuse_if_in_use(model_dir: str) -> None:
  """At once, not after data and checkpoints were read; the loop holds it."""
  lock = Path(model_dir).expanduser() / LOCK_FILE
  if lock.exists():
    with locks.hold(lock, f"MODEL_DIR {model_dir}"):
      pass
