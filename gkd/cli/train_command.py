"""`gkd train`: from a configuration to a `Run`, checked before any compile."""

from collections.abc import Callable
import dataclasses
import functools
import logging
import re
import signal
from typing import Any

from gkd import files
from gkd import keys
from gkd import locks
from gkd import processes
from gkd import trees
from gkd.checkpoints.checkpoint import LICENSE_KEY
from gkd.cli import plan_command
from gkd.cli.starts import starts
from gkd.config import configuration
from gkd.config import setup
from gkd.config import warm_start
from gkd.config.command_records import TrainConfig
from gkd.config.records import Folders
from gkd.config.setup import Resolved
from gkd.data.loader import Loader
from gkd.training import loop
from gkd.training import resume_check
from gkd.training import self_teacher
from gkd.training import state as states
from gkd.training.preemption import PreemptionHandler
from gkd.training.run import LOCK_FILE
from gkd.training.run import Run
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")

# Which a `Run` takes as they are configured.
_FIELDS_OF_RUN = (
  *("objective", "rollout", "scoring", "train_steps", "seed", "reduction"),
  *("micro_batches", "length_buckets", "teacher_decay", "periods"),
  *("preservation", "skip_non_finite", "watchdog_seconds", "guard"),
  "tracker",
)


def train(
  folders: Folders, *, dry_run: bool = False, profile: str = ""
) -> None:
  """Trains what the loaded configuration describes.

  With `dry_run` everything is prepared and compiled, said, and left; `profile`
  is "FIRST:LAST", steps to profile.
  """
  config = configuration.build(TrainConfig)
  profiled = _profiled(profile, config.train_steps)
  files.check_folder(config.model_dir, "MODEL_DIR")
  configuration.refuse_idle_flags(config.idle())
  # At once, not after data and checkpoints were read; the loop holds it.
  folder = files.local_path(config.model_dir)
  resume_check.describe_own(folder)
  lock = folder / LOCK_FILE
  if lock.exists() and processes.is_writer():
    with locks.hold(lock, f"MODEL_DIR {config.model_dir}"):
      pass
  run = prepare(config, folders)
  if dry_run:
    print(f"{configuration.macros()}\n\n{run.describe()}\n")
    print("all settings: gkd config, with the same flags\n")
    plan_command.of_run(config, run)
    return
  # A second ctrl-C ends the process even inside a long compile.
  stop = PreemptionHandler(second=signal.SIG_DFL)
  loop.train(run, stop=stop, profile=profiled)
  log.info(
    "done: %s holds metrics.jsonl, checkpoints/ and predictions/; see them with"
    " gkd report %s",
    run.model_dir,
    run.model_dir,
  )


def prepare(config: TrainConfig, folders: Folders) -> Run:
  """The run that a configuration describes.

  Raises:
    UserError: something is missing or impossible; nothing was compiled.
  """
  folder = files.local_path(config.model_dir)
  has_checkpoint = functools.partial(resume_check.has_checkpoint, folder)
  resumed = folder if processes.from_writer(has_checkpoint) else None
  resolved = setup.resolve(
    config.roles,
    folders,
    config.mesh(),
    train=config.data,
    evaluation=config.evaluation,
    random_student=True,
    layers=config.layers,
    resumed=resumed,
  )
  if config.scoring is not None:
    resolved = setup.with_reward(resolved, config.scoring.reward)
    opened = dataclasses.replace(config.scoring, reward=resolved.reward)
    config = dataclasses.replace(config, scoring=opened)
  loader = Loader(
    resolved.mixture,
    batch_size=config.batch_size,
    lengths=config.data.lengths,
    seed=config.seed,
    subset=config.data.subset,
    needs_targets=config.rollout is None or config.rollout.needs_targets,
    samples_per_prompt=config.samples_per_prompt,
    teachers=sorted(config.teachers or ()),
  )
  if "teacher" in config.objective.roles and loader.unread_teachers:
    log.warning("%s", loader.unread_teachers)
  optimizer, slots = warm_start.from_checkpoint(
    config.optimizer,
    resolved.checkpoints.get("student"),
    resolved.models["student"],
    resumed,
  )
  if resumed is None:
    student = resolved.checkpoints.get("student")
    warm_start.warn_of_t5x_steps(student, config.train_steps)
  config = dataclasses.replace(config, optimizer=optimizer)
  roles = {"student": _student(config, resolved, resumed is not None)}
  roles |= {r: resolved.model(r) for r in resolved.roles if r != "student"}
  return Run(
    model_dir=str(folder),
    roles=roles,
    student_slots=slots,
    optimizer=optimizer,
    loader=loader,
    evaluations=resolved.evaluations,
    mesh=resolved.mesh,
    **{name: getattr(config, name) for name in _FIELDS_OF_RUN},
    config_text=configuration.operative(),
    about={"card": _card(config, resolved, loader), "starts": starts(resumed)},
  )


def _profiled(text: str, train_steps: int) -> range:
  """The steps that --profile names, counted from 1."""
  if not text:
    return range(0)
  match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text)
  first, last = map(int, match.groups()) if match else (0, 0)
  if not 1 <= first <= last <= train_steps:
    raise UserError(
      f"--profile={text}: expected FIRST:LAST, steps from 1 to TRAIN_STEPS ="
      f" {train_steps}, such as --profile=10:15"
    )
  return range(first, last + 1)


def initial_params(seed: int, resolved: Resolved) -> Params:
  """The student before step 0."""
  if "student" in resolved.checkpoints:
    return resolved.params("student")
  log.warning(
    "INITIAL_CHECKPOINT_PATH is empty: the student starts from RANDOM weights"
  )
  key = keys.stream(seed, 0, keys.Role.INIT)
  student = resolved.models["student"]
  return states.random_params(student, key, resolved.mesh)


def _student(config: TrainConfig, resolved: Resolved, resumed: bool) -> Model:
  """The student; its parameters are made where a run is not resumed.

  A run that is resumed does not need its first checkpoint, which may be damaged
  since.
  """
  checkpoint, content = resolved.checkpoints.get("student"), ""
  try:
    content = checkpoint.content_sha256 if checkpoint else ""
  except (UserError, OSError) as error:
    if not resumed:
      raise
    log.warning("INITIAL_CHECKPOINT_PATH: %s; the run goes on without", error)
  return Model(
    resolved.models["student"],
    lambda: initial_params(config.seed, resolved),
    path=config.student.checkpoint,
    content_sha256=content,
  )


def _card(
  config: TrainConfig, resolved: Resolved, loader: Loader
) -> dict[str, Any]:
  """Strings and numbers for the model card of the student."""

  def named(role: str) -> str:
    """The checkpoint as the user gave it, with its step where it is known."""
    path = resolved.roles[role].checkpoint
    checkpoint = resolved.checkpoints.get(role)
    has_step = path and checkpoint is not None and checkpoint.step is not None
    return f"{path}, step {checkpoint.step:,}" if has_step else path

  def of_each(value: Callable[[str], str]) -> str:
    """Of each of TEACHERS, by its name."""
    return ", ".join(f"{name}: {value(name)}" for name in config.teachers)

  def license_of(role: str) -> str:
    checkpoint = resolved.checkpoints.get(role)
    return checkpoint.metadata.get(LICENSE_KEY, "") if checkpoint else ""

  counts = {
    role: trees.num_parameters(model.abstract_params)
    for role, model in resolved.models.items()
  }
  teacher_name, start = "", named("student")
  license_name, count = license_of("teacher"), counts.get("teacher")
  if config.teacher_decay is not None:
    teacher_name = self_teacher.describe(config.teacher_decay)
  elif config.teachers:
    teacher_name = of_each(named)
    license_name = of_each(lambda name: license_of(name) or "unknown")
    count = of_each(lambda name: f"{counts[name]:,}")
  elif config.teacher:
    teacher_name = named("teacher")
  if config.layers:
    start = config.layers.in_words(start or "the teacher")
  return {
    "teacher": teacher_name,
    "teacher_license": license_name,
    "teacher_parameters": count,
    "student_parameters": counts["student"],
    "initial": start or "random weights",
    "data": loader.describe(),
    "objective": config.objective.describe(),
    "targets": (
      config.rollout.describe(loader.targets)
      if config.rollout
      else "fixed data, as in the cache"
    ),
    "optimizer": config.optimizer.describe(),
    "steps": config.train_steps,
    "seed": config.seed,
  }
