"""Metrics of the answers to a split, in a form that can be resampled.

A metric function that says of which sums it is a function (`statistics`, see
`gkd.text.metrics`) is resampled by a matrix product; any other one is called
for each resample, which costs as many times its own price, and is bounded.

  bootstrap.scores(measures([records], cache), len(records), …)
  # {"accuracy": Score(54.2, 49.8, 58.6), "length": Score(31.4, …), …}
"""

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import inspect
import logging

import numpy as np

from gkd.errors import UserError
from gkd.errors import row_name
from gkd.evaluation import predictions
from gkd.evaluation import repeated_sampling
from gkd.evaluation.bootstrap import Measure
from gkd.evaluation.predictions import Cache
from gkd.evaluation.predictions import Record
from gkd.progress import Progress
from gkd.rewards import reward as rewards
from gkd.rewards.reward import Reward
from gkd.text.statistics import Statistics
from gkd.text.statistics import means

log = logging.getLogger("gkd")

# Calls for the interval of a metric function without `statistics`; its own
# attribute `resamples` says another number.
CALLS = 200
_QUIET_SECONDS = 5.0

MetricFn = Callable[[list, list], Mapping[str, float]]


def measures(
  answers: Sequence[Sequence[Record]],
  cache: Cache,
  reward: Reward | None = None,
) -> list[Measure]:
  """The task's own metrics, `length` in tokens and `truncation_rate`.

  With several answers to each prompt there is `self_bleu` too and, where there
  is something to vote on, `majority_<metric>` and `pass_at_<k>_<metric>`.

  Args:
    answers: one list of records for each time the whole split was answered;
      values are means over these times. Where a metric `takes_scores`, records
      have the "score" of the target.
    cache: metric functions; they see the rows that have a target.
    reward: judges all answers, if there is one; its mean is `reward`.

  Raises:
    UserError: two functions give a metric of the same name.
  """
  task_measures: list[Measure] = []
  scored = answers
  if not cache.info["has_targets"]:
    rows = set(cache.with_target)
    scored = [[r for r in draw if r["row"] in rows] for draw in answers]
  if scored[0]:
    targets = [record["reference"] for record in scored[0]]
    draws = [[record["prediction"] for record in draw] for draw in scored]
    for function in cache.metric_fns:
      if takes_scores(function):
        target_scores = [record["score"] for record in scored[0]]
        task_measures.append(called(function, targets, [target_scores]))
      elif _compared(function) == "texts":  # one of metric_objs
        texts = [[record["text"] for record in draw] for draw in scored]
        task_measures.append(called(function, targets, texts))
      else:
        task_measures += _function_measures(function, targets, draws)
  task_measures = [
    m._replace(num_prompts=len(scored[0])) for m in task_measures
  ]
  fields = {"length": "length", "truncation_rate": "truncated"}
  sizes = [
    means({n: [r[field] for r in draw] for n, field in fields.items()})
    for draw in answers
  ]
  result = [*task_measures, summed(sizes)]
  if len(answers) > 1:
    drawn = [[record["text"] for record in draw] for draw in answers]
    result.append(summed([repeated_sampling.self_bleu(drawn)]))
  if reward is not None:
    judged = [means({"reward": _rewards(reward, draw)}) for draw in answers]
    result.append(summed(judged))
  _refuse_repeated(name for measure in result for name in measure.values)
  return result


def _rewards(reward: Reward, records: Sequence[Record]) -> np.ndarray:
  """[N], of the answers of one draw."""
  answer = "prediction" if rewards.compares_answers(reward) else "text"
  columns = ([r[name] for r in records] for name in ("prompt", answer))
  return rewards.compute(reward, *columns, [r["reference"] for r in records])


def takes_scores(function: MetricFn) -> bool:
  """Whether it is seqio's `metric_fn(targets, scores)`: log-probabilities."""
  return _compared(function) == "scores"


def _compared(function: MetricFn) -> str:
  """The name of its second argument, which seqio goes by, too."""
  return [*inspect.signature(function).parameters][1]


def _refuse_repeated(names: Iterable[str]) -> None:
  """Of two metrics of one name only the last would be kept."""
  name, count = Counter(names).most_common(1)[0]
  if count > 1:
    raise UserError(
      f"the task has {count} metrics of the name {name!r}; rename them in what"
      " its metric functions return, or leave one out"
    )


def describe(
  cache: Cache, num_samples: int, num_rows: int, *, has_reward: bool = False
) -> dict[str, dict[str, str]]:
  """{name: unit, direction and signature} of the metrics of `measures`.

  The names are those of empty answers to the first examples; a function that
  cannot take these is left out, with a warning.

  Raises:
    UserError: a function lacks a package, or two give the same name.
  """
  described: list[tuple[str, dict[str, str]]] = []
  if scored := [row for row in cache.with_target if row < num_rows]:
    signed = any(getattr(fn, "signature", None) for fn in cache.metric_fns)
    read = scored if signed else scored[:2]
    references = [row.reference for row in cache.read(read)]
    targets = references[:2]
    empty = [predictions.postprocessed("", cache)] * len(targets)
    for function in cache.metric_fns:
      fields = {
        "unit": getattr(function, "unit", ""),
        "direction": getattr(function, "direction", "max"),
      }
      if signature := getattr(function, "signature", None):
        fields["signature"] = signature(references)
      try:
        if takes_scores(function):
          of_empty = [called(function, targets, [[0.0] * len(targets)])]
        else:
          of_empty = _function_measures(
            function, targets, [empty] * num_samples
          )
      except UserError:
        raise
      except Exception as error:  # a user's function, of answers to come
        log.warning(
          "metric %s: refuses empty answers (%r); nothing describes its values",
          *(getattr(function, "__name__", function), error),
        )
        continue
      described += [(n, fields) for measure in of_empty for n in measure.values]
  described.append(("length", {"unit": "tokens", "direction": ""}))
  described.append(("truncation_rate", {"unit": "", "direction": "min"}))
  if num_samples > 1:
    described.append(("self_bleu", {"unit": "", "direction": ""}))
  if has_reward:
    described.append(("reward", {"unit": "", "direction": "max"}))
  _refuse_repeated(name for name, _ in described)
  return dict(described)


def outside_domain(cache: Cache, num_rows: int) -> list[str]:
  """Which references have nothing that a metric compares, one line a metric.

  Of the first `num_rows` rows, which are evaluated.
  """
  functions = [fn for fn in cache.metric_fns if getattr(fn, "keeps", None)]
  if not functions:
    return []
  lines = []
  scored = [row for row in cache.with_target if row < num_rows]
  references = [row.reference for row in cache.read(scored)]
  for function in functions:
    lost = [
      (index, reference)
      for index, reference in zip(scored, references, strict=True)
      if not any(map(function.keeps, np.atleast_1d(reference).tolist()))
    ]
    if lost:
      lines.append(
        f"metric {function.__name__} finds no words in"
        f" {len(lost):,} of {len(scored):,} references, the first"
        f" is {row_name(lost[0][0])}, {lost[0][1]!r:.60}: they score 0 or"
        " count as one word; choose a metric with another tokenizer, such as"
        f" {function.__name__.partition('_')[0]}_char"
      )
  return lines


def summed(draws: Sequence[Statistics]) -> Measure:
  """Functions of sums; the mean over several answers to the whole split."""

  def resampled(counts: np.ndarray) -> dict[str, np.ndarray]:
    parts = [draw.resampled(counts) for draw in draws]
    return {n: np.mean([part[n] for part in parts], axis=0) for n in parts[0]}

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
    resamples: list[dict[str, float]] = []
    name = getattr(function, "__name__", "metric")
    with Progress(
      len(counts),
      description=f"interval of {name}, which has no statistics",
      unit="resample",
      delay=_QUIET_SECONDS,
    ) as progress:
      for row in counts.astype(int):
        resamples.append(values(np.repeat(np.arange(len(row)), row)))
        progress.update(1)
    return {n: np.array([r[n] for r in resamples]) for n in resamples[0]}

  limit = getattr(function, "resamples", CALLS)
  return Measure(values(range(len(targets))), resampled, limit)


def _function_measures(
  function: MetricFn, targets: list, draws: list[list]
) -> list[Measure]:
  """The metric over all answers; with several also majority and pass@k."""
  statistics = getattr(function, "statistics", None)
  vote = getattr(function, "answer", None)
  if statistics is None:
    return [called(function, targets, draws)]
  each = [statistics(targets, texts) for texts in draws]
  if vote is None or len(draws) == 1:
    return [summed(each)]
  voted = repeated_sampling.majority(statistics, targets, draws, vote)
  passed = repeated_sampling.pass_at_k(each)
  return [summed(each), summed([voted]), summed([passed])]


def _mean(draws: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The mean of each value over the draws."""
  return {
    name: float(np.mean([float(values[name]) for values in draws]))
    for name in draws[0]
  }
