"""Decides in every run whether the student hacks its teacher, see `guard`.

It needs no oracle and draws nothing. Everything is a function of the
evaluations so far. They are kept with each checkpoint, so that a run that was
killed decides the same again.

  controller = Controller(Guard(mode="stop"), metric=…, …)
  controller.add(means)                         # of each step
  values = controller.observe(done, evaluated, store.newest)
  if controller.is_stopped: …
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from gkd import files
from gkd import processes
from gkd.metrics import Mean
from gkd.training import departure
from gkd.training.guard import Guard
from gkd.training.rollout import Rollout

log = logging.getLogger("gkd")

FILE_NAME = "guard.json"
NOTE = "guard"  # in the notes of a checkpoint
_HISTORY = {
  "metric": str,
  "series": {
    "steps": [int],
    "held_out": [(int, float, type(None))],
    "trained": [(int, float, type(None))],
    "repeats": [(int, float)],
  },
}
_ACTIONS = {
  "warn": "The run goes on as before",
  "stop": "GUARD = 'stop' ends the run here; another GUARD lets it go on",
  "go_online": "The run goes on with fresh texts",
}


class Controller:
  """The guard of one run; without a metric to follow it does nothing.

  Args:
    guard: the settings.
    metric: name of the evaluated distance to follow; "" for none.
    plan: of the run; None for fixed data alone.
    batch_size: rows of a step.
    num_rows: of the data.
    first_step: evaluations before it are left out: the warm-up's.
    folder: of the run, for guard.json.
    saved: what `notes` gave for the checkpoint that was restored.

  Attributes:
    plan: who writes the targets of the next step.
  """

  def __init__(
    self,
    guard: Guard,
    *,
    metric: str,
    plan: Rollout | None,
    batch_size: int,
    num_rows: int,
    first_step: int,
    folder: Path,
    saved: Mapping[str, Any],
  ):
    self._guard, self._metric = guard, metric
    self.plan = plan
    self._batch_size, self._num_rows = batch_size, num_rows
    self._first_step, self._file = first_step, folder / FILE_NAME
    # Rows of [step, held-out, trained, repeats], of one metric.
    self._history: list[list[float | None]] = list(saved.get("history", ()))
    self._of = metric or saved.get("metric", "")
    if saved.get("metric", self._of) != self._of:
      self._history = []
    self._kl = Mean(*saved.get("kl", (0.0, 0.0)))
    self._uses = saved.get("uses", 0.0)
    if (
      not self._history and processes.is_writer()
    ):  # what another run in the folder found
      self._file.unlink(missing_ok=True)
    self._judge()

  @property
  def is_stopped(self) -> bool:
    """Whether the run ends, or has ended, by the guard's decision."""
    return self._alarm is not None and self._guard.mode == "stop"

  def notes(self) -> dict[str, Any]:
    """JSON for a checkpoint: the evaluations so far, exact to the bit.

    And up to which step the newest checkpoint has to stay.
    """
    if not self._metric and self._alarm is None:
      return {}
    saved = {
      "history": self._history,
      "kl": [self._kl.total, self._kl.count],
      "metric": self._of,
      "uses": self._uses,
    }
    return {NOTE: saved, "keep_before": self._last_clean}

  def add(self, means: Mapping[str, Mean]) -> None:
    """Takes in the metrics of one step, on the host."""
    if not self._metric:
      return
    by_student = means["lambda"].compute() if "lambda" in means else 0.0
    if self.plan is None or self.plan.off_policy_source == "dataset":
      self._uses += (1 - by_student) * self._batch_size
    # What the student writes is as fresh as the held-out prompts.
    if by_student < 1 and (kl := means.get("forward_kl")) is not None:
      self._kl = self._kl.merge(Mean(float(kl.total), float(kl.count)))

  def observe(
    self,
    done: int,
    evaluated: Mapping[str, float],
    checkpoint: Callable[[int], Path | None],
  ) -> dict[str, float]:
    """Takes in an evaluation and decides.

    Args:
      done: finished steps.
      evaluated: values of the evaluations.
      checkpoint: the newest one up to a step that stays.

    Returns:
      `guard/<score>` and `guard/alarm` (0 or 1) for metrics.jsonl; nothing
      while there are too few evaluations.
    """
    if self._metric not in evaluated:
      return {}
    if self._history and self._history[-1][0] == done:  # evaluated again
      self._history.pop()
    last = self._history[-1][0] if self._history else 0
    if done < max(self._first_step, 1, last * departure.LEAST_RATIO):
      return {}
    before = self._alarm
    known = evaluated[self._metric], self._kl.compute()
    repeats = self._uses / self._num_rows
    finite = [x if math.isfinite(x) else None for x in known]
    self._history.append([done, *finite, repeats])
    self._kl = Mean(0.0, 0.0)
    self._judge()
    if len(self._history) < departure.MIN_POINTS and self._alarm is None:
      return {}
    words = self._write(checkpoint)
    if self._alarm is not None and before is None:
      log.warning("step %d: %s", done, words)
    latest = {name: float(score[-1]) for name, score in self._scores.items()}
    values = {f"guard/{n}": x for n, x in latest.items() if math.isfinite(x)}
    return values | {"guard/alarm": float(self._alarm is not None)}

  def _judge(self) -> None:
    """Scores, alarm and last clean step from the evaluations so far."""
    rows = np.array(self._history, np.float64).reshape(-1, 4).T
    asked, required = self._guard.thresholds, self._guard.evaluations
    self._series = departure.Series(*rows)
    self._scores = departure.scores(self._series, required)
    above = departure.alarms(self._scores, asked, 1)
    (alarms,) = np.nonzero(departure.alarms(self._scores, asked, required))
    self._alarm = int(alarms[0]) if alarms.size else None
    clean = self._series.steps[: self._alarm][~above[: self._alarm]]
    self._last_clean = int(clean[-1]) if clean.size else 0
    if self._alarm is not None and self._guard.mode == "go_online":
      fraction = self._guard.student_fraction
      self.plan = dataclasses.replace(
        self.plan, student_fraction=fraction, off_policy_source="teacher"
      )

  def _write(self, checkpoint: Callable[[int], Path | None]) -> str:
    """Writes guard.json; returns the finding in words."""
    steps, held_out, *_ = self._series
    last = len(steps) - 1 if self._alarm is None else self._alarm
    before = departure.window(last, self._guard.evaluations)
    law = None
    if np.isfinite(self._scores["z"][last]):
      fit = departure.fit_power_law(steps[before], held_out[before])
      law = {
        "intercept": float(fit.intercept),
        "slope": float(fit.slope),
        "sigma": float(fit.sigma),
        "steps": [int(steps[before][0]), int(steps[before][-1])],
      }
    alarm, folder = None, None
    if self._alarm is not None:
      folder = checkpoint(self._last_clean)
      alarm = {
        "step": int(steps[last]),
        "onset": int(steps[last + 1 - self._guard.evaluations]),
        "last_clean": self._last_clean,
        "checkpoint": folder and f"{folder.parent.name}/{folder.name}",
      }
    words = self._words(last, alarm)
    names = departure.Series._fields
    content = {
      **dataclasses.asdict(self._guard),
      "metric": self._metric,
      "series": dict(zip(names, zip(*self._history, strict=True), strict=True)),
      "power_law": law,
      "alarm": alarm,
      "words": f"{words}.",
    }
    if processes.is_writer():
      files.write_json(self._file, content)
    return words + (f": INITIAL_CHECKPOINT_PATH={folder}" if folder else "")

  def _words(self, last: int, alarm: Mapping[str, Any] | None) -> str:
    """The finding in plain words, without the path of the run."""
    found = [
      departure.SCORES[name].words.format(score[last])
      for name, score in self._scores.items()
      if math.isfinite(score[last])
    ]
    step = int(self._series.steps[last])
    evidence = f"At step {step:,} {', '.join(found)}"
    latest = {name: self._scores[name][last] for name in self._guard.thresholds}
    unknown = [name for name, x in latest.items() if not math.isfinite(x)]
    others = self._guard.thresholds.keys() - unknown
    is_open = all(latest[n] >= self._guard.thresholds[n] for n in others)
    if alarm is None and unknown and is_open:
      return f"Nothing can be said without {', '.join(unknown)}. {evidence}"
    if alarm is None:
      return f"No teacher hacking seen so far. {evidence}"
    kept = alarm["checkpoint"]
    return (
      f"Teacher hacking suspected from step {alarm['onset']:,} on. {evidence}."
      f" {_ACTIONS[self._guard.mode]}."
      f" {kept or 'No checkpoint'} is from before the onset"
    )


def read_history(folder: Path, until: int) -> dict[str, Any]:
  """Evaluations up to a step as `Controller.notes` has them, of guard.json."""
  file = folder / FILE_NAME
  if not file.exists():
    return {}
  content = files.read_json(file, {}, "delete it")
  files.check_types(file, content, _HISTORY, "delete it", required=True)
  columns = [content["series"][name] for name in departure.Series._fields]
  history = [[*row] for row in zip(*columns, strict=False) if row[0] <= until]
  return {"history": history, "metric": content["metric"]}
