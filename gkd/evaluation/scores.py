"""Metrics of answers to a split, each with its confidence interval.

A metric function that says of which sums it is a function (`statistics`, see
`gkd.text.metrics`) is resampled by a matrix product; any other one is called
for each resample, which costs as many times its own price, and is bounded.

  scores([records], cache, resamples=1000, seed=0)
  # {"accuracy": Score(54.2, 49.8, 58.6), "length": Score(31.4, …), …}
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import logging
from typing import NamedTuple

import numpy as np

from gkd.evaluation import bootstrap
from gkd.evaluation import predictions
from gkd.evaluation.bootstrap import Measure
from gkd.evaluation.predictions import Cache
from gkd.evaluation.predictions import Record
from gkd.progress import Progress
from gkd.text.statistics import Statistics
from gkd.text.statistics import means

log = logging.getLogger("gkd")

# Calls for the interval of a metric function without `statistics`; its own
# attribute `resamples` says another number.
CALLS = 200
_QUIET_SECONDS = 5.0

MetricFn = Callable[[list, list], Mapping[str, float]]


class Score(NamedTuple):
  """A value and the ends of its 95 % interval, None without one."""

  value: float
  low: float | None = None
  high: float | None = None


def scores(
  answers: Sequence[Sequence[Record]],
  cache: Cache,
  *,
  resamples: int,
  seed: int,
) -> dict[str, Score]:
  """Scores of a split.

  Args:
    answers: one list of records for each time the whole split was answered;
      values are means over these times.
    cache: metric functions; a split without references has none.
    resamples: of the bootstrap; 0 gives no intervals.
    seed: of the run.

  Returns:
    The task's own metrics, `majority_<metric>` where there are several answers
    and something to vote on, `length` in tokens and `truncation_rate`.
  """
  measures: list[Measure] = []
  if cache.info["has_targets"]:
    targets = [record["reference"] for record in answers[0]]
    draws = [[record["prediction"] for record in found] for found in answers]
    for function in cache.metric_fns:
      measures += _measures(function, targets, draws)
  fields = {"length": "length", "truncation_rate": "truncated"}
  measures.append(
    summed(
      [
        means({n: [r[field] for r in found] for n, field in fields.items()})
        for found in answers
      ]
    )
  )
  return measured(measures, len(answers[0]), resamples=resamples, seed=seed)


def describe(cache: Cache, num_samples: int) -> dict[str, tuple[str, str]]:
  """{name: (unit, "max", "min" or "")} of the metrics that `scores` returns.

  The names are those of empty answers to the first examples; a function that
  cannot take these is left out, with a warning.
  """
  found = {}
  if cache.info["has_targets"]:
    rows = cache.read(range(min(2, len(cache))))
    targets = [row.reference for row in rows]
    draws = [[predictions.postprocessed("", cache)] * len(rows)] * num_samples
    for function in cache.metric_fns:
      unit = getattr(function, "unit", "")
      direction = getattr(function, "direction", "max")
      try:
        measures = _measures(function, targets, draws)
      except Exception as error:  # a user's function, of answers to come
        log.warning(
          "metric %s: refuses empty answers (%r); nothing describes its values",
          *(getattr(function, "__name__", function), error),
        )
        continue
      for measure in measures:
        found |= dict.fromkeys(measure.values, (unit, direction))
  return found | {"length": ("tokens", ""), "truncation_rate": ("", "min")}


def measured(
  measures: Sequence[Measure], num_prompts: int, *, resamples: int, seed: int
) -> dict[str, Score]:
  """Values of all measures with their intervals."""
  found = bootstrap.intervals(measures, num_prompts, resamples, seed)
  return {
    name: Score(value, *found.get(name, ()))
    for measure in measures
    for name, value in measure.values.items()
  }


def summed(draws: Sequence[Statistics]) -> Measure:
  """Functions of sums; the mean over several answers to the whole split."""

  def resampled(counts: np.ndarray) -> dict[str, np.ndarray]:
    found = [draw.resampled(counts) for draw in draws]
    return {n: np.mean([part[n] for part in found], axis=0) for n in found[0]}

  return Measure(_mean([draw.compute() for draw in draws]), resampled)


def called(
  function: MetricFn, targets: Sequence, draws: Sequence[Sequence]
) -> Measure:
  """A metric function that must see the examples of every resample.

  Args:
    function: the task's.
    targets: [N] references.
    draws: for each answer to the whole split [N] predictions.
  """

  def values(places: Sequence[int]) -> dict[str, float]:
    chosen = [targets[place] for place in places]
    texts = [[draw[place] for place in places] for draw in draws]
    return _mean([function(chosen, predictions) for predictions in texts])

  def resampled(counts: np.ndarray) -> dict[str, np.ndarray]:
    found: list[dict[str, float]] = []
    name = getattr(function, "__name__", "metric")
    with Progress(
      len(counts),
      description=f"interval of {name}, which has no statistics",
      unit="resample",
      delay=_QUIET_SECONDS,
    ) as progress:
      for row in counts.astype(int):
        found.append(values(np.repeat(np.arange(len(row)), row)))
        progress.update(1)
    return {n: np.array([part[n] for part in found]) for n in found[0]}

  limit = getattr(function, "resamples", CALLS)
  return Measure(values(range(len(targets))), resampled, limit)


def flat(found: Mapping[str, Score]) -> dict[str, float]:
  """{name: Score} -> {name, name_ci_low, name_ci_high: number}."""
  values: dict[str, float] = {}
  for name, score in found.items():
    values[name] = score.value
    if score.low is not None:
      values[f"{name}_ci_low"] = score.low
      values[f"{name}_ci_high"] = score.high
  return values


def _measures(
  function: MetricFn, targets: list, draws: list[list]
) -> list[Measure]:
  """The metric over all answers and, with several, over the majority's."""
  statistics = getattr(function, "statistics", None)
  vote = getattr(function, "answer", None)
  if statistics is None:
    return [called(function, targets, draws)]
  found = [summed([statistics(targets, texts) for texts in draws])]
  if vote is not None and len(draws) > 1:
    chosen = statistics(targets, _majority(draws, vote))
    found.append(summed([_with_prefix("majority_", chosen)]))
  return found


def _majority(draws: list[list], vote: Callable[[str], str]) -> list:
  """For each prompt a text with the most frequent answer.

  Self-consistency (Wang et al., ICLR 2023), maj@n: answers that are empty have
  no vote, and of equally frequent ones that which was drawn first wins.
  """
  chosen = []
  for texts in zip(*draws, strict=True):
    answers = [vote(text) for text in texts]
    counted = Counter(filter(None, answers)).most_common(1)
    place = answers.index(counted[0][0]) if counted else 0
    chosen.append(texts[place])
  return chosen


def _with_prefix(prefix: str, statistics: Statistics) -> Statistics:
  def of_sums(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {prefix + n: v for n, v in statistics.of_sums(sums).items()}

  return dataclasses.replace(statistics, of_sums=of_sums)


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each value over the draws."""
  return {
    name: float(np.mean([float(values[name]) for values in found]))
    for name in found[0]
  }
