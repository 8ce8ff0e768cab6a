"""How far runs got, and what is missing of them.

A report reads files only: a run without its last step may have been stopped or
be running, and the page says no more than that.
"""

from collections.abc import Sequence
import math

from gkd.report import formats
from gkd.report.arms import Run

# A run whose loss or gradient is not finite ends, see `training.loop`.
_WATCHED = ("train/loss", "train/grad_norm")


def updates(run: Run) -> str:
  """1,000 where the run is complete; 12 of 1,000; – for an evaluation."""
  if run.is_evaluation:
    return "–"
  done, planned = formats.number(run.num_steps), planned_steps(run)
  if planned is None or run.num_steps >= planned:
    return done
  return f"{done} of {formats.number(planned)}"


def planned_steps(run: Run) -> int | None:
  """`train_steps` of the settings; None where it is unknown."""
  steps = run.settings.get("train_steps")
  return steps if formats.is_number(steps) else None


def diverged(run: Run) -> bool:
  """Whether the last loss or gradient was not finite."""
  watched = [name for name in _WATCHED if name in run.metrics]
  return not all(math.isfinite(run.last(name)) for name in watched)


def notes(runs: Sequence[Run], empty: Sequence[str]) -> list[tuple[str, str]]:
  """(run, note) for all runs that are not complete.

  Args:
    runs: with metrics.
    empty: names of runs without metrics.
  """
  found = []
  for run in runs:
    planned = planned_steps(run)
    if diverged(run):
      found.append(
        (
          run.title,
          f"stopped at update {run.num_steps:,}: its loss or gradient was not"
          " finite",
        )
      )
    elif not run.is_evaluation and planned and run.num_steps < planned:
      share = 100 * run.num_steps / planned
      found.append(
        (
          run.title,
          f"reported {run.num_steps:,} of {planned:,} updates"
          f" ({share:.3g} %) so far: it was stopped or is still running",
        )
      )
    found += [(run.title, note) for note in run.notes]
  return found + [
    (name, "has reported no numbers yet and is left out") for name in empty
  ]
