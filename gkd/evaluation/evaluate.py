"""Evaluation by generation: scores of one model on one split.

The model answers the prompts of a split, the texts are postprocessed and scored
by the task's own metric functions, and every prediction is written down. With a
teacher its own answers are scored in the same way, once, and the KLs between
the two models are measured on the same prompts: forward KL on sequences of the
teacher, reverse KL on sequences of the student, both at temperature 1.

Evaluation reads parameters and draws from its own random stream; it changes
nothing and never runs TensorFlow.

  evaluation = Evaluation("arithmetic", "validation", cache, lengths,
                          SamplingParams(temperature=0.0), batch_size=64)
  evaluate(evaluation, {"student": Model(lm, params)}, seed=0, step=100)
  # {"eval/arithmetic/accuracy": 54.2, "eval/arithmetic/accuracy_ci_low": …}
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple
from typing import TypeVar

import jax
import numpy as np

from gkd import keys
from gkd.collate import collate
from gkd.errors import explaining_memory
from gkd.errors import row_name
from gkd.evaluation import bootstrap
from gkd.evaluation import predictions
from gkd.evaluation import scores
from gkd.evaluation import sequence_kl
from gkd.evaluation.bootstrap import Measure
from gkd.evaluation.bootstrap import Score
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.predictions import Record
from gkd.losses.likelihood import score_batch
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
Answers = Sequence[Sequence[Record]]

# Draws of one evaluation, folded into its stream: answers count up from numbers
# far from each other, the sequences for the KLs have fixed ones.
_ANSWERS = {"student": 0, "teacher": 1 << 21}
_SEQUENCES = {"student": 1 << 20, "teacher": (1 << 20) + 1}
# A teacher is the same at all steps of a run.
_TEACHER_STEP = 0
# What is done sooner shows no progress: no need to wait for it.
_QUIET_SECONDS = 5.0


@explaining_memory("lower EVAL_BATCH_SIZE or, for the KLs, EVAL_CHUNK_SIZE")
def evaluate(
  evaluation: Evaluation,
  roles: Mapping[str, Model],
  *,
  seed: int,
  step: int,
  predictions_dir: str | None = None,
  batch_sharding: Any = None,
  on_answers: Callable[[Answers], None] | None = None,
) -> dict[str, float]:
  """Scores of the student on one split, also in comparison with a teacher.

  Args:
    evaluation: the split and the decoding strategy.
    roles: {"student": the model that is evaluated}, maybe with a "teacher".
    seed: of the run.
    step: of the student; draws and file names depend on it.
    predictions_dir: where to write `<task>-<split>-<label>-<step>.jsonl`.
    batch_sharding: layout of batches over devices; default as jit places them.
    on_answers: called with the records of all answers.

  Returns:
    `eval/<task>/<metric>`: the task's metrics, `majority_<metric>` where
    several answers can be voted on, `length` in tokens, `truncation_rate`; with
    a teacher the same of its answers as `teacher_<metric>`, and `forward_kl`
    and `reverse_kl`, summed over a sequence, and the same `…_per_token`. Each
    comes with the ends of its 95 % interval, `<metric>_ci_low` and `…_ci_high`.

  Raises:
    FloatingPointError: the logits of a model are not finite.
  """
  examples = _examples(evaluation, batch_sharding)
  job = _Job(evaluation, examples, roles, seed, step)
  answers = job.answers("student", "answers")
  if predictions_dir is not None:
    predictions.write(answers, predictions_dir, evaluation.file_parts, step)
  if on_answers is not None:
    on_answers(answers)
  metric_name, label = evaluation.metric_name, evaluation.label
  scored = {metric_name(n, label): s for n, s in job.scores(answers).items()}
  if "teacher" in roles:
    if evaluation.score_teacher:
      teacher_scores = job.teacher_scores().items()
      scored |= {
        metric_name(f"teacher_{n}", label): s for n, s in teacher_scores
      }
    if evaluation.sequence_kl:
      scored |= {metric_name(n): s for n, s in job.kls().items()}
  values: dict[str, float] = {}
  for name, (value, low, high) in scored.items():
    values[name] = value
    if low is not None:
      values |= {f"{name}_ci_low": low, f"{name}_ci_high": high}
  return values


class Examples(NamedTuple):
  """One batch of prompts and what the cache says about its rows."""

  batch: Batch  # without targets; the last one of a split has filler rows
  rows: list  # `data.cache.Row`s, no fillers
  scored: Batch | None  # with targets, where a metric takes their scores


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
      batch, scored = jax.device_put((batch, scored), sharding)
    examples.append(Examples(batch, rows, scored))
  return examples


class _Job(NamedTuple):
  """One evaluation at work: its prompts on the device, and who answers them."""

  evaluation: Evaluation
  examples: list[Examples]
  roles: Mapping[str, Model]
  seed: int
  step: int

  def generate(
    self, role: str, draw: int, strategy: Strategy, phase: str
  ) -> Iterator[tuple[Examples, Samples]]:
    """Samples of each batch, by draw number `draw` of this evaluation."""
    step = _TEACHER_STEP if role == "teacher" else self.step
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
    dispatched = ((samples, _is_finite(samples)) for samples in answered)
    checked = self.with_progress(dispatched, phase)
    for example, (samples, is_finite) in checked:
      self.raise_unless(is_finite, f"the {role}'s logits")
      yield example, samples

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

  def answers(self, role: str, phase: str) -> list[list[Record]]:
    """`num_samples` lists of records, one record for each row."""
    cache, strategy = self.evaluation.cache, self.evaluation.decoding
    first = _ANSWERS[role]
    answers = [
      [
        record
        for example, samples in self.generate(role, draw, strategy, phase)
        for record in predictions.records(
          np.asarray(example.batch.rows),
          *(example.rows, jax.device_get(samples), cache),
        )
      ]
      for draw in range(first, first + self.evaluation.num_samples)
    ]
    if self.examples[0].scored is not None:
      target_scores = self.target_scores(role)
      for draw in answers:
        for record, score in zip(draw, target_scores, strict=True):
          record["score"] = score
    return answers

  def target_scores(self, role: str) -> list[float]:
    """Log p(target | prompt) of each row, in nats, as T5X's `score_batch`."""
    model = self.roles[role]
    dispatched = (
      _score_batch(model.lm, model.params, example.scored)
      for example in self.examples
    )
    phase = f"scores of the targets by the {role}"
    return [
      score
      for example, batch in self.with_progress(dispatched, phase)
      for score in jax.device_get(batch).tolist()[: len(example.rows)]
    ]

  def sequences(self, role: str) -> list[Batch]:
    """The batches with sequences of a model at temperature 1 as targets."""
    draw, phase = _SEQUENCES[role], f"text of the {role}"
    return [
      batch.replace(targets=samples.tokens, weights=samples.weights)
      for (batch, *_), samples in self.generate(
        role, draw, SamplingParams(), phase
      )
    ]

  def scores(self, answers: Answers) -> dict[str, Score]:
    return self.with_intervals(scores.measures(answers, self.evaluation.cache))

  def teacher_scores(self) -> dict[str, Score]:
    """Scores of the teacher's answers, computed once a run."""
    return self.cached(
      "scores",
      lambda: self.scores(self.answers("teacher", "answers of the teacher")),
    )

  def kls(self) -> dict[str, Score]:
    """Forward KL on the teacher's sequences, reverse KL on the student's."""
    teacher, student = self.roles["teacher"], self.roles["student"]
    batches = {
      "forward": self.cached("sequences", lambda: self.sequences("teacher")),
      "reverse": self.sequences("student"),
    }
    measures = []
    for direction in batches:
      dispatched = (
        _sequence_estimates(
          *(teacher.lm, teacher.params, student.lm, student.params),
          batch,
          direction=direction,
          chunk_size=self.evaluation.chunk_size,
        )
        for batch in batches[direction]
      )
      results = self.with_progress(dispatched, f"{direction} KL")
      estimates = jax.device_get([estimate for _, estimate in results])
      # Infinite is a true value, of a model that excludes a token.
      is_number = not np.isnan([part.token_sum for part in estimates]).any()
      self.raise_unless(is_number, f"values of the {direction} KL")
      statistics = sequence_kl.statistics(estimates, direction)
      measures.append(scores.summed([statistics]))
    return self.with_intervals(measures)

  def cached(self, name: str, compute: Callable[[], _T]) -> _T:
    """A result of the teacher, computed at the first evaluation of a run."""
    teacher = self.roles["teacher"]
    return self.evaluation.teacher_cache.get(name, teacher, self.seed, compute)

  def with_intervals(self, measures: Sequence[Measure]) -> dict[str, Score]:
    return bootstrap.scores(
      measures,
      self.evaluation.num_rows,
      resamples=self.evaluation.bootstrap,
      seed=self.seed,
    )


_is_finite = jax.jit(lambda samples: samples.is_finite)

_score_batch = jax.jit(score_batch, static_argnums=0)
# Compiled once per pair of models and shape.
_sequence_estimates = jax.jit(
  sequence_kl.sequence_estimates,
  static_argnames=("p_model", "q_model", "direction", "chunk_size"),
)
