"""The start-up of every command: checkpoints, tokenizer, data, checks, models.

Everything is checked before anything is compiled, and caches are made only for
models that can read them. Parameters are read when `params` asks for them.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from pathlib import Path

import jax

from gkd import trees
from gkd.checkpoints import source
from gkd.checkpoints.checkpoint import VOCABULARY_KEY
from gkd.checkpoints.checkpoint import Checkpoint
from gkd.checkpoints.native import run_folder
from gkd.config import datasets
from gkd.config import evaluations
from gkd.config import model_spec
from gkd.config.model_spec import FromCheckpoint
from gkd.config.model_spec import Role
from gkd.config.records import DataConfig
from gkd.config.records import EvalConfig
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.data.mixture import Mixture
from gkd.errors import explaining_memory
from gkd.evaluation.evaluation import Evaluation
from gkd.models import kept_layers
from gkd.models import registry
from gkd.models import vocabulary_check
from gkd.rewards import reward as rewards
from gkd.rewards.reward import Reward
from gkd.rewards.reward import RewardModel
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import first_difference
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import Params
from gkd.types import UserError

log = logging.getLogger("gkd")


@dataclasses.dataclass(frozen=True)
class Resolved:
  """What a command works with, all of it checked to fit together.

  Attributes:
    roles: as configured.
    checkpoints: {role: opened checkpoint}; of a student that starts from some
      layers of a checkpoint those layers alone.
    models: {role: model}.
    mixture: the training data or the prompts; None without any.
    caches: of the evaluated splits.
    evaluations: of each split and decoding strategy.
    mesh: devices.
    reward: with its model, if it has one; None without one.
  """

  roles: Mapping[str, Role]
  checkpoints: Mapping[str, Checkpoint]
  models: Mapping[str, LanguageModel]
  mixture: Mixture | None
  caches: Sequence[TokenCache]
  evaluations: Sequence[Evaluation]
  mesh: jax.sharding.Mesh
  reward: Reward | None = None

  @explaining_memory(
    "raise FSDP_PARALLELISM or MODEL_PARALLELISM or, for a teacher, set"
    " TEACHER_DTYPE='bfloat16' or TEACHER_MEMORY='pinned_host'"
  )
  def params(self, role: str) -> Params:
    """Reads the parameters of a role onto the mesh.

    Raises:
      UserError: damaged, or of another model.
    """
    macro = self.roles[role].checkpoint_macro(role)
    checkpoint = self.checkpoints[role]
    try:
      params = source.load_params(
        checkpoint, self.models[role], self.mesh, dtype=self.roles[role].dtype
      )
    except UserError as error:
      raise UserError(f"{macro}: {error}") from error
    count = format(trees.num_parameters(params), ",")
    log.info("%s: %s, %s parameters", macro, checkpoint.path, count)
    return params

  def model(self, role: str) -> Model:
    """The model of a role with its parameters, read now."""
    params = self.params(role)
    return Model(
      self.models[role],
      params,
      path=self.roles[role].checkpoint,
      content_sha256=self.checkpoints[role].content_sha256,
    )


def with_reward(
  resolved: Resolved, reward: Reward | RewardModel | None
) -> Resolved:
  """With a reward, whose model is read now, that judges evaluations too."""
  if reward is None:
    return resolved
  opened = rewards.opened(reward, resolved.mesh)
  judged = [dataclasses.replace(x, reward=opened) for x in resolved.evaluations]
  return dataclasses.replace(resolved, reward=opened, evaluations=judged)


def resolve(
  roles: Mapping[str, Role | None],
  folders: Folders,
  mesh: jax.sharding.Mesh,
  *,
  train: DataConfig | None = None,
  evaluation: EvalConfig | None = None,
  random_student: bool = False,
  layers: kept_layers.LayerChoice | None = None,
  resumed: Path | None = None,
) -> Resolved:
  """Opens checkpoints and data and checks that all of it fits together.

  Args:
    roles: {"student": …, "teacher": …, …}; None for none.
    folders: where raw files and caches are.
    mesh: devices of the parameters.
    train: the training data, or the prompts of `gkd sample`.
    evaluation: what to evaluate on; with `train`, or alone.
    random_student: the student needs no checkpoint.
    layers: the student takes these of its checkpoint or, without one, of the
      teacher's.
    resumed: folder of a run that goes on. It keeps its tokenizer and sizes, and
      its first checkpoint may be gone.

  Raises:
    UserError: something is missing or does not fit; nothing was compiled.
  """
  roles = {name: role for name, role in roles.items() if role is not None}
  checkpoints = _open(roles, random_student, layers, resumed)
  if train is not None:
    train = _with_tokenizer(train, checkpoints, resumed)
  splits: Sequence[DataConfig] = ()
  if evaluation is not None:
    data = _with_tokenizer(evaluation.data, checkpoints, resumed)
    evaluation = dataclasses.replace(evaluation, data=data)
    splits = evaluation.splits
  if train is not None:
    datasets.check_split_names(train, splits)
  datasets.check_files([*splits, *([train] if train else [])], folders)
  data = splits[0] if train is None else train
  # Opened first where it is given, as only a cache knows its vocabulary; made
  # last, for models that can read it.
  mixture = datasets.open_mixture(data, folders) if data.cache else None
  vocabulary = (
    mixture.vocabulary if mixture else datasets.vocabulary_of(data, folders)
  )
  models = _build_models(roles, checkpoints, vocabulary, resumed, mesh)
  if mixture is None and train is not None:
    mixture = datasets.open_mixture(train, folders)
    _ = mixture.vocabulary  # its own file is read: it may be damaged
  caches = [datasets.open_cache(split, folders) for split in splits]
  for cache in caches:
    remedy = "make it again with the model's VOCABULARY"
    datasets.check_vocabulary(cache, vocabulary, "the models have", remedy)
    if train is not None:
      datasets.check_disjoint(mixture, cache)
  evaluated = evaluations.make_evaluations(evaluation, caches) if caches else []
  return Resolved(roles, checkpoints, models, mixture, caches, evaluated, mesh)


def _open(
  roles: Mapping[str, Role],
  random_student: bool,
  layers: kept_layers.LayerChoice | None,
  resumed: Path | None,
) -> dict[str, Checkpoint]:
  """The checkpoints by role; opened once, as folders of runs may grow.

  A run that goes on reads nothing of its student's first checkpoint but what
  identifies it, and does not miss one that is gone.
  """
  for name, role in roles.items():
    if not role.checkpoint and not (name == "student" and random_student):
      raise UserError(
        f"{role.checkpoint_macro(name)} is empty; give the folder of a"
        " run or of a checkpoint"
      )
  checkpoints = {}
  for name, role in roles.items():
    macro = role.checkpoint_macro(name)
    is_past = name == "student" and resumed is not None
    if not role.checkpoint:
      continue
    try:
      checkpoints[name] = source.open_checkpoint(
        role.checkpoint, verify=not is_past
      )
    except UserError as error:
      if not is_past:
        raise UserError(f"{macro}: {error}") from error
      log.warning("%s: %s; this run goes on without it", macro, error)
  start = checkpoints.get(
    "student" if roles["student"].checkpoint else "teacher"
  )
  if layers is not None and start is not None:
    checkpoints["student"] = source.pick_layers(start, layers)
    log.info("student: %s", kept_layers.describe(start.config, layers))
  return checkpoints


def _with_tokenizer(
  data: DataConfig,
  checkpoints: Mapping[str, Checkpoint],
  resumed: Path | None,
) -> DataConfig:
  """Where VOCABULARY is empty, the tokenizer that a checkpoint brings.

  A run that goes on keeps its own, whatever became of its first checkpoint.
  """
  if data.vocabulary or data.cache:
    return data
  if resumed is not None and tokenizer_folder.load(resumed) is not None:
    log.info("VOCABULARY: the tokenizer of this run, which goes on")
    return dataclasses.replace(data, vocabulary=str(resumed))
  for role, checkpoint in checkpoints.items():
    if tokenizer_folder.load(checkpoint.home) is not None:
      macro = model_spec.checkpoint_macro(role)
      log.info("VOCABULARY: the tokenizer of %s", macro)
      return dataclasses.replace(data, vocabulary=str(checkpoint.home))
  return data


def _build_models(
  roles: Mapping[str, Role],
  checkpoints: Mapping[str, Checkpoint],
  vocabulary: Vocabulary,
  resumed: Path | None,
  mesh: jax.sharding.Mesh,
) -> dict[str, LanguageModel]:
  """The models by role; a run that goes on keeps its student's sizes."""
  for name, role in roles.items():
    if isinstance(role.model, LanguageModel):
      vocabulary_check.check_size(name, role.model, vocabulary.size)
    if role.checkpoint and name in checkpoints:
      macro = role.checkpoint_macro(name)
      _check_tokenizer(name, macro, checkpoints[name], vocabulary)
  models = {}
  for name, role in roles.items():
    spec = role.model
    if name == "student" and resumed and isinstance(spec, FromCheckpoint):
      described = run_folder.describe_run(resumed)
      if fields := described.get("model"):
        family = described.get("family") or registry.T5
        config = registry.config_of(family, fields)
        spec = spec.build(config, family, name, f"MODEL_DIR {resumed}")
    model = model_spec.build(name, spec, checkpoints.get(name), vocabulary)
    vocabulary_check.check(name, model, vocabulary)
    models[name] = role.on_mesh(model, name, mesh)
  model_spec.log_widths(models, vocabulary.size)
  return models


def _check_tokenizer(
  role: str, macro: str, checkpoint: Checkpoint, vocabulary: Vocabulary
) -> None:
  """Refuses a checkpoint that was trained with another vocabulary."""
  own = tokenizer_folder.load(checkpoint.home)
  other_way = vocabulary_check.other_way(role)
  saved_sha256 = checkpoint.metadata.get(VOCABULARY_KEY)
  if own is not None:
    if different := first_difference(own, vocabulary):
      raise UserError(
        f"{macro} {checkpoint.path} has another tokenizer than the data:"
        f" {different}; set VOCABULARY to the checkpoint's folder{other_way}"
      )
  elif not saved_sha256:
    log.warning(
      "%s: the checkpoint brings no tokenizer; whether it was trained with the"
      " vocabulary of the data is NOT CHECKED",
      macro,
    )
  elif saved_sha256 != vocabulary.sha256:
    raise UserError(
      f"{macro} {str(checkpoint.path)!r} was trained with another vocabulary"
      f" (sha256 {saved_sha256[:12]}) than the data has"
      f" ({vocabulary.sha256[:12]}); set VOCABULARY to the checkpoint's"
      f"{other_way}"
    )
