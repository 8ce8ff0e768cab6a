"""What may be different when a run goes on, and what may not.

A run is continued by the command that started it. Another configuration in the
same folder is a mistake, refused with the differences, except for what changes
no step: how long, how often, where, and how it is looked at. Files are compared
by their content, not by their paths: a teacher trained anew at the same place
is another one, a teacher that was moved is the same.

  for line in changes("runs/gkd", config_text, about):  # or raises
    log.warning(…)
"""

from collections.abc import Mapping
import json
import os
from pathlib import Path
import re
from typing import Any

from gkd import bindings
from gkd.checkpoints import trained
from gkd.training.writers import METRICS_FILE
from gkd.types import UserError

CONFIG_FILE = "config.gin"
# Fields of `gkd.config.records` that may change, without the scope before them;
# all fields of the classes that stand alone.
MAY_CHANGE = {
  "TrainConfig.best_metric",
  "TrainConfig.best_mode",
  "TrainConfig.checkpoint_period",
  "TrainConfig.eval_log_steps",
  "TrainConfig.eval_period",
  "TrainConfig.evaluate_first",
  "TrainConfig.keep",
  "TrainConfig.keep_best",
  "TrainConfig.keep_every",
  "TrainConfig.model_dir",
  "TrainConfig.model_parallelism",
  "TrainConfig.report_period",
  "TrainConfig.sample_period",
  "TrainConfig.evaluation",
  "TrainConfig.train_steps",
  "EvalConfig",
  "eval/DataConfig",
}
# Paths, and what in run.json says that they hold the same.
BY_CONTENT = {
  "TrainConfig.initial_checkpoint": "initial_checkpoint",
  "TrainConfig.teacher_checkpoint": "teacher_checkpoint",
  "train/DataConfig.cache": "training_data",
  "train/DataConfig.module": "training_data",
  "train/DataConfig.vocabulary": "training_data",
}
# Given or of the checkpoint, the same sizes are the same model. What else there
# is in run.json["model"] has bindings of its own.
_SIZES = "student/model_spec.t5.size"
_NOT_SIZES = ("dropout_rate", "dtype")
# What only measures the run.
_CONTENT_MAY_CHANGE = {"evaluation_data"}
_CHANGEABLE = (
  "TRAIN_STEPS, the periods, KEEP and its kin, the evaluation,"
  " MODEL_PARALLELISM and the places of files"
)
_MAX_LISTED = 6


def changes(
  model_dir: Path, config_text: str, about: Mapping[str, Any]
) -> list[str]:
  """What is different from when the run in a folder began; writes nothing.

  Args:
    model_dir: folder of the run. One with neither checkpoints nor lines in
      metrics.jsonl has nothing to lose.
    config_text: what the run is about to do, a gin file; an empty one, as a run
      built in a program may have, is not compared.
    about: its description; `about["contents"]` has the hashes of its files.

  Returns:
    Lines `NAME: before → now` of what may change.

  Raises:
    UserError: something else than may change is different.
  """
  file = Path(model_dir) / CONFIG_FILE
  if not file.is_file() or not _has_something(model_dir):
    return []
  before, now = (_parsed(x) for x in (file.read_text("utf-8"), config_text))
  if not before or not now:
    before = now = {}
  described = trained.describe_run(model_dir)
  if _same_sizes(described.get("model"), about.get("model")):
    for parsed in (before, now):
      parsed.pop(_SIZES, None)
  contents = (described.get("contents", {}), about.get("contents", {}))
  different, allowed = _differences(before, now, contents)
  if different:
    more = len(different) - _MAX_LISTED
    listed = "; ".join(different[:_MAX_LISTED]) + f"; {more} more" * (more > 0)
    raise UserError(
      f"MODEL_DIR {model_dir} holds a run of another configuration: {listed}."
      " Choose another MODEL_DIR, or give what was given before; of a run that"
      f" goes on only {_CHANGEABLE} may change"
    )
  return allowed


def _same_sizes(before: Any, now: Any) -> bool:
  """Whether two models of run.json are known to have the same sizes."""
  if not before or not now:
    return False
  now = json.loads(json.dumps(now))  # lists for tuples, as it was saved
  names = (before.keys() | now.keys()) - set(_NOT_SIZES)
  return all(
    name in before and name in now and before[name] == now[name]
    for name in names
  )


def has_checkpoint(model_dir: str | os.PathLike) -> bool:
  """Whether a run left checkpoints, in whatever state they are."""
  return any(Path(model_dir).expanduser().glob("checkpoints/*"))


def _has_something(model_dir: Path) -> bool:
  """Whether a run left what another one in its folder would wipe."""
  lines = Path(model_dir) / METRICS_FILE
  return has_checkpoint(model_dir) or (
    lines.is_file() and lines.stat().st_size > 0
  )


_Contents = tuple[Mapping[str, str], Mapping[str, str]]
_NOT_SET = "not set"


# Bindings of models as earlier versions of the program wrote them.
_EARLIER = re.compile(r"(student|teacher)/t5\.T5Config\.from_size\.")
_EARLIER_ALONE = re.compile(r"(student|teacher)/t5\.encoder_decoder\.config")


def _parsed(text: str) -> dict[str, str]:
  """{binding: value as it is written}, on one line, under today's names."""
  values = {k: " ".join(v.split()) for k, v in bindings.parse(text).items()}
  return {
    _EARLIER.sub(r"\1/model_spec.t5.", name): _of_today(value)
    for name, value in values.items()
    if not _EARLIER_ALONE.fullmatch(name)
  }


def _of_today(value: str) -> str:
  return re.sub(
    r"@(student|teacher)/t5\.encoder_decoder\(\)", r"@\1/model_spec.t5()", value
  )


def _resolved(parsed: Mapping[str, str]) -> dict[str, str]:
  """Values of parameters with the macros put in, which count only there."""

  def put_in(value: str, depth: int = 0) -> str:
    if depth > len(parsed):  # gin itself refuses a circle
      return value
    return re.sub(
      r"%(\w+)",
      lambda m: put_in(parsed[m[1]], depth + 1) if m[1] in parsed else m[0],
      value,
    )

  return {name: put_in(v) for name, v in parsed.items() if "." in name}


def _differences(
  before: Mapping[str, str], now: Mapping[str, str], contents: _Contents
) -> tuple[list[str], list[str]]:
  """Lines `NAME: before → now` of what may not change, and of what may."""
  refused: dict[str, str] = {}
  allowed: dict[str, str] = {}
  old, new = _resolved(before), _resolved(now)
  # What would differ if the run were as long as it was.
  length = {k: before[k] for k in ("TRAIN_STEPS",) if k in before}
  as_long = _resolved({**now, **length})
  for name in sorted(old.keys() | new.keys()):
    values = old.get(name, _NOT_SET), new.get(name, _NOT_SET)
    field = _field(name)
    # What a newer version of the program added stands at None.
    if values[0] == values[1] or set(values) == {_NOT_SET, "None"}:
      continue
    if _same_content(field, contents):
      continue
    shown = _shown(name, before, now)
    line = f"{shown}: {values[0]} → {values[1]}"
    if field in MAY_CHANGE or field.partition(".")[0] in MAY_CHANGE:
      allowed[shown] = line
    elif as_long.get(name) == values[0]:
      allowed[name] = _of_length(name, new)
    else:
      refused[shown] = line
  for name in sorted(contents[0].keys() & contents[1].keys()):
    if contents[0][name] != contents[1][name]:
      was, is_now = (content[name][:12] for content in contents)
      what = name.replace("_", " ")
      lines = allowed if name in _CONTENT_MAY_CHANGE else refused
      lines[name] = f"the content of the {what}: {was} → {is_now}"
  return list(refused.values()), [line for line in allowed.values() if line]


def _shown(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
  """The macro that gives a parameter its value, or the parameter."""
  if name in before and name in now:
    for parsed in (now, before):
      if macro := re.fullmatch(r"%(\w+)", parsed[name]):
        return macro[1]
  return name


def _field(name: str) -> str:
  """`eval/records.DataConfig.split` → `eval/DataConfig.split`."""
  scope, _, path = name.rpartition("/")
  field = ".".join(path.split(".")[-2:])
  return f"{scope}/{field}" if field.startswith("DataConfig.") else field


def _same_content(field: str, contents: _Contents) -> bool:
  """Whether a path is known to hold what it held; else the text decides."""
  name = BY_CONTENT.get(field)
  return name is not None and name in contents[0] and name in contents[1]


def _of_length(name: str, now: Mapping[str, str]) -> str:
  """What another TRAIN_STEPS changes besides; nothing for a constant rate."""
  if not name.endswith("Optimizer.total_steps"):
    return f"{name}, which follows TRAIN_STEPS: the steps so far had another"
  cooldown = now.get(f"{name.rpartition('.')[0]}.cooldown_steps", "0")
  if cooldown == "0":
    return ""
  return (
    f"learning rate: TRAIN_STEPS moves the cooldown over the last {cooldown}"
    " steps"
  )
