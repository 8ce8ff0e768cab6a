"""Experiment trackers: what a run writes goes to one of them as well.

Each package is an optional extra of setup.py, imported where it is used. Where
runs go (server, project, offline) is also set by the package's own variables,
such as WANDB_MODE and MLFLOW_TRACKING_URI.

  with tracking(WandB(project="sums"), folder, {"settings": …}) as tracked:
    tracked.notify("scalars", 20, {"train/loss": 0.41})

The id of the tracker's run is kept in tracker.json of the folder, so that a run
that is resumed goes on in it. A step that is done again is logged again, with
the same numbers.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import importlib.util
import json
import logging
from pathlib import Path
import time
from typing import Any
from typing import Protocol

import jax

from gkd import files
from gkd import processes
from gkd.types import UserError

log = logging.getLogger("gkd")

_FILE = "tracker.json"
Row = Mapping[str, Any]


class Tracker(Protocol):
  """A package that keeps runs; bound as TRACKER."""

  def start(self, name: str, config: Row, run_id: str | None) -> str:
    """Begins a run, or goes on with one; returns its id."""

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """The numbers of a line of metrics.jsonl."""

  def samples(self, step: int, rows: Sequence[Row]) -> None:
    """The texts of a dump, which have the same fields."""

  def finish(self, *, failed: bool) -> None:
    """Hands over what is left."""


class Tracking:
  """A run of a tracker, whose failures do not end the training."""

  def __init__(self, tracker: Tracker | None):
    self._tracker = tracker

  def notify(self, method: str, *content: Any, **more: Any) -> None:
    """Calls a method of the tracker; after a failure none is called again."""
    if self._tracker is None:
      return
    try:
      getattr(self._tracker, method)(*content, **more)
    except Exception as error:  # each package has its own
      log.warning(
        "%s failed (%s); the run goes on without it, and with it again when it"
        " is resumed; its own files are complete",
        *(type(self._tracker).__name__, _line(error)),
      )
      self._tracker = None


@contextlib.contextmanager
def tracking(
  tracker: Tracker | None, folder: Path, config: Row
) -> Iterator[Tracking]:
  """The tracker's run of a folder while the run trains.

  Args:
    tracker: None for none.
    folder: of the run; its name is that of the tracker's run.
    config: what the run is made of, as JSON.

  Raises:
    UserError: the tracker cannot start.
  """
  tracked = Tracking(tracker if processes.is_writer() else None)
  if tracker is not None and processes.is_writer():
    name, file = type(tracker).__name__, folder / _FILE
    ids = files.read_json(file, {}, "move it away") if file.exists() else {}
    try:
      ids = {**ids, name: tracker.start(folder.name, config, ids.get(name))}
    except Exception as error:  # each package has its own
      raise UserError(
        f"TRACKER: {name} cannot start ({_line(error)}); mend that, leave"
        f" TRACKER out, or remove {file} if the run that it names is gone"
      ) from error
    files.write_json(file, ids)
  try:
    yield tracked
  except BaseException:
    tracked.notify("finish", failed=True)
    raise
  tracked.notify("finish", failed=False)


@dataclasses.dataclass
class WandB:
  """Weights & Biases; `wandb login` first, or WANDB_MODE=offline."""

  project: str = "gkd"
  entity: str | None = None

  def __post_init__(self):
    _require("wandb")

  def start(self, name: str, config: Row, run_id: str | None) -> str:
    import wandb

    self._run = wandb.init(
      project=self.project,
      entity=self.entity,
      name=name,
      id=run_id,
      resume="allow",
      # Its capture of the terminal would break the line of progress.
      settings=wandb.Settings(console="off"),
    )
    self._run.config.update(dict(config), allow_val_change=True)
    # Its own step only rises; a run that is resumed does some steps again.
    self._run.define_metric("*", step_metric="step")
    return self._run.id

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    self._run.log({"step": step, **values})

  def samples(self, step: int, rows: Sequence[Row]) -> None:
    import wandb

    names = [name for name, x in rows[0].items() if not isinstance(x, list)]
    table = [[row[name] for name in names] for row in rows]
    self._run.log({"step": step, "samples": wandb.Table(names, table)})

  def finish(self, *, failed: bool) -> None:
    self._run.finish(exit_code=int(failed))


@dataclasses.dataclass
class MLflow:
  """MLflow; MLFLOW_TRACKING_URI says where, its own default is ./mlflow.db."""

  experiment: str = "gkd"

  def __post_init__(self):
    _require("mlflow")

  def start(self, name: str, config: Row, run_id: str | None) -> str:
    import mlflow

    self._client = client = mlflow.MlflowClient()
    if run_id is None:
      found = client.get_experiment_by_name(self.experiment)
      experiment = (
        found.experiment_id
        if found
        else client.create_experiment(self.experiment)
      )
      run_id = client.create_run(experiment, run_name=name).info.run_id
    self._id = run_id
    known = client.get_run(run_id).data.params  # which never change there
    params = [
      mlflow.entities.Param(name, str(value))
      for name, value in _flat(config.get("settings", {})).items()
      if name not in known
    ]
    for start in range(0, len(params), 100):  # of one call at most
      client.log_batch(run_id, params=params[start : start + 100])
    client.log_dict(run_id, dict(config), "run.json")
    client.update_run(run_id, status="RUNNING")
    return run_id

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    import mlflow

    now = int(time.time() * 1000)  # one call for all: each is a request
    metrics = [
      mlflow.entities.Metric(name, value, now, step)
      for name, value in values.items()
    ]
    self._client.log_batch(self._id, metrics=metrics)

  def samples(self, step: int, rows: Sequence[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    name = f"samples/step_{step:08d}.jsonl"
    self._client.log_text(self._id, "".join(lines), name)

  def finish(self, *, failed: bool) -> None:
    self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


@dataclasses.dataclass
class Aim:
  """Aim; `repo` is a folder, without an `aim init`, or a server."""

  repo: str = "."
  experiment: str = "gkd"

  def __post_init__(self):
    _require("aim")

  def start(self, name: str, config: Row, run_id: str | None) -> str:
    import aim

    self._run = aim.Run(
      run_id,
      repo=self.repo,
      experiment=self.experiment,
      # Its capture of the terminal would break the line of progress.
      capture_terminal_logs=False,
    )
    self._run.name = name
    self._run["config"] = dict(config)
    return self._run.hash

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    for name, value in values.items():
      self._run.track(value, name=name, step=step)

  def samples(self, step: int, rows: Sequence[Row]) -> None:
    import aim

    texts = [aim.Text(f"{row['prompt']}\n\n{row['text']}") for row in rows]
    self._run.track(texts, name="samples", step=step)

  def finish(self, *, failed: bool) -> None:
    self._run["failed"] = failed
    self._run.close()
    del self._run  # which holds a lock of the repository


def _require(package: str) -> None:
  if importlib.util.find_spec(package) is None:
    raise UserError(
      f"TRACKER needs {package}, which is not installed; pip install"
      f" {package}, or leave TRACKER out"
    )


def _flat(settings: Row) -> dict[str, Any]:
  """{"rollout.student_fraction": 0.5} of nested settings."""
  leaves, _ = jax.tree.flatten_with_path(settings)
  name = jax.tree_util.keystr
  return {name(path, simple=True, separator="."): x for path, x in leaves}


def _line(error: Exception) -> str:
  return " ".join(str(error).split()) or type(error).__name__
