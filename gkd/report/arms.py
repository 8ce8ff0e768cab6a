"""Runs and their names: seeds of one configuration are one arm.

Runs are called by their paths below a common folder. Runs whose settings differ
in the seed alone, and whose names differ in one folder, are the seeds of an arm
and shown as their mean. An experiment may label its arms (`results.json`).
"""

import collections
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
import math
import os
import re
import statistics
from typing import Any
from typing import NamedTuple

from gkd.report import formats
from gkd.report.metric_info import Curve
from gkd.report.metric_info import Metric
from gkd.report.metric_info import Score

# More arms than these share no chart where an axis of a grid divides them, and
# a report of them says the most important first.
MAX_TOGETHER = 6
_SEED = "seed"
# The model of a role, where each seed has one of its own.
_OF_SEED = "of the seed"
Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Run:
  """One run, as it is on disk."""

  name: str  # short and unique within a report
  path: str  # its directory
  metrics: Mapping[Metric, Curve]
  about: Record = dataclasses.field(default_factory=dict)  # run.json
  guard: Record = dataclasses.field(default_factory=dict)  # guard.json
  config_text: str = ""  # the operative gin configuration
  # {series: records} of the last step that has any
  predictions: Mapping[str, Sequence[Record]] = dataclasses.field(
    default_factory=dict
  )
  samples: Sequence[Record] = ()  # of the last dump of the batch as trained
  num_parameters: int | None = None  # of the student
  is_evaluation: bool = False  # a checkpoint's scores: metrics have step 0
  notes: Sequence[str] = ()  # which of its files are missing or damaged
  # {folder's name: label}, given by an experiment in reading order
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  # {axis: value} of the grid that it is a job of, with the "stage"
  axes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  arm: str = ""  # name that it shares with the other seeds, see `assign`
  title: str = ""  # the arm, and the seed where there are several

  def last(self, metric: Metric) -> float:
    """Last value of a metric; NaN if the run has none."""
    curve = self.metrics.get(metric)
    return next(reversed(curve.values())) if curve else math.nan

  def total(self, metric: Metric) -> float:
    """Sum of a metric's finite values; NaN if the run has none."""
    if metric not in self.metrics:
      return math.nan
    return sum(finite(self.metrics[metric].values()))

  @property
  def total_seconds(self) -> float:
    """Time that the run accounts for; NaN if it has none."""
    times = [self.total(name) for name in self.metrics if is_seconds(name)]
    return sum(times) if times else math.nan

  @property
  def num_steps(self) -> int:
    """The last step that was reported."""
    return max((max(curve) for curve in self.metrics.values()), default=0)

  @property
  def planned_steps(self) -> int:
    """`train_steps` of the settings; 0 where it is unknown."""
    return self.settings.get("train_steps") or 0

  @property
  def has_diverged(self) -> bool:
    """Whether the last numbers were not finite, which ends a run."""
    names = ("train/loss", "train/grad_norm", "train/param_norm")
    watched = self.metrics.keys() & names
    return not all(math.isfinite(self.last(name)) for name in watched)

  @property
  def starts(self) -> list[Record]:
    """When and by which commands it was started, as far as it says so."""
    return [x for x in self.about.get("starts") or () if isinstance(x, Mapping)]

  @property
  def settings(self) -> dict[str, Any]:
    """Settings of `run.json` by dotted names; {} if it has none."""
    return dict(flatten(self.about.get("settings") or {}))


class Arm(NamedTuple):
  """Runs that differ in the seed alone."""

  name: str
  runs: Sequence[Run]

  def values(self, metric: Metric) -> list[float]:
    """Finite last values of its runs."""
    return finite(run.last(metric) for run in self.runs)

  def mean(self, metric: Metric) -> float:
    return mean(self.values(metric))


def by_arm(runs: Iterable[Run]) -> list[Arm]:
  """The arms in the order of the runs."""
  members = collections.defaultdict(list)
  for run in runs:
    members[run.arm or run.name].append(run)
  return [Arm(*item) for item in members.items()]


def seed_means(runs: Iterable[Run], metric: Metric) -> list[float]:
  """Mean last value of each seed, as of a teacher that its runs share."""
  of_seeds = collections.defaultdict(list)
  for run in runs:
    of_seeds[run.settings.get(_SEED)] += finite([run.last(metric)])
  return [mean(values) for values in of_seeds.values() if values]


def are_many(runs: Iterable[Run]) -> bool:
  return len(by_arm(runs)) > MAX_TOGETHER


def metrics_of(runs: Iterable[Run]) -> set[Metric]:
  return {metric for run in runs for metric in run.metrics}


def is_seconds(metric: Metric) -> bool:
  """Whether it is the time that a part of training took."""
  return isinstance(metric, str) and bool(
    re.fullmatch(r"time/\w+_seconds", metric)
  )


def mean(values: Sequence[float]) -> float:
  return statistics.fmean(values) if values else math.nan


def finite(values: Iterable[float]) -> list[float]:
  return [value for value in values if math.isfinite(value)]


def assign(runs: Sequence[Run]) -> list[Run]:
  """The runs with their arms and titles, in the order of their labels."""
  shared = _shared_names(runs)
  named = []
  for run in runs:
    arm = shared.get(run.name, run.name)
    label = "/".join(run.labels.get(part, part) for part in arm.split("/"))
    seed = f", seed {run.settings.get(_SEED)}" if run.name in shared else ""
    named.append(dataclasses.replace(run, arm=label, title=label + seed))
  named = _with_models_of_seeds(named)

  def place(run: Run) -> int:
    order = list(run.labels)
    places = [order.index(p) for p in run.name.split("/") if p in order]
    return places[-1] if places else len(order)

  return sorted(named, key=place)


def _with_models_of_seeds(runs: Sequence[Run]) -> list[Run]:
  """The runs, with scores that are alike but for a model that each seed makes.

  Seeds that begin with a teacher of their own are compared as any others are.
  Where a seed makes several, those that an arm uses belong together.
  """
  of_arms = collections.defaultdict(set)
  of_seeds = collections.defaultdict(set)
  for run in runs:
    for model in {m for score in run.metrics for m in _models(score)}:
      of_arms[model[0], run.arm].add(model)
      of_seeds[model[0], run.settings.get(_SEED)].add(model)
  groups: dict[frozenset, str] = {}  # models that stand for each other: an arm
  for (_, arm), models in of_arms.items():
    if len(models) == 1:
      continue
    met = [group for group in groups if group & models]
    first = next((groups[group] for group in met), arm)
    groups = {g: name for g, name in groups.items() if g not in met}
    groups[frozenset(models.union(*met))] = first
  names: dict[tuple[str, str], str] = {}
  order = [arm for _, arm in of_arms]
  for group, arm in sorted(groups.items(), key=lambda x: order.index(x[1])):
    if all(len(group & models) <= 1 for models in of_seeds.values()):
      is_only = {role for role, _ in group}.isdisjoint(r for r, _ in names)
      name = _OF_SEED if is_only else f"{_OF_SEED}, {arm}"
      names |= dict.fromkeys(group, name)

  def renamed(score: Metric) -> Metric:
    if names.keys().isdisjoint(_models(score)):
      return score
    model = names.get((score.compared_with, score.model), score.model)
    owner = names.get((score.role, score.owner), score.owner)
    return dataclasses.replace(score, model=model, owner=owner)

  return [
    dataclasses.replace(
      run, metrics={renamed(key): curve for key, curve in run.metrics.items()}
    )
    for run in runs
  ]


def _models(score: Metric) -> list[tuple[str, str]]:
  """Roles and hashes of the models that a score is of, but for the student."""
  if not isinstance(score, Score):
    return []
  pairs = [(score.compared_with, score.model), (score.role, score.owner)]
  return [(role, model) for role, model in pairs if model]


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
  """Leaves of nested mappings and lists of these, with dotted names."""
  if isinstance(value, list) and any(isinstance(x, Mapping) for x in value):
    value = {str(place): item for place, item in enumerate(value)}
  if isinstance(value, Mapping) and (value or not name):
    for key, item in value.items():
      yield from flatten(item, f"{name}.{key}" if name else str(key))
  else:
    yield name, value


def with_stars(path: str, folders: Container[str]) -> str:
  """Seeds start from models and texts in folders of their own: /r/*/teacher."""
  return "/".join("*" if part in folders else part for part in path.split("/"))


def _shared_names(runs: Sequence[Run]) -> dict[str, str]:
  """{run: arm} for the runs of which there are several seeds."""
  groups = collections.defaultdict(list)
  for run in runs:
    parts = run.name.split("/")
    for place, part in enumerate(parts if _SEED in run.settings else ()):
      rest = tuple(parts[:place] + parts[place + 1 :])
      groups[place, rest, _fingerprint(run, part)].append(run)
  shared: dict[str, str] = {}
  for (_, rest, _), members in sorted(
    groups.items(), key=lambda item: -len(item[1])
  ):
    names = [run.name for run in members]
    seeds = {run.settings[_SEED] for run in members}
    if len(seeds) < len(members) or len(seeds) == 1 or shared.keys() & {*names}:
      continue
    prefix = os.path.commonprefix(names)  # noqa: RUF071, letters are meant
    arm = "/".join(rest) or prefix.rstrip("_-. ")
    if arm and arm not in shared.values():
      shared |= dict.fromkeys(names, arm)
  return shared


def _fingerprint(run: Run, folder: str) -> str:
  """Settings, models and data that the seeds of an arm have in common.

  Args:
    run: whose settings.
    folder: part of its name that differs between the seeds.
  """
  about = dict(flatten(run.about))
  settings = {
    name: with_stars(value, {folder}) if isinstance(value, str) else value
    for name, value in about.items()
    if name.startswith(("settings.", "roles."))
    and name.split(".")[-1] != _SEED
    and not formats.is_hash(value)
  }
  # Texts that a model wrote are other ones for each seed.
  is_written = any(name.startswith("training_text.") for name in about)
  data = is_written or about.get("contents.training_data")
  # And so may the teacher be, if its folder is the seed's.
  path = str(about.get("roles.teacher.path")).split("/")
  teacher = folder in path or about.get("roles.teacher.content_sha256")
  return json.dumps(
    [run.is_evaluation, settings, teacher, data], sort_keys=True
  )
