"""Runs and their names: seeds of one configuration are one arm.

Runs are called by their paths below a common folder. Runs whose settings differ
in the seed alone, and whose names differ in one folder, are the seeds of an arm
and shown as their mean. An experiment may label its arms (`results.json`).
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import itertools
import json
import math
import os
import re
from typing import Any

from gkd.report import formats
from gkd.report.metric_info import Curve
from gkd.report.metric_info import Metric

_SEED = "seed"
Record = Mapping[str, Any]
Series = Mapping[str, Sequence[Record]]


@dataclasses.dataclass(frozen=True)
class Run:
  """One run, as it is on disk.

  Attributes:
    name: short and unique within a report.
    path: its directory.
    metrics: curves, by `Score` or name.
    about: content of run.json.
    config_text: the operative gin configuration.
    predictions: {series: records} of the last step that has any.
    samples: rows of the last dump of the batch as trained.
    num_parameters: of the student; None if unknown.
    is_evaluation: a checkpoint that was scored; its metrics have step 0.
    notes: which of its files are missing or damaged.
    labels: {folder's name: label}, given by an experiment in reading order.
    arm: name that it shares with the other seeds; `assign` sets it.
    title: the arm, and the seed where there are several.
  """

  name: str
  path: str
  metrics: Mapping[Metric, Curve]
  about: Record = dataclasses.field(default_factory=dict)
  config_text: str = ""
  predictions: Series = dataclasses.field(default_factory=dict)
  samples: Sequence[Record] = ()
  num_parameters: int | None = None
  is_evaluation: bool = False
  notes: Sequence[str] = ()
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  arm: str = ""
  title: str = ""

  def last(self, metric: Metric) -> float:
    """Last value of a metric; NaN if the run has none."""
    return self.metrics[metric][1][-1] if metric in self.metrics else math.nan

  def total(self, metric: Metric) -> float:
    """Sum of a metric's finite values; NaN if the run has none."""
    if metric not in self.metrics:
      return math.nan
    return sum(v for v in self.metrics[metric][1] if math.isfinite(v))

  @property
  def num_steps(self) -> int:
    """The last step that was reported."""
    return max((steps[-1] for steps, _ in self.metrics.values()), default=0)

  @property
  def settings(self) -> dict[str, Any]:
    """Settings of `run.json` by dotted names; {} if it has none."""
    return dict(flatten(self.about.get("settings") or {}))


def by_arm(runs: Sequence[Run]) -> dict[str, list[Run]]:
  """{arm: its runs}, in the order of the runs."""
  found: dict[str, list[Run]] = {}
  for run in runs:
    found.setdefault(run.arm or run.name, []).append(run)
  return found


def metrics_of(runs: Iterable[Run]) -> set[Metric]:
  return {metric for run in runs for metric in run.metrics}


def assign(runs: Sequence[Run]) -> list[Run]:
  """The runs with their arms and titles, in the order of their labels."""
  shared = _shared_names(runs)
  named = []
  for run in runs:
    arm = shared.get(run.name, run.name)
    label = "/".join(run.labels.get(part, part) for part in arm.split("/"))
    seed = f", seed {run.settings.get(_SEED)}" if run.name in shared else ""
    named.append(dataclasses.replace(run, arm=label, title=label + seed))

  def place(run: Run) -> int:
    order = list(run.labels)
    places = [order.index(p) for p in run.name.split("/") if p in order]
    return places[-1] if places else len(order)

  return sorted(named, key=place)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
  """Leaves of nested mappings and lists of these, with dotted names."""
  if isinstance(value, list) and any(isinstance(x, Mapping) for x in value):
    value = {str(place): item for place, item in enumerate(value)}
  if isinstance(value, Mapping) and (value or not name):
    for key, item in value.items():
      yield from flatten(item, f"{name}.{key}" if name else str(key))
  else:
    yield name, value


def _shared_names(runs: Sequence[Run]) -> dict[str, str]:
  """{run: arm} for the runs of which there are several seeds."""
  groups: dict[Any, list[Run]] = {}
  for run in runs:
    parts = run.name.split("/")
    for place, part in enumerate(parts if _SEED in run.settings else ()):
      rest = tuple(parts[:place] + parts[place + 1 :])
      groups.setdefault((place, rest, _fingerprint(run, part)), []).append(run)
  shared: dict[str, str] = {}
  for (_, rest, _), members in sorted(
    groups.items(), key=lambda item: -len(item[1])
  ):
    names = [run.name for run in members]
    seeds = {run.settings[_SEED] for run in members}
    if len(seeds) < len(members) or len(seeds) == 1 or shared.keys() & {*names}:
      continue
    columns = itertools.takewhile(
      lambda c: len(set(c)) == 1, zip(*names, strict=False)
    )
    arm = "/".join(rest) or "".join(c[0] for c in columns).rstrip("_-. ")
    if arm and arm not in shared.values():
      shared |= dict.fromkeys(names, arm)
  return shared


def _fingerprint(run: Run, folder: str) -> str:
  """Settings, models and data that the seeds of an arm have in common.

  Args:
    run: whose settings.
    folder: part of its name that differs between the seeds; left open in
      paths, as seeds start from models and texts of their own.
  """
  settings = {
    name: "/".join("*" if part == folder else part for part in value.split("/"))
    if isinstance(value, str)
    else value
    for name, value in flatten(
      {n: run.about.get(n) for n in ("settings", "roles")}
    )
    if name.split(".")[-1] != _SEED and not formats.is_hash(value)
  }
  about = dict(flatten(run.about))
  # Texts that a model wrote are other ones for each seed.
  is_written = any(name.startswith("training_text.") for name in about)
  data = is_written or about.get("contents.training_data")
  teacher = about.get("roles.teacher.content_sha256")
  return json.dumps(
    [run.is_evaluation, settings, teacher, data], sort_keys=True
  )


def short_names(paths: Sequence[str]) -> list[str]:
  """Absolute paths without the folder that all of them have in common."""
  root = os.path.commonpath([os.path.dirname(path) for path in paths])
  return [os.path.relpath(path, root) for path in paths]


def natural_order(name: str) -> list[tuple[int, int | str]]:
  """Sort key of folders: run_2 before run_10."""
  return [
    (0, int(part)) if part.isdigit() else (1, part)
    for part in re.split(r"(\d+)", name)
    if part
  ]
