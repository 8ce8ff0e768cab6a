"""From `Scoring` to evaluations: splits, caches, names, every check.

caches = open_caches(settings.scoring, folders)
evaluations = make_evaluations(settings.scoring, caches)
"""

from collections import Counter
from collections.abc import Sequence

from gkd.config import configuration
from gkd.config.datasets import Folders
from gkd.config.datasets import open_cache
from gkd.config.records import Data
from gkd.config.records import Scoring
from gkd.data.cache import TokenCache
from gkd.evaluation import predictions
from gkd.evaluation.evaluation import Evaluation
from gkd.sampling.strategies import check_beams
from gkd.types import LanguageModel
from gkd.types import UserError


def open_caches(scoring: Scoring, folders: Folders) -> list[TokenCache]:
  """The caches of all splits, made now where they do not exist."""
  return [open_cache(data, folders) for data in scoring.splits]


def make_evaluations(
  scoring: Scoring, caches: Sequence[TokenCache]
) -> list[Evaluation]:
  """For each split one evaluation a way of decoding; distances once.

  Raises:
    UserError: a cache cannot serve an evaluation; without this it would be
      found only when the first one runs, maybe hours later.
  """
  if scoring.beam_size:
    num_ids = caches[0].info["vocabulary"]["size"]  # and of the models
    check_beams(scoring.beam_size, num_ids - 1)  # PAD is never taken
  tasks = Counter(cache.info["task"] for cache in caches)
  evaluations: list[Evaluation] = []
  for cache in caches:
    _check(cache, scoring.data.lengths["inputs"], caches[0])
    evaluations += [
      Evaluation(
        name=cache.info["task"],
        split=cache.info["split"],
        name_split=tasks[cache.info["task"]] > 1,
        cache=cache,
        lengths=scoring.data.lengths,
        decoding=way,
        batch_size=scoring.batch_size,
        num_examples=scoring.num_examples,
        # Without chance they are all the same.
        num_samples=scoring.num_samples if way.is_random else 1,
        chunk_size=scoring.chunk_size,
        label=way.label,
        distance=place == 0,
        bootstrap=scoring.bootstrap,
        score_teacher=scoring.teacher,
      )
      for place, way in enumerate(scoring.ways)
    ]
  _refuse_same_names(evaluations)
  return evaluations


def refuse_idle_flags(
  teacher: LanguageModel | None, scoring: Scoring | None
) -> None:
  """What only a teacher, or a beam search, gives a meaning."""
  if scoring is not None and not scoring.beam_size:
    why = "EVAL_BEAM_SIZE is 0, so there is no beam search"
    configuration.refuse_idle_flags(["EVAL_BEAM_ALPHA"], why)
  if teacher is None:
    names = ("EVAL_TEACHER", "EVAL_CHUNK_SIZE")
    configuration.refuse_idle_flags(names, "there is no teacher")


def refuse_idle_names(
  train: Data | None, scoring: Scoring | None, *, module: bool = True
) -> None:
  """Names of splits that nothing asks for where token caches are given.

  Args:
    train: what is trained on.
    scoring: what is evaluated on.
    module: whether only the making of a cache reads TASK_MODULE.
  """
  if train is not None and train.cache:
    why = "TRAIN_CACHE is given and holds its split"
    configuration.refuse_idle_flags(["TRAIN_SPLIT"], why)
  if scoring is not None and scoring.data.cache:
    why = "EVAL_CACHE is given and holds its task and split"
    configuration.refuse_idle_flags(["EVAL_SPLIT", "EVAL_TASK"], why)
  read = [train] * (train is not None) + (scoring.splits if scoring else [])
  if all(data.cache for data in read):
    names = ["MIXTURE_OR_TASK_NAME", "OVERLONG"] + ["TASK_MODULE"] * module
    why = "token caches are given, and nothing is tokenised"
    configuration.refuse_idle_flags(names, why)


def _check(cache: TokenCache, width: int, first: TokenCache) -> None:
  """Whether ids and prompts fit and the task's functions can be imported."""
  made_with = [c.info["vocabulary"]["sha256"] for c in (first, cache)]
  if made_with[0] != made_with[1]:
    raise UserError(
      f"EVAL_ALSO: cache {cache.path} was made with another vocabulary than"
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
        f"EVAL_ALSO: {evaluation.name}/{evaluation.split} has the same name as"
        f" {other.name}/{other.split}, which is evaluated already; leave it out"
      )
