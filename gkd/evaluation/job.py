"""One evaluation at work: models by role generate for the prompts of a split.

Draws of the student depend on its step; a frozen model is the same at all steps
of a run, so what it generates is drawn once and kept.

  job = Job.of(evaluation, {"student": student, "teacher": teacher}, seed=0,
               step=100)
  for example, samples in job.generate("student", 0, strategy, "answers"):
    …
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeVar
import zlib

import jax

from gkd import keys
from gkd import partitioning
from gkd import watchdog
from gkd.collate import collate
from gkd.errors import row_name
from gkd.evaluation import bootstrap
from gkd.evaluation import scores
from gkd.evaluation.bootstrap import Measure
from gkd.evaluation.bootstrap import Score
from gkd.evaluation.evaluation import Evaluation
from gkd.progress import Progress
from gkd.sampling.generate import generate
from gkd.sampling.generate import prefetch
from gkd.sampling.params import SamplingParams
from gkd.sampling.sampler import Samples
from gkd.sampling.strategies import Strategy
from gkd.types import Batch
from gkd.types import Model
from gkd.types import UserError

_T = TypeVar("_T")

# Draws of one evaluation, folded into its stream: answers count up from numbers
# far from each other, the sequences for the distances have fixed ones.
ANSWERS = {"student": 0, "teacher": 1 << 21}
_SEQUENCES = {"student": 1 << 20, "teacher": (1 << 20) + 1}
_OTHER_SEQUENCES = 1 << 22
_FROZEN_STEP = 0
# What is done sooner shows no progress: no need to wait for it.
_QUIET_SECONDS = 5.0


class Examples(NamedTuple):
  """One batch of prompts and what the cache says about its rows."""

  batch: Batch  # without targets; the last one of a split has filler rows
  indices: range  # of the rows in the cache, no fillers
  rows: list  # `data.cache.Row`s
  scored: Batch | None  # with targets, where a metric takes their scores


class Job(NamedTuple):
  """An evaluation with its prompts on the device, and who answers them."""

  evaluation: Evaluation
  examples: list[Examples]
  roles: Mapping[str, Model]
  seed: int
  step: int
  on_batch: Callable[[], None]  # after each batch of whatever is computed

  @classmethod
  def of(
    cls,
    evaluation: Evaluation,
    roles: Mapping[str, Model],
    *,
    seed: int,
    step: int,
    batch_sharding: Any = None,
    on_batch: Callable[[], None] = lambda: None,
  ) -> "Job":
    """Reads the evaluated rows of the split."""
    examples = _examples(evaluation, batch_sharding)
    return cls(evaluation, examples, roles, seed, step, on_batch)

  def generate(
    self,
    role: str,
    draw: int,
    strategy: Strategy,
    phase: str,
    *,
    finish: Callable[[Samples], Samples] = lambda samples: samples,
  ) -> Iterator[tuple[Examples, Samples]]:
    """Samples of each batch, by draw number `draw` of this evaluation.

    `finish` launches what is done to them before they are waited for.
    """
    step = self.step if role == "student" else _FROZEN_STEP
    key = keys.stream(self.seed, step, keys.Role.EVALUATION)
    key = jax.random.fold_in(key, draw)
    answered = (
      generate(
        self.roles[role],
        batch,
        key,
        strategy,
        max_length=self.evaluation.lengths["targets"],
        vocabulary=self.evaluation.cache.vocabulary,
      )
      for batch, *_ in self.examples
    )
    # A program dispatched later would wait for the batch after this one.
    dispatched = ((finish(x), _is_finite(x)) for x in answered)
    checked = self.with_progress(dispatched, phase)
    for example, (samples, is_finite) in checked:
      self.raise_unless(is_finite, f"the {role}'s logits")
      yield example, samples

  def sequences(self, role: str) -> list[Batch]:
    """The batches with sequences of a model at temperature 1 as targets."""
    name, phase = role.encode(), f"text of the {role}"
    draw = _SEQUENCES.get(role, _OTHER_SEQUENCES + zlib.crc32(name) % (1 << 30))
    samples = self.generate(role, draw, SamplingParams(), phase)
    return [
      batch.replace(targets=drawn.tokens, weights=drawn.weights)
      for (batch, *_), drawn in samples
    ]

  def raise_unless(self, is_finite: Any, what: str) -> None:
    """Raises before a score of numbers that mean nothing."""
    if not is_finite:
      raise FloatingPointError(
        f"evaluation of {self.evaluation.name}, split"
        f" {self.evaluation.split!r}: {what} are not finite, so there are no"
        " scores; look at the checkpoint"
      )

  def with_progress(
    self, dispatched: Iterable[_T], phase: str
  ) -> Iterator[tuple[Examples, _T]]:
    """Each batch with its result; shows the progress if that takes long."""
    evaluation = self.evaluation
    with Progress(
      evaluation.num_rows,
      description=f"{evaluation.name} {evaluation.split}, {phase}",
      unit="prompt",
      delay=_QUIET_SECONDS,
    ) as progress:
      results = prefetch(dispatched)
      for example, result in zip(self.examples, results, strict=True):
        yield example, result
        progress.update(len(example.rows))
        watchdog.of_process.at("evaluate")
        self.on_batch()

  def kept(
    self, name: str, roles: Sequence[str], compute: Callable[[], _T]
  ) -> _T:
    """A result of frozen models, computed at the first evaluation of a run."""
    models = [self.roles[role] for role in roles]
    return self.evaluation.frozen_cache.get(name, models, self.seed, compute)

  def with_intervals(self, measures: Sequence[Measure]) -> dict[str, Score]:
    """The measures' values, each with its interval over the prompts."""
    watchdog.of_process.at("score")
    return bootstrap.scores(
      measures,
      self.evaluation.num_rows,
      resamples=self.evaluation.bootstrap,
      seed=self.seed,
    )


def _examples(evaluation: Evaluation, sharding: Any) -> list[Examples]:
  """The evaluated rows of a split, in order."""
  examples = []
  size, lengths = evaluation.batch_size, evaluation.lengths
  with_scores = any(map(scores.takes_scores, evaluation.cache.metric_fns))
  for start in range(0, evaluation.num_rows, size):
    indices = range(start, min(start + size, evaluation.num_rows))
    rows = evaluation.cache.read(list(indices))
    for index, row in zip(indices, rows, strict=True):
      if len(row.inputs) > lengths["inputs"]:
        raise UserError(
          f"evaluation of {evaluation.name}, split {evaluation.split!r}:"
          f" {row_name(index)} has {len(row.inputs)} input tokens, more than"
          f" {lengths['inputs']}; raise TASK_FEATURE_LENGTHS or cache the task"
          " again"
        )
    batch = collate(rows, indices, lengths, size, with_targets=False)
    scored = None
    if with_scores:
      longest = evaluation.cache.info["longest"]["targets"]
      scored = collate(rows, indices, {**lengths, "targets": longest}, size)
    if sharding is not None:
      batch, scored = partitioning.place((batch, scored), sharding)
    examples.append(Examples(batch, indices, rows, scored))
  return examples


_is_finite = jax.jit(lambda samples: samples.is_finite)
