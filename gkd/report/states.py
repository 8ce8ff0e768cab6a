"""How far runs got, and what is missing of them.

A report knows only files: a run without its last step may have been stopped or
be going on, and the page says no more than that.
"""

from collections.abc import Sequence
import math
import re

from gkd.report import formats
from gkd.report.runs import Run

# What ends a run that is not finite, see `training.loop`.
_WATCHED = ("train/loss", "train/grad_norm")


def updates(run: Run) -> str:
  """1,000 where the run is complete; 12 of 1,000; – of an evaluation."""
  if run.is_evaluation:
    return "–"
  done, planned = formats.number(run.num_steps), planned_steps(run)
  if planned is None or run.num_steps >= planned:
    return done
  return f"{done} of {formats.number(planned)}"


def planned_steps(run: Run) -> int | None:
  """TRAIN_STEPS of the configuration; None where it is no number."""
  text = run.config.get("TRAIN_STEPS", "")
  return int(text) if re.fullmatch(r"\d+", text) else None


def diverged(run: Run) -> bool:
  """Whether the last loss or gradient was not finite."""
  watched = [name for name in _WATCHED if name in run.metrics]
  return not all(math.isfinite(run.last(name)) for name in watched)


def notes(runs: Sequence[Run], silent: Sequence[str]) -> list[tuple[str, str]]:
  """(run, what a reader has to know of it), for all that are not whole."""
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
          f" ({share:.3g} %) so far: it was stopped or goes on",
        )
      )
    found += [(run.title, note) for note in run.notes]
  found += [
    (path, "has reported no numbers yet and is left out") for path in silent
  ]
  return found
