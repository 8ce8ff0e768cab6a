"""Distances and agreement of a student, and of a teacher, with frozen models.

The student is compared with each frozen model, the teacher with each frozen
model but itself, which is a number of the run. Sequences of a model serve for
all comparisons of an evaluation, those of a frozen model for all evaluations.

  scores(job)  # {"forward_kl": Score(…), "forward_kl_to_judge": …}
"""

from collections.abc import Callable
from collections.abc import Iterable
import functools
from typing import NamedTuple

import jax
import numpy as np

from gkd import processes
from gkd.evaluation import sequence_distance
from gkd.evaluation.bootstrap import Measure
from gkd.evaluation.bootstrap import Score
from gkd.evaluation.job import Job
from gkd.evaluation.scores import summed
from gkd.evaluation.sequence_distance import Distance
from gkd.evaluation.sequence_distance import Estimates
from gkd.evaluation.sequence_distance import Writer
from gkd.types import Batch


class Comparison(NamedTuple):
  """A model (q of the distances) and a frozen one (p), by role."""

  role: str
  compared_with: str

  def text_of(self, writer: Writer) -> str:
    """Whose text it is: of the frozen model (p), or the other one's own."""
    return self.compared_with if writer == "p" else "own"

  def metric_name(self, metric: str) -> str:
    """`[<role>_]<metric>[_to_<role>]`; the student's and to the teacher."""
    prefix = "" if self.role == "student" else f"{self.role}_"
    other = self.compared_with
    suffix = "" if other == "teacher" else f"_to_{other}"
    return f"{prefix}{metric}{suffix}"


def comparisons(roles: Iterable[str]) -> list[Comparison]:
  """What is compared when there are models of these roles."""
  roles = list(roles)
  frozen = [role for role in roles if role != "student"]
  others = [role for role in frozen if role != "teacher"]
  own = [Comparison("teacher", role) for role in others if "teacher" in roles]
  return [Comparison("student", role) for role in frozen] + own


def writers(distances: Iterable[Distance]) -> list[Writer]:
  """Whose sequences the distances need."""
  needed = {writer for distance in distances for writer in distance.terms}
  return sorted(needed)


def scores(job: Job) -> dict[str, Score]:
  """All distances and agreements by the names of their metrics."""
  drawn: dict[str, list[Batch]] = {}

  def sequences(role: str) -> list[Batch]:
    if role not in drawn:
      draw = functools.partial(job.sequences, role)
      frozen = role != "student"
      drawn[role] = job.kept(f"{role} text", [role], draw) if frozen else draw()
    return drawn[role]

  found = {}
  for pair in comparisons(job.roles):
    compute = functools.partial(_distances, job, pair, sequences)
    if pair.role == "student":
      values = compute()
    else:
      values = job.kept(f"distances of {pair}", pair, compute)
    found |= {pair.metric_name(name): score for name, score in values.items()}
  return found


def _distances(
  job: Job, pair: Comparison, sequences: Callable[[str], list[Batch]]
) -> dict[str, Score]:
  """Those of a comparison, with intervals and standard errors."""
  distances = list(map(Distance.named, job.evaluation.distances))
  estimated = {
    writer: _estimates(job, pair, writer, sequences, distances)
    for writer in writers(distances)
  }
  measured = [distance.statistics(estimated) for distance in distances]
  measured += [
    sequence_distance.shares(pair.text_of(writer), parts)
    for writer, parts in estimated.items()
  ]
  if len(estimated) == 2:
    lengths = sequence_distance.length_ratio(estimated["q"], estimated["p"])
    measured.append(lengths)
  measures: list[Measure] = []
  for statistics in measured:
    errors = statistics.standard_errors()
    measures.append(summed([statistics])._replace(standard_errors=errors))
  return job.with_intervals(measures)


def _estimates(
  job: Job,
  pair: Comparison,
  writer: Writer,
  sequences: Callable[[str], list[Batch]],
  distances: list[Distance],
) -> list[Estimates]:
  """Of all batches, from sequences of one of the two models."""
  # From here on the writer is a and the other one b.
  roles = pair if writer == "q" else pair[::-1]
  a, b = (job.roles[role] for role in roles)
  weights = [x.terms[writer][1] for x in distances if writer in x.terms]
  dispatched = (
    processes.replicate(
      _estimates_of_batch(
        *(a.lm, a.params, b.lm, b.params),
        batch,
        weights=tuple(sorted(set(weights))),
        log_probs=any(distance.is_log_ratio for distance in distances),
        chunk_size=job.evaluation.chunk_size,
      )
    )
    for batch in sequences(roles[0])
  )
  phase = f"{' and '.join(pair)} on text of the {roles[0]}"
  results = job.with_progress(dispatched, phase)
  estimated = jax.device_get([estimate for _, estimate in results])
  # Infinite is a true value, of a model that excludes a token.
  numbers = jax.tree.leaves(estimated)
  is_number = not any(np.isnan(array).any() for array in numbers)
  job.raise_unless(is_number, f"distances of {phase}")
  return estimated


# Compiled once per pair of models and shape.
_estimates_of_batch = jax.jit(
  sequence_distance.estimates,
  static_argnames=("a_model", "b_model", "weights", "log_probs", "chunk_size"),
)
