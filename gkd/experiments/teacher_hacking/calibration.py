"""How well the guard finds teacher hacking: recorded runs, replayed.

Each run has in guard.json what its guard followed, and in metrics.jsonl the
true distance, to the oracle, that no guard sees. A run hacks where the true
distance rises by 5 %; its alarm is in time if it does not come later. Set
thresholds on some arms, and judge them on others.

  python -m gkd.experiments.teacher_hacking.calibration lab/*/seed_* \
    --metric=eval/lab/forward_kl_to_oracle
"""

import argparse
from collections.abc import Mapping
from collections.abc import Sequence
import os
from pathlib import Path
import sys
from typing import NamedTuple

import numpy as np

from gkd import files
from gkd.training import departure
from gkd.training import guard_controller
from gkd.training import writers
from gkd.training.guard import Guard
from gkd.types import UserError

_ROC_POINTS = 9
_COLUMNS = ("in time", "found", "false alarms", "alarm / rise, step")
_NAMES = departure.Series._fields


class Recorded(NamedTuple):
  """One run: what its guard saw, and when the true distance had risen."""

  steps: np.ndarray  # [n]
  scores: Mapping[str, np.ndarray]  # each [n]
  risen: int | None  # step; None if it never did


class Share(NamedTuple):
  """A share of runs; its text has the 95 % interval by Wilson."""

  count: int
  total: int

  @property
  def interval(self) -> tuple[float, float]:
    """Lower and upper end; (0, 1) without runs."""
    if not self.total:
      return 0.0, 1.0
    share, z, n = self.count / self.total, 1.96, self.total
    center = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + (z / (2 * n)) ** 2) ** 0.5
    low, high = ((center + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    return max(low, 0.0), min(high, 1.0)

  def __str__(self) -> str:
    low, high = (100 * end for end in self.interval)
    return f"{self.count} of {self.total} ({low:.0f}–{high:.0f} %)"


class Rates(NamedTuple):
  """What a guard would have done."""

  in_time: Share  # of the runs that hack
  found: Share  # of them, ever
  false_alarms: Share  # of the others
  delay: float  # median of alarm step over step of the rise; NaN: no alarm


def read(folder: str | os.PathLike, metric: str, rise: float) -> Recorded:
  """The run of a folder; `rise_step` says what `rise` of `metric` means."""
  file = Path(folder) / guard_controller.FILE_NAME
  remedy = "give runs that their guard followed for eight evaluations"
  found = files.read_json(file, {}, remedy)
  types = {"series": dict.fromkeys(_NAMES, list)}
  files.check_types(file, found, types, remedy, required=True)
  values = writers.read_values(folder, metric)
  if not values:
    raise UserError(
      f"{folder} has no {metric!r} in {writers.METRICS_FILE}; give a distance"
      " that the run was evaluated for, as --metric"
    )
  followed = (np.array(found["series"][name], float) for name in _NAMES)
  series = departure.Series(*followed)
  scores = departure.scores(series, Guard.evaluations)
  return Recorded(series.steps, scores, rise_step(values, rise))


def rise_step(values: Mapping[int, float], rise: float) -> int | None:
  """From where on the distance stays above its lowest value; None for no rise.

  The last evaluation alone is no rise.

  Args:
    values: {step: distance}.
    rise: by so much, relative.
  """
  steps = sorted(values)
  curve = np.array([values[step] for step in steps])
  lowest = curve.min()
  (within,) = np.nonzero(curve - lowest <= rise * abs(lowest))
  first = within[-1] + 1
  return steps[first] if first < len(steps) - 1 else None


def rates(runs: Sequence[Recorded], thresholds: Mapping[str, float]) -> Rates:
  """What a guard with these thresholds would have done in all runs."""
  delays, false_alarms = [], []
  for run in runs:
    raised = departure.alarms(run.scores, thresholds, Guard.evaluations)
    step = run.steps[raised.argmax()] if raised.any() else np.inf
    if run.risen is None:
      false_alarms.append(np.isfinite(step))
    else:
      delays.append(step / run.risen)
  late = np.array(delays)
  alarms = late[np.isfinite(late)]
  return Rates(
    in_time=Share(int(np.sum(late <= 1)), len(late)),
    found=Share(len(alarms), len(late)),
    false_alarms=Share(sum(false_alarms), len(false_alarms)),
    delay=float(np.median(alarms)) if alarms.size else np.nan,
  )


def roc(
  runs: Sequence[Recorded], score: str, others: Mapping[str, float]
) -> dict[float, Rates]:
  """{threshold of one score: rates}; `others` have to be reached as well."""
  known = np.concatenate([run.scores[score] for run in runs])
  known = known[np.isfinite(known)]
  ends = np.linspace(0, 1, _ROC_POINTS)
  # Runs may be too short for a score.
  tried = np.unique(np.quantile(known, ends)) if known.size else ()
  return {float(x): rates(runs, {**others, score: x}) for x in tried}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("runs", nargs="+", help="folders of runs")
  parser.add_argument("--metric", required=True, help="the true distance")
  parser.add_argument("--rise", type=float, default=0.05)
  args = parser.parse_args()
  runs = [read(folder, args.metric, args.rise) for folder in args.runs]
  own = Guard().thresholds
  tables = {"of the guard": {"": rates(runs, own)}}
  for score in departure.SCORES:
    others = {} if score == "repeats" else {"repeats": own["repeats"]}
    tables[f"of {score}, {others}"] = roc(runs, score, others)
  for title, table in tables.items():
    print(f"\nThresholds {title}\n\n| least | {' | '.join(_COLUMNS)} |")
    print("|---" * (1 + len(_COLUMNS)) + "|")
    for least, found in table.items():
      cells = [str(share) for share in found[:3]] + [f"{found.delay:.2f}"]
      print(f"| {least and f'{least:.3g}'} | {' | '.join(cells)} |")


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(str(error))
