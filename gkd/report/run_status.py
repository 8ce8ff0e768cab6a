"""How far runs got, and what is missing of them.

A report reads files only: a run without its last step may have been stopped or
be running, and the page says no more than that.
"""

from collections.abc import Sequence
import math

from gkd.report import formats
from gkd.report.arms import Run


def updates(run: Run) -> str:
  """1,000 where the run is complete; 12 of 1,000; – for an evaluation."""
  if run.is_evaluation:
    return "–"
  done, planned = formats.number(run.num_steps), _planned_steps(run)
  return f"{done} of {planned:,}" if run.num_steps < planned else done


def diverged(run: Run) -> bool:
  """Whether the last loss or gradient was not finite, which ends a run."""
  watched = ("train/loss", "train/grad_norm")
  return not all(
    math.isfinite(run.last(name)) for name in watched if name in run.metrics
  )


def notes(runs: Sequence[Run], empty: Sequence[str]) -> list[tuple[str, str]]:
  """(run, note) for all runs that are not complete.

  Args:
    runs: with metrics.
    empty: names of runs without metrics.
  """
  found = []
  for run in runs:
    done, planned = run.num_steps, _planned_steps(run)
    if diverged(run):
      note = f"stopped at update {done:,}: its loss or gradient was not finite"
      found.append((run.title, note))
    elif done < planned and not run.is_evaluation:
      share = f"{100 * done / planned:.3g} %"
      note = (
        f"reported {done:,} of {planned:,} updates ({share}) so far: it was"
        " stopped or is still running"
      )
      found.append((run.title, note))
    found += [(run.title, note) for note in run.notes]
  return found + [
    (name, "has reported no numbers yet and is left out") for name in empty
  ]


def _planned_steps(run: Run) -> int:
  """`train_steps` of the settings; 0 where it is unknown."""
  return run.settings.get("train_steps") or 0
