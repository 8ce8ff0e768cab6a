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

from collections.abc import Iterator
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
from gkd.progress import Progress
from gkd.sampling.sampler import Decoding
from gkd.types import EOS_ID
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source
from gkd.types import UserError

# Draws of one evaluation, folded into its stream: the predictions count up from
# 0, the sequences for the distance have fixed numbers far from them.
_STUDENT_DISTANCE = 1 << 20
_TEACHER_DISTANCE = (1 << 20) + 1
# What is done sooner shows no progress: no need to wait for it.
_QUIET_SECONDS = 5.0


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
    chunk_size: positions whose logits exist at once when the KLs are measured,
      None for all; set it where [B, T, V] of two models is too much.
    eos_id: the id that ends an answer.
    memo: what the teacher wrote; not to be given, each evaluation has its own.
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
  chunk_size: int | None = None
  eos_id: int = EOS_ID
  # Not an argument of __init__: `dataclasses.replace` would hand the memo of
  # other rows and lengths on to the new evaluation.
  memo: TeacherMemo = dataclasses.field(
    init=False, default_factory=TeacherMemo, compare=False, repr=False
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
  examples = generation.prompts(
    evaluation.cache,
    evaluation.num_rows,
    evaluation.lengths,
    evaluation.batch_size,
    batch_sharding,
    name=f"evaluation of {evaluation.name}, split {evaluation.split!r}",
  )
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
  return {f"eval/{evaluation.name}/{n}": value for n, value in values.items()}


# Compiled once per pair of models and shape.
_sequence_kl = jax.jit(
  distance.sequence_kl,
  static_argnames=("p_model", "q_model", "direction", "chunk_size"),
)


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
  found = []
  for draw in range(evaluation.num_samples):
    drawn = generation.answer(
      model,
      params,
      examples,
      jax.random.fold_in(stream, draw),
      evaluation.decoding,
      max_length=evaluation.lengths["targets"],
      eos_id=evaluation.eos_id,
    )
    records = []
    for example, samples in _followed(drawn, examples, "answers", evaluation):
      row_ids = np.asarray(example.batch.rows)
      records += predictions.records(
        row_ids, example.rows, jax.device_get(samples), evaluation.cache
      )
    found.append(records)
  return found


def _followed(
  results: Iterator[Any],
  examples: Sequence[Examples],
  what: str,
  evaluation: Evaluation,
) -> Iterator[tuple[Examples, Any]]:
  """Each batch with its result; shows how far it is if that takes long."""
  title = f"{evaluation.name} {evaluation.split}, {what}"
  with Progress(
    evaluation.num_rows,
    description=title,
    unit="prompt",
    delay=_QUIET_SECONDS,
  ) as progress:
    for example, result in zip(examples, results, strict=True):
      yield example, result
      progress.update(len(example.rows))


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
    who = source.name.lower()
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
      for example, samples in _followed(
        drawn, examples, f"text of the {who}", evaluation
      )
    ]

  by_teacher = evaluation.memo.get(
    *teacher,
    seed,
    lambda: sequences(*teacher, 0, _TEACHER_DISTANCE, Source.TEACHER),
  )
  by_student = sequences(*student, step, _STUDENT_DISTANCE, Source.STUDENT)
  parts: list[Mapping[str, metrics.Mean]] = []
  for direction, batches in (("forward", by_teacher), ("reverse", by_student)):
    measured = generation.one_ahead(
      _sequence_kl(
        *teacher,
        *student,
        batch,
        direction=direction,
        chunk_size=evaluation.chunk_size,
      )
      for batch in batches
    )
    what = f"{direction} KL"
    followed = _followed(measured, examples, what, evaluation)
    parts += [part for _, part in followed]
  return metrics.compute(metrics.merge(jax.device_get(parts)))
