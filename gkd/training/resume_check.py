"""Whether a run may go on in its folder: the same settings, the same contents.

Another run in the same folder is a mistake, refused with the differences,
except for what changes no step: how long, how often, where, and how it is
looked at. Files and teachers are compared by their content, not by their paths:
a teacher trained anew at the same place is another one, a teacher that was
moved is the same. Runs built in a program are compared like those of a command.

  for line in changes(run, run_description.describe(run)):  # or raises
    log.warning(…)
"""

from collections.abc import Iterator
from collections.abc import Mapping
import os
from pathlib import Path
from typing import Any

from gkd import files
from gkd import structured_settings
from gkd.checkpoints.native import run_folder
from gkd.evaluation import metric_infos
from gkd.models import registry
from gkd.structured_settings import Difference
from gkd.text import tokenizer_folder
from gkd.training import guard_controller
from gkd.training import run_description
from gkd.training.run import Run
from gkd.training.writers import METRICS_FILE
from gkd.training.writers import PREDICTIONS_FOLDER
from gkd.training.writers import SAMPLES_FOLDER
from gkd.types import UserError

_CHANGEABLE = (
  "TRAIN_STEPS, the periods, KEEP and its kin, the evaluation, the guard,"
  " SKIP_NON_FINITE, how models are split over devices and run (PARTITIONING"
  " and its kin, SCAN_LAYERS, REMAT) and the places of files"
)
_MAX_LISTED = 6
# What a run replaces or removes in its folder, and so only in its own.
_REPLACED = (
  METRICS_FILE,
  "checkpoints",
  PREDICTIONS_FOLDER,
  SAMPLES_FOLDER,
  guard_controller.FILE_NAME,
  metric_infos.FILE_NAME,
  run_description.CONFIG_FILE,
  run_description.MODEL_INFO_FILE,
  run_folder.DESCRIPTION_FILE,
  tokenizer_folder.SPEC_FOLDER,
)
_ORIGIN = {"path": (str, type(None)), "content_sha256": str}
# In the run.json of a run, and in its settings.
_COMPARED = {
  "contents": {str: str},
  "roles": {"student": {"initial": _ORIGIN}},
  "settings": dict,
}
_COMPARED_OF = {"teacher": {"type": str}}
# Fields whose value is TRAIN_STEPS where a schedule ends with the run.
_FOLLOWING = ("total_steps", "end_step")


def changes(run: Run, description: Mapping[str, Any]) -> list[str]:
  """What is different from when the run in a folder began; writes nothing.

  Args:
    run: what is about to be trained. A folder with neither checkpoints nor
      lines in metrics.jsonl has nothing to lose, whatever was trained there.
    description: of the run, see `run_description.describe`.

  Returns:
    Lines `NAME: before → now` of what may change.

  Raises:
    UserError: something else than may change is different, the folder does not
      say what was trained in it, or KEEP_BEST does not know the best any more.
  """
  before = describe_own(run.folder)
  has_lines = files.has_content(run.folder / METRICS_FILE)
  if not has_lines and not has_checkpoint(run.folder):
    return []
  if run.preservation.best and not (run.folder / METRICS_FILE).exists():
    raise UserError(
      f"{run.folder / METRICS_FILE} is missing, so which checkpoints are the"
      " best is not known and they would be removed; restore that file, or set"
      " KEEP_BEST to 0"
    )
  different = [
    *_settings(before["settings"], run),
    *_start(before["roles"], description["roles"]),
    *_contents(before["contents"], description["contents"]),
  ]
  refused = [str(change) for change in different if not change.may_change]
  if refused:
    more = len(refused) - _MAX_LISTED
    listed = "; ".join(refused[:_MAX_LISTED]) + f"; {more} more" * (more > 0)
    raise UserError(
      f"MODEL_DIR {run.folder} holds a run of another configuration: {listed}."
      " Choose another MODEL_DIR, or give what was given before; of a run that"
      f" goes on only {_CHANGEABLE} may change"
    )
  return [str(change) for change in different]


def describe_own(folder: Path) -> dict[str, Any]:
  """The run.json of a folder; {} where there is nothing to lose.

  Raises:
    UserError: there is, and no run.json says that it is of a run.
  """
  before = run_folder.describe_run(folder)
  proof = (
    f"what made it cannot be compared: its {run_folder.DESCRIPTION_FILE} is"
    " missing, of another command or of an earlier version"
  )
  is_own = before.keys() >= _COMPARED.keys()
  files.check_replaced(
    folder, _REPLACED, "MODEL_DIR", None if is_own else proof
  )
  if is_own:
    file = folder / run_folder.DESCRIPTION_FILE
    remedy = "restore that file, or choose another folder"
    files.check_types(file, before, _COMPARED, remedy, required=True)
    files.check_types(file, before["settings"], _COMPARED_OF, remedy)
  return before


def has_checkpoint(model_dir: str | os.PathLike) -> bool:
  """Whether a run left checkpoints, in whatever state they are."""
  return any(files.local_path(model_dir).glob("checkpoints/*"))


def _settings(before: Mapping[str, Any], run: Run) -> Iterator[Difference]:
  """Differences of the settings; the end of a schedule may follow TRAIN_STEPS.

  It was TRAIN_STEPS before and is TRAIN_STEPS again.
  """
  differences = structured_settings.differences(before, run, "")
  others = run_description.other_settings(run)
  for name, (value, macro) in others.items():
    differences += structured_settings.differences(
      before.get(name), value, macro
    )
  for role in sorted({"teacher"} & before.keys() - others.keys()):
    macro = registry.macro_of(role, before[role]["type"])
    differences.append(Difference(macro, before[role], None, False))
  steps = before.get("train_steps"), run.train_steps
  for change in differences:
    field, name = change.name.rpartition(".")[2], change.name
    follows = field in _FOLLOWING and (change.before, change.now) == steps
    if change.may_change or not follows:
      yield change
      continue
    if field == "total_steps":
      if not run.optimizer.schedule.cooldown_steps:
        continue  # the learning rate does not depend on its end
      name = "end of the cooldown"
    name += ", which follows TRAIN_STEPS"
    yield change._replace(name=name, may_change=True)


def _start(
  before: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[Difference]:
  """A student that starts from parameters instead of none, or from none.

  Those of some layers of the teacher have a hash and no path.
  """
  initial = [roles["student"]["initial"] for roles in (before, now)]
  starts = [x["path"] or x["content_sha256"][:12] for x in initial]
  if bool(starts[0]) != bool(starts[1]):
    yield Difference("INITIAL_CHECKPOINT_PATH", *starts, False)


def _contents(
  before: Mapping[str, str], now: Mapping[str, str]
) -> Iterator[Difference]:
  """Contents that both descriptions know and that differ."""
  for name in sorted(before.keys() & now.keys()):
    if before[name] != now[name]:
      what = f"the content of the {name.replace('_', ' ')}"
      # Evaluation only measures the run.
      hashes = (before[name][:12], now[name][:12])
      yield Difference(what, *hashes, name == "evaluation_data")
