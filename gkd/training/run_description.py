"""What a run is made of, as JSON: the content of its run.json.

settings   the records of the `Run`, which a resumed run is compared by
contents   sha256 of what it reads, wherever that lies
num_rows   of the training data in use: one pass over them is an epoch
warmup_end step from which on the linear warm-up is over
roles      family, config and origin of each model
…          what the checkpoints need to be opened: vocabulary, config, step
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax

from gkd import files
from gkd import partitioning
from gkd import processes
from gkd import structured_settings
from gkd.checkpoints.checkpoint import content_sha256
from gkd.checkpoints.native import run_folder
from gkd.data import hashes
from gkd.data.cache import TokenCache
from gkd.data.loader import Loader
from gkd.data.subset import Subset
from gkd.evaluation import metric_infos
from gkd.models import layer_stack
from gkd.models import registry
from gkd.structured_settings import setting
from gkd.training.run import Run
from gkd.types import Model

CONFIG_FILE = "config.gin"
MODEL_INFO_FILE = "model-info.txt"


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """What a loader reads, without the data."""

  tasks: Mapping[str, int] = setting("MIXTURE_OR_TASK_NAME")  # with rates
  batch_size: int = setting("BATCH_SIZE")
  lengths: Mapping[str, int] = setting("TASK_FEATURE_LENGTHS")
  seed: int = setting("RANDOM_SEED of the data")
  subset: Subset = setting("SUBSET")
  samples_per_prompt: int = setting("SAMPLES_PER_PROMPT", default=1)
  teachers: Sequence[str] = setting("TEACHERS", default=())

  @classmethod
  def of(cls, loader: Loader) -> "DataSettings":
    """The settings of a loader."""
    mixture = loader.mixture
    tasks = {
      f"{cache.info['task']}/{cache.info['split']}": rate
      for cache, rate in zip(mixture.caches, mixture.rates, strict=True)
    }
    return cls(
      tasks,
      loader.batch_size,
      loader.lengths,
      loader.seed,
      loader.subset,
      loader.samples_per_prompt,
      loader.teachers,
    )


def other_settings(run: Run) -> dict[str, tuple[Any, str]]:
  """{name: (setting, the user's name for it)} beside the run's own fields."""
  settings = {"data": (DataSettings.of(run.loader), "DATA")}
  for role, model in run.roles.items():
    # Others only measure the run.
    if role in ("student", "teacher", *run.objective.roles):
      macro = registry.macro_of(role, registry.family_of(model.config))
      settings[role] = (model.config, macro)
  for name in run.loader.teachers:
    macro = f"TEACHERS[{name!r}]"
    settings[macro] = (run.roles[name].config, macro)
  dtypes = []
  for role in ("teacher", *run.loader.teachers):
    if role in run.frozen_roles:
      leaves = jax.tree.leaves(run.roles[role].params)
      dtypes.append(" ".join(sorted({leaf.dtype.name for leaf in leaves})))
  if dtypes:
    settings["teacher_dtype"] = ("; ".join(dtypes), "TEACHER_DTYPE")
  return settings


def describe(run: Run) -> dict[str, Any]:
  """JSON for run.json; hashes frozen parameters where no hash is known."""
  hashes_of = {role: model.content_sha256 for role, model in run.roles.items()}
  for role in run.frozen_roles:
    if not hashes_of[role]:
      params = layer_stack.unstacked(run.roles[role].params)
      hashes_of[role] = content_sha256(params)
  mixture = run.loader.mixture
  contents = _contents(run, hashes_of)
  settings = structured_settings.to_json(run) | {
    name: structured_settings.to_json(value)
    for name, (value, _) in other_settings(run).items()
  }
  return {
    **run.about,
    run_folder.IDENTITY: hashes.content_hash([settings, contents]),
    "family": registry.family_of(run.student.config),
    "model": dataclasses.asdict(run.student.config),
    "vocabulary_sha256": mixture.caches[0].info["vocabulary"]["sha256"],
    "first_step": run.optimizer.schedule.begins_at,
    "num_rows": run.loader.num_rows,
    "warmup_end": run.optimizer.schedule.warmup_end,
    "training_text": {
      cache.path.name: {"written_by": cache.info["written_by"]}
      for cache in mixture.caches
      if "written_by" in cache.info
    },
    "roles": {
      role: _role_json(role, model, hashes_of[role])
      for role, model in run.roles.items()
    },
    "contents": contents,
    "settings": settings,
  }


def compared(run: Run, description: Mapping[str, Any]) -> dict[str, Any]:
  """What all processes of a run have to have in common."""
  mesh = {"devices": run.mesh.size, **run.mesh.shape}
  common = {name: description[name] for name in ("settings", "contents")}
  return {"model_dir": run.model_dir, "mesh": mesh, **common}


def write(
  run: Run, description: dict[str, Any], *, resumed: bool
) -> dict[str, str]:
  """Writes the files that say what a run is, before its first step.

  A run that is resumed keeps what it began with: its identity, and the hash of
  a student's initial checkpoint that is gone and not read any more.

  Returns:
    What the run's checkpoints note: its identity, nothing if it began with an
    earlier version, which gave it none.
  """
  return processes.from_writer(lambda: _write(run, description, resumed))


def _write(
  run: Run, description: dict[str, Any], resumed: bool
) -> dict[str, str]:
  """The same, in the process that writes."""
  before = run_folder.describe_run(run.folder) if resumed else {}
  contents = before.get("contents", {}) | description["contents"]
  roles = dict(description["roles"])
  if resumed and not run.student.content_sha256:
    roles["student"] = before["roles"]["student"]
  described = description | {"contents": contents, "roles": roles}
  if resumed:
    del described[run_folder.IDENTITY]
    described |= _identity(before)
  run_folder.write_description(run.folder, described)
  metric_infos.write(run.folder, run.metric_infos)
  run_folder.write_vocabulary(run.folder, run.loader.vocabulary)
  files.write_text(run.folder / CONFIG_FILE, run.config_text)
  text = partitioning.model_info(run.student.lm, run.mesh)
  files.write_text(run.folder / MODEL_INFO_FILE, text)
  return _identity(described)


def _identity(description: Mapping[str, Any]) -> dict[str, str]:
  name = run_folder.IDENTITY
  return {name: description[name]} if name in description else {}


def _role_json(role: str, model: Model, sha256: str) -> dict[str, Any]:
  """Of the student what it starts from, of another role what it is."""
  origin = {"path": model.path, "content_sha256": sha256}
  return {
    "family": registry.family_of(model.config),
    "config": dataclasses.asdict(model.config),
    **({"initial": origin} if role == "student" else origin),
  }


def _contents(run: Run, hashes_of: Mapping[str, str]) -> dict[str, str]:
  """Hashes of what the run reads, to know it again wherever it lies."""
  mixture = run.loader.mixture
  rates = zip(mixture.caches, mixture.rates, strict=True)
  data = [[rate, _file_hashes(cache)] for cache, rate in rates]
  vocabulary = run.loader.vocabulary
  ids = [vocabulary.size, vocabulary.pad_id, list(vocabulary.eos_ids)]
  contents = {
    "training_data": hashes.content_hash(data),
    "vocabulary": hashes.content_hash([vocabulary.sha256, *ids]),
  }
  scored = {str(x.cache.path): _file_hashes(x.cache) for x in run.evaluations}
  if scored:  # however often and under whatever names they are scored
    contents["evaluation_data"] = hashes.content_hash(list(scored.values()))
  return contents | {
    f"{'initial' if role == 'student' else role}_checkpoint": sha256
    for role, sha256 in hashes_of.items()
    if sha256
  }


def _file_hashes(cache: TokenCache) -> dict[str, Any]:
  found = {name: file["sha256"] for name, file in cache.info["files"].items()}
  if cache.teacher_prompts is not None:
    found["teacher_prompts"] = _file_hashes(cache.teacher_prompts)
  return found
