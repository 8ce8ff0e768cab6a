"""From `Scoring` to evaluations: splits, caches, names, every check.

caches = open_caches(settings.evaluation, folders)
evaluations = make_evaluations(settings.evaluation, caches)
"""

from collections import Counter
from collections.abc import Sequence

from gkd.config.datasets import open_cache
from gkd.config.records import EvalConfig
from gkd.config.records import Folders
from gkd.data.cache import TokenCache
from gkd.evaluation import predictions
from gkd.evaluation.evaluation import Evaluation
from gkd.types import UserError


def open_caches(config: EvalConfig, folders: Folders) -> list[TokenCache]:
  """The caches of all splits, made now where they do not exist."""
  return [open_cache(data, folders) for data in config.splits]


def make_evaluations(
  config: EvalConfig, caches: Sequence[TokenCache]
) -> list[Evaluation]:
  """For each split one evaluation a way of decoding; distances once.

  Raises:
    UserError: a cache cannot serve an evaluation; without this it would be
      found only when the first one runs, maybe hours later.
  """
  num_ids = caches[0].info["vocabulary"]["size"]  # and of the models
  for strategy in config.strategies:
    strategy.check_num_ids(num_ids - 1)  # the padding is never generated
  tasks = Counter(cache.info["task"] for cache in caches)
  evaluations: list[Evaluation] = []
  for cache in caches:
    _check(cache, config.data.lengths["inputs"], caches[0])
    evaluations += [
      Evaluation(
        name=cache.info["task"],
        split=cache.info["split"],
        name_split=tasks[cache.info["task"]] > 1,
        cache=cache,
        lengths=config.data.lengths,
        decoding=strategy,
        batch_size=config.batch_size,
        num_examples=config.num_examples,
        # Without chance they are all the same.
        num_samples=config.num_samples if strategy.is_random else 1,
        chunk_size=config.chunk_size,
        label=strategy.label,
        distance=place == 0,
        bootstrap=config.bootstrap,
        score_teacher=config.teacher,
      )
      for place, strategy in enumerate(config.strategies)
    ]
  _refuse_same_names(evaluations)
  return evaluations


def _check(cache: TokenCache, width: int, first: TokenCache) -> None:
  """Whether ids and prompts fit and the task's functions can be imported."""
  made_with = [c.info["vocabulary"]["sha256"] for c in (first, cache)]
  if made_with[0] != made_with[1]:
    raise UserError(
      f"EVAL_SPLITS: cache {cache.path} was made with another vocabulary than"
      f" {first.path}; make it again with the model's VOCABULARY"
    )
  longest = cache.info["longest"]
  if longest["inputs"] > width:
    raise UserError(
      f"inputs length {width} is too short for the cache {cache.path}, which"
      f" has a row of {longest['inputs']}; raise TASK_FEATURE_LENGTHS or make"
      " a cache with the shorter length"
    )
  # Each is found, and imported, when it is first asked for.
  _ = cache.vocabulary, cache.postprocess, cache.metric_fns


def _refuse_same_names(evaluations: Sequence[Evaluation]) -> None:
  """Two evaluations must not write over each other's file."""
  found: dict[str, Evaluation] = {}
  for evaluation in evaluations:
    other = found.setdefault(
      predictions.stem(evaluation.file_parts), evaluation
    )
    if other is not evaluation:
      raise UserError(
        f"EVAL_SPLITS: {evaluation.name}/{evaluation.split} has the same name"
        f" as {other.name}/{other.split}, which is evaluated already; leave it"
        " out"
      )
