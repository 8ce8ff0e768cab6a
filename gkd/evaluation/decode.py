"""Evaluation by generation: answer prompts, score the texts, keep them.

A model answers the prompts of a split, the texts are postprocessed and scored
by the task's own metric functions, and every prediction is written down. With a
teacher the distance between the two models is measured on the same prompts:
forward KL on sequences that the teacher wrote, reverse KL on sequences that the
student wrote, both at temperature 1.

Evaluation reads parameters and draws from its own random stream; it changes
nothing and never runs TensorFlow.

  evaluation = Evaluation("arithmetic", "validation", cache, lengths,
                          Decoding(temperature=0.0), batch_size=64)
  evaluate(student, params, evaluation, seed=0, step=100)
  # {"eval/arithmetic/accuracy": 0.54, …}
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from gkd import keys
from gkd import metrics
from gkd.evaluation import distance
from gkd.evaluation import generation
from gkd.evaluation import predictions
from gkd.evaluation.generation import Examples
from gkd.evaluation.memo import TeacherMemo
from gkd.sampling.sampler import Decoding
from gkd.types import EOS_ID
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source
from gkd.types import UserError

# Draws of one evaluation, folded into its stream: the predictions count up from
# 0, the sequences for the distance have fixed numbers far from them.
_STUDENT_DISTANCE = 1 << 20
_TEACHER_DISTANCE = (1 << 20) + 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What to evaluate on and how to decode.

  Attributes:
    name: task name, as it stands in the metric names.
    split: split of the task, as it stands in the names of prediction files.
    cache: tokens, references, postprocessor and metric functions of the split.
    lengths: {"inputs": I, "targets": T}; T is also the longest answer.
    decoding: temperature and filters of the answers.
    batch_size: rows decoded at a time.
    num_examples: evaluate the first so many rows only; None for all.
    num_samples: answers to each prompt; metrics are means over them.
    label: added to the names of metrics that depend on the decoding
      (`eval/<name>/accuracy_<label>`), so that a task can be decoded in two
      ways in one run.
    distance: measure the KLs when there is a teacher.
    teacher_score: also report the teacher's own metrics, decoded alike, as
      `eval/<name>/teacher_<metric>`.
    chunk_size: positions whose logits exist at once when the KLs are measured,
      None for all; set it where [B, T, V] of two models is too much.
    eos_id: the id that ends an answer.
    memo: results that depend on the teacher alone.
  """

  name: str
  split: str
  cache: predictions.Cache
  lengths: Mapping[str, int]
  decoding: Decoding
  batch_size: int
  num_examples: int | None = None
  num_samples: int = 1
  label: str = ""
  distance: bool = True
  teacher_score: bool = False
  chunk_size: int | None = None
  eos_id: int = EOS_ID
  memo: TeacherMemo = dataclasses.field(
    default_factory=TeacherMemo, compare=False, repr=False
  )

  def __post_init__(self):
    self.decoding.validate()
    for field in ("batch_size", "num_examples", "num_samples"):
      value = getattr(self, field)
      if value is not None and value < 1:
        raise UserError(
          f"evaluation of {self.name}: {field} is {value}; expected 1 or more"
        )
    if self.num_samples > 1 and self.decoding.temperature == 0:
      raise UserError(
        f"evaluation of {self.name}: {self.num_samples} samples of each prompt"
        " at temperature 0 are all the same; set num_samples to 1 or raise the"
        " temperature"
      )
    if not len(self.cache):
      raise UserError(
        f"evaluation of {self.name}: split {self.split!r} has no rows; choose"
        " another split"
      )

  @property
  def num_rows(self) -> int:
    """Number of rows that are evaluated."""
    if self.num_examples is None:
      return len(self.cache)
    return min(self.num_examples, len(self.cache))


def evaluate(
  model: LanguageModel,
  params: Params,
  evaluation: Evaluation,
  *,
  seed: int,
  step: int,
  predictions_dir: str | None = None,
  teacher: LanguageModel | None = None,
  teacher_params: Params | None = None,
  batch_sharding: Any = None,
) -> dict[str, float]:
  """Scores of one model on one split.

  Args:
    model: who answers.
    params: its parameters.
    evaluation: rows and decoding.
    seed: of the run.
    step: at which the model is; draws and file names depend on it.
    predictions_dir: where to write `<task>-<split>-<label>-<step>.jsonl`.
    teacher: model to compare with.
    teacher_params: its parameters.
    batch_sharding: layout of batches over devices; default as jit places them.

  Returns:
    `eval/<task>/<metric>`: the task's metrics, `length` in tokens,
    `truncation_rate`, and with a teacher `forward_kl` and `reverse_kl`, summed
    over a sequence, and the same `…_per_token`.
  """
  examples = _examples(evaluation, batch_sharding)
  records = _answers(model, params, examples, seed, step, evaluation)
  suffix = f"_{evaluation.label}" if evaluation.label else ""
  scores = predictions.scores(records, evaluation.cache)
  values = {f"{name}{suffix}": value for name, value in scores.items()}
  if predictions_dir is not None:
    parts = (evaluation.name, evaluation.split, evaluation.label)
    predictions.write(records, predictions_dir, parts, step)
  if teacher is not None and evaluation.distance:
    values |= _distances(
      (model, params),
      (teacher, teacher_params),
      examples,
      seed,
      step,
      evaluation,
    )
  if teacher is not None and evaluation.teacher_score:
    scores = _teacher_scores(
      teacher, teacher_params, examples, seed, evaluation
    )
    values |= {f"teacher_{n}{suffix}": value for n, value in scores.items()}
  return {f"eval/{evaluation.name}/{n}": value for n, value in values.items()}


# Compiled once per pair of models and shape.
_sequence_kl = jax.jit(
  distance.sequence_kl,
  static_argnames=("p_model", "q_model", "direction", "chunk_size"),
)


def _examples(evaluation: Evaluation, sharding: Any) -> list[Examples]:
  """The prompts of a split in order."""
  examples = []
  width, size = evaluation.lengths["inputs"], evaluation.batch_size
  for start in range(0, evaluation.num_rows, size):
    indices = range(start, min(start + size, evaluation.num_rows))
    rows = evaluation.cache.read(list(indices))
    inputs = np.zeros((size, width), np.int32)
    row_ids = np.full((size,), -1, np.int32)  # -1 marks filler rows
    row_ids[: len(rows)] = indices
    for place, row in enumerate(rows):
      if len(row.inputs) > width:
        raise UserError(
          f"evaluation of {evaluation.name}: row {start + place} of split"
          f" {evaluation.split!r} has {len(row.inputs)} input tokens, more than"
          f" {width}; raise TASK_FEATURE_LENGTHS or cache the task again"
        )
      inputs[place, : len(row.inputs)] = row.inputs
    empty = np.zeros((size, evaluation.lengths["targets"]), np.int32)
    batch = Batch(
      inputs=inputs,
      targets=empty,
      weights=empty.astype(np.float32),
      rows=row_ids,
      source=np.full((size,), int(Source.DATASET), np.int32),
    )
    if sharding is not None:
      batch = jax.device_put(batch, sharding)
    examples.append(Examples(batch, rows))
  return examples


def _answers(
  model: LanguageModel,
  params: Params,
  examples: Sequence[Examples],
  seed: int,
  step: int,
  evaluation: Evaluation,
) -> list[list[dict[str, Any]]]:
  """`num_samples` lists of records, one record for each row."""
  stream = keys.stream(seed, step, keys.Role.EVALUATION)
  drawn = [
    generation.answer(
      model,
      params,
      examples,
      jax.random.fold_in(stream, draw),
      evaluation.decoding,
      max_length=evaluation.lengths["targets"],
      eos_id=evaluation.eos_id,
    )
    for draw in range(evaluation.num_samples)
  ]
  return [
    [
      record
      for example, samples in zip(examples, jax.device_get(pass_), strict=True)
      for record in predictions.records(
        np.asarray(example.batch.rows), example.rows, samples, evaluation.cache
      )
    ]
    for pass_ in drawn
  ]


def _distances(
  student: tuple[LanguageModel, Params],
  teacher: tuple[LanguageModel, Params],
  examples: Sequence[Examples],
  seed: int,
  step: int,
  evaluation: Evaluation,
) -> dict[str, float]:
  """Forward KL on the teacher's sequences, reverse KL on the student's."""

  def sequences(model, params, step, draw, source):
    key = keys.stream(seed, step, keys.Role.EVALUATION)
    key = jax.random.fold_in(key, draw)
    drawn = generation.answer(
      model,
      params,
      examples,
      key,
      Decoding(),
      max_length=evaluation.lengths["targets"],
      eos_id=evaluation.eos_id,
    )
    return [
      example.batch.replace(
        targets=samples.tokens,
        weights=samples.weights,
        source=np.full(example.batch.source.shape, int(source), np.int32),
      )
      for example, samples in zip(examples, drawn, strict=True)
    ]

  by_teacher = evaluation.memo.get(
    "sequences",
    *teacher,
    seed,
    lambda: sequences(*teacher, 0, _TEACHER_DISTANCE, Source.TEACHER),
  )
  by_student = sequences(*student, step, _STUDENT_DISTANCE, Source.STUDENT)
  parts = [
    _sequence_kl(
      *teacher,
      *student,
      batch,
      direction=direction,
      chunk_size=evaluation.chunk_size,
    )
    for direction, batches in (("forward", by_teacher), ("reverse", by_student))
    for batch in batches
  ]
  return metrics.compute(metrics.merge(jax.device_get(parts)))


def _teacher_scores(
  teacher: LanguageModel,
  params: Params,
  examples: Sequence[Examples],
  seed: int,
  evaluation: Evaluation,
) -> dict[str, float]:
  """The teacher's metrics under the same decoding, the same at every step."""

  def make():
    records = _answers(teacher, params, examples, seed, 0, evaluation)
    return predictions.scores(records, evaluation.cache)

  return evaluation.memo.get("scores", teacher, params, seed, make)
