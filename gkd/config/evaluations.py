"""Evaluations of an `EvalConfig`: splits, names and checks."""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import logging

from gkd.config import configuration
from gkd.config.records import EvalConfig
from gkd.data import task_functions
from gkd.data.cache import TokenCache
from gkd.data.cache_info import FEATURES
from gkd.evaluation import predictions
from gkd.evaluation import scores
from gkd.evaluation.evaluation import Evaluation
from gkd.types import UserError

log = logging.getLogger("gkd")


def make_evaluations(
  config: EvalConfig, caches: Sequence[TokenCache]
) -> list[Evaluation]:
  """One evaluation for each split and strategy; distances once a split.

  Raises:
    UserError: a cache cannot serve an evaluation; without this it would be
      found only when the first one runs, maybe hours later.
  """
  num_ids = caches[0].info["vocabulary"]["size"]  # and of the models
  for strategy in config.strategies:
    strategy.check_num_ids(num_ids - 1)  # the padding is never generated
  named = [*configuration.imported_modules()]
  named += [data.module for data in config.splits if data.module]
  tasks = Counter(cache.info["task"] for cache in caches)
  by_file: dict[str, Evaluation] = {}
  for data, cache in zip(config.splits, caches, strict=False):
    if data.cache:
      _check_functions(cache, named)
  for cache in caches:
    lengths = _checked_lengths(cache, config.data.lengths)
    if cache.with_target and (missing := cache.without_target):
      log.warning(
        "EVAL_SPLITS: %s/%s: %s; the task's metrics are of the others",
        *(cache.info["task"], cache.info["split"], missing),
      )
    for line in scores.outside_domain(cache, config.num_examples or len(cache)):
      log.warning(
        "EVAL_SPLITS: %s/%s: %s",
        *(cache.info["task"], cache.info["split"], line),
      )
    for index, strategy in enumerate(config.strategies):
      evaluation = Evaluation(
        name=cache.info["task"],
        split=cache.info["split"],
        name_split=tasks[cache.info["task"]] > 1,
        cache=cache,
        lengths=lengths,
        decoding=strategy,
        batch_size=config.batch_size,
        num_examples=config.num_examples,
        # Without chance they are all the same.
        num_samples=config.num_samples if strategy.is_random else 1,
        chunk_size=config.chunk_size,
        label=strategy.label,
        sequence_kl=index == 0,
        bootstrap=config.bootstrap,
        score_teacher=config.teacher,
        distances=tuple(config.distances),
      )
      stem = predictions.stem(evaluation.file_parts)
      if other := by_file.get(stem):
        raise UserError(
          f"EVAL_SPLITS: {evaluation.name}/{evaluation.split} has the same name"
          f" as {other.name}/{other.split}, which is evaluated already; leave"
          " it out"
        )
      by_file[stem] = evaluation
  return list(by_file.values())


def _checked_lengths(
  cache: TokenCache, given: Mapping[str, int]
) -> dict[str, int]:
  """The widths of a split's batches, for which none of its rows is too long."""
  lengths = {name: given[name] for name in FEATURES}
  _check(cache, lengths["inputs"])
  if (other := cache.teacher_prompts) is not None:
    lengths["teacher_inputs"] = given["teacher_inputs"]
    _check(other, lengths["teacher_inputs"], "teacher_inputs")
  return lengths


def _check_functions(cache: TokenCache, named: Iterable[str]) -> None:
  """Refuses functions of packages that the configuration does not name.

  A cache that is given by its folder may be somebody else's.
  """
  known = {"gkd", *(module.partition(".")[0] for module in named)}
  for name, package in task_functions.packages(cache.info).items():
    if package not in known:
      raise UserError(
        f"cache {cache.path} needs the function {name!r} of a module that this"
        " configuration does not name; if you trust it, add"
        f" --gin.TASK_MODULE={package}"
      )


def _check(cache: TokenCache, width: int, name: str = "inputs") -> None:
  """Whether prompts fit and the task's functions can be imported."""
  longest = cache.info["longest"]
  if longest["inputs"] > width:
    raise UserError(
      f"{name} length {width} is too short for the cache {cache.path}, which"
      f" has a row of {longest['inputs']}; raise TASK_FEATURE_LENGTHS or make"
      " a cache with the shorter length"
    )
  # Each is found, and imported, when it is first asked for.
  _ = cache.vocabulary, cache.postprocess, cache.metric_fns
