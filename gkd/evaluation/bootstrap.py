"""Confidence intervals by resampling prompts: the percentile bootstrap.

A resample takes as many prompts as there are, with replacement, and all samples
of a prompt together: answers to one prompt are not independent. The interval
goes from the 2.5th to the 97.5th percentile of the metric over the resamples.
It says how much the score would move with other prompts of the same kind, not
with other seeds of training. It is too short with few prompts, and of no
length where all examples score alike (an accuracy of 0 or 100 %).

Resamples depend on the seed and the number of prompts alone: all metrics and
models are measured on the same ones, at every step.

  scores([measure], num_prompts=1319, resamples=1000, seed=0)
  # {"accuracy": Score(11.2, 9.5, 12.9)}
"""

import collections
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import math
import types
from typing import NamedTuple

import numpy as np

PERCENTILES = (2.5, 97.5)
# EVAL_BOOTSTRAP's default. The standard error of each end is then 2 % of the
# interval's length: √(p(1−p)/R) / φ(z) with p = 0.025, over 2z.
RESAMPLES = 1000
# A stream of NumPy's own, which no draw of JAX shares.
_STREAM = 0x626F6F74
# Counts that exist at once, 8 bytes each.
_BLOCK = 1 << 20


class Score(NamedTuple):
  """A value, the ends of its 95 % interval and its standard error, or None."""

  value: float
  low: float | None = None
  high: float | None = None
  standard_error: float | None = None


class Measure(NamedTuple):
  """One or several metrics over the same prompts.

  Attributes:
    values: the metrics of all prompts.
    resampled: [R, N] counts of each prompt -> {name: [R]}.
    limit: resamples at most, None for no limit.
    num_prompts: N, where it is over a part of the prompts alone.
    standard_errors: of the values, where they are known.
  """

  values: Mapping[str, float]
  resampled: Callable[[np.ndarray], Mapping[str, np.ndarray]]
  limit: int | None = None
  num_prompts: int | None = None
  standard_errors: Mapping[str, float] = types.MappingProxyType({})


def scores(
  measures: Sequence[Measure], num_prompts: int, *, resamples: int, seed: int
) -> dict[str, Score]:
  """All metrics by name, with intervals where they may be resampled.

  The ends of an interval are NaN where a resample was not finite.

  Args:
    measures: metrics over the same prompts, or a part of them.
    num_prompts: N.
    resamples: number of resamples, 0 for no intervals.
    seed: of the run.
  """
  by_size = collections.defaultdict(list)
  for measure in measures:
    by_size[measure.num_prompts or num_prompts].append(measure)
  drawn: dict[str, list[np.ndarray]] = collections.defaultdict(list)
  for size, same in by_size.items():
    done = 0
    for counts in _resamples(size, resamples, seed):
      for measure in same:
        left = len(counts) if measure.limit is None else measure.limit - done
        if left > 0:
          for name, values in measure.resampled(counts[:left]).items():
            drawn[name].append(values)
      done += len(counts)
  return {
    name: Score(
      value,
      *_ends(drawn[name]),
      standard_error=measure.standard_errors.get(name),
    )
    for measure in measures
    for name, value in measure.values.items()
  }


def _resamples(
  num_prompts: int, resamples: int, seed: int
) -> Iterator[np.ndarray]:
  """Blocks [R, N] float64: how often each resample has each prompt."""
  generator = np.random.default_rng([_STREAM, seed])
  size = max(1, _BLOCK // num_prompts)
  for start in range(0, resamples, size):
    number = min(size, resamples - start)
    drawn = generator.integers(num_prompts, size=(number, num_prompts))
    drawn += num_prompts * np.arange(number)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=number * num_prompts)
    yield counts.reshape(number, num_prompts).astype(np.float64)


def _ends(blocks: Sequence[np.ndarray]) -> Sequence[float]:
  """Low and high end of an interval; () where nothing was resampled."""
  if not blocks:
    return ()
  values = np.concatenate(blocks)
  if not np.all(np.isfinite(values)):
    return math.nan, math.nan
  return np.percentile(values, PERCENTILES).tolist()
