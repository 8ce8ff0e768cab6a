"""Evaluation by generation: answer prompts, score the texts, keep them.

A model answers the prompts of a split, the texts are postprocessed and scored
by the task's own metric functions, and every prediction is written down. With a
teacher its own answers are scored in the same way, once, and the distance
between the two models is measured on the same prompts: forward KL on sequences
that the teacher wrote, reverse KL on sequences that the student wrote, both at
temperature 1.

Evaluation reads parameters and draws from its own random stream; it changes
nothing and never runs TensorFlow.

  evaluation = Evaluation("arithmetic", "validation", cache, lengths,
                          SamplingParams(temperature=0.0), batch_size=64)
  evaluate(student, params, evaluation, seed=0, step=100)
  # {"eval/arithmetic/accuracy": 54.2, "eval/arithmetic/accuracy_ci_low": …}
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gkd import keys
from gkd.evaluation import generation
from gkd.evaluation import predictions
from gkd.evaluation import scores
from gkd.evaluation import sequence_kl
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.generation import Examples
from gkd.evaluation.predictions import Record
from gkd.evaluation.scores import Score
from gkd.sampling.generate import prefetch
from gkd.sampling.params import SamplingParams
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source

Answers = Sequence[Sequence[Record]]

# Draws of one evaluation, folded into its stream: the student's answers count
# up from 0 and the teacher's from a number far from them, the sequences for the
# distance have fixed ones.
_STUDENT_DISTANCE = 1 << 20
_TEACHER_DISTANCE = (1 << 20) + 1
_TEACHER_ANSWERS = 1 << 21
# A teacher is the same at all steps of a run.
_TEACHER_STEP = 0


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
  on_answers: Callable[[Answers], None] | None = None,
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
    on_answers: is given the records of all answers, to do more with them.

  Returns:
    `eval/<task>/<metric>`: the task's metrics, `majority_<metric>` where
    several answers can be voted on, `length` in tokens, `truncation_rate`; with
    a teacher the same of its answers as `teacher_<metric>`, and `forward_kl`
    and `reverse_kl`, summed over a sequence, and the same `…_per_token`. Each
    comes with the ends of its 95 % interval, `<metric>_ci_low` and `…_ci_high`.
  """
  examples = generation.prompts(
    evaluation.cache,
    evaluation.num_rows,
    evaluation.lengths,
    evaluation.batch_size,
    batch_sharding,
    name=f"evaluation of {evaluation.name}, split {evaluation.split!r}",
  )
  student, asked = (model, params), (teacher, teacher_params)
  answers = _answers(student, examples, seed, step, evaluation)
  if predictions_dir is not None:
    predictions.write(answers, predictions_dir, evaluation.file_parts, step)
  if on_answers is not None:
    on_answers(answers)
  suffix = f"_{evaluation.label}" if evaluation.label else ""
  found = _scores(answers, seed, evaluation)
  named = {f"{name}{suffix}": score for name, score in found.items()}
  if teacher is not None and evaluation.score_teacher:
    found = evaluation.memo.get(
      "scores",
      *asked,
      seed,
      lambda: _teacher_scores(asked, examples, seed, evaluation),
    )
    named |= {f"teacher_{n}{suffix}": score for n, score in found.items()}
  if teacher is not None and evaluation.distance:
    named |= _distances(student, asked, examples, seed, step, evaluation)
  values = scores.flat(named)
  return {f"eval/{evaluation.metric_part}/{n}": v for n, v in values.items()}


# Compiled once per pair of models and shape.
_sequence_estimates = jax.jit(
  sequence_kl.sequence_estimates,
  static_argnames=("p_model", "q_model", "direction", "chunk_size"),
)

# A model and its parameters.
_Model = tuple[LanguageModel, Params]


def _scores(
  answers: Answers, seed: int, evaluation: Evaluation
) -> dict[str, Score]:
  return scores.scores(
    answers, evaluation.cache, resamples=evaluation.bootstrap, seed=seed
  )


def _teacher_scores(
  teacher: _Model,
  examples: Sequence[Examples],
  seed: int,
  evaluation: Evaluation,
) -> dict[str, Score]:
  answers = _answers(
    teacher,
    examples,
    seed,
    _TEACHER_STEP,
    evaluation,
    first_draw=_TEACHER_ANSWERS,
    what="answers of the teacher",
  )
  return _scores(answers, seed, evaluation)


def _answers(
  answering: _Model,
  examples: Sequence[Examples],
  seed: int,
  step: int,
  evaluation: Evaluation,
  *,
  first_draw: int = 0,
  what: str = "answers",
) -> list[list[Record]]:
  """`num_samples` lists of records, one record for each row."""
  found = []
  for draw in range(first_draw, first_draw + evaluation.num_samples):
    drawn = _drawn(
      answering, examples, seed, step, draw, evaluation.decoding, evaluation
    )
    records: list[Record] = []
    title = _title(evaluation, what)
    for example, samples in generation.followed(drawn, examples, title):
      row_ids = np.asarray(example.batch.rows)
      records += predictions.records(
        row_ids, example.rows, jax.device_get(samples), evaluation.cache
      )
    found.append(records)
  return found


def _drawn(answering, examples, seed, step, draw, decoding, evaluation):
  """Samples of each batch, by draw number `draw` of this evaluation."""
  key = keys.stream(seed, step, keys.Role.EVALUATION)
  return generation.answer(
    *answering,
    examples,
    jax.random.fold_in(key, draw),
    decoding,
    max_length=evaluation.lengths["targets"],
    eos_id=evaluation.eos_id,
  )


def _title(evaluation: Evaluation, what: str) -> str:
  return f"{evaluation.name} {evaluation.split}, {what}"


def _distances(
  student: _Model,
  teacher: _Model,
  examples: Sequence[Examples],
  seed: int,
  step: int,
  evaluation: Evaluation,
) -> dict[str, Score]:
  """Forward KL on the teacher's sequences, reverse KL on the student's."""

  def sequences(model, step, draw, source):
    drawn = _drawn(
      model, examples, seed, step, draw, SamplingParams(), evaluation
    )
    title = _title(evaluation, f"text of the {source.name.lower()}")
    return [
      example.batch.replace(
        targets=samples.tokens,
        weights=samples.weights,
        source=np.full(example.batch.source.shape, int(source), np.int32),
      )
      for example, samples in generation.followed(drawn, examples, title)
    ]

  by_teacher = evaluation.memo.get(
    "sequences",
    *teacher,
    seed,
    lambda: sequences(
      teacher, _TEACHER_STEP, _TEACHER_DISTANCE, Source.TEACHER
    ),
  )
  by_student = sequences(student, step, _STUDENT_DISTANCE, Source.STUDENT)
  measures = []
  for direction, batches in (("forward", by_teacher), ("reverse", by_student)):
    measured = prefetch(
      _sequence_estimates(
        *teacher,
        *student,
        batch,
        direction=direction,
        chunk_size=evaluation.chunk_size,
      )
      for batch in batches
    )
    title = _title(evaluation, f"{direction} KL")
    rows = [part for _, part in generation.followed(measured, examples, title)]
    statistics = sequence_kl.statistics(jax.device_get(rows), direction)
    measures.append(scores.Summed([statistics]))
  return scores.measured(
    measures, evaluation.num_rows, resamples=evaluation.bootstrap, seed=seed
  )
