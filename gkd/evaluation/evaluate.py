"""Evaluation by generation: scores of one model on one split.

The model answers the prompts of a split, the texts are postprocessed and scored
by the task's own metric functions, and every prediction is written down. With a
teacher its own answers are scored in the same way, once. Distances to the
teacher and to other frozen models are measured on the same prompts, on
sequences at temperature 1 (`comparisons.py`).

Evaluation reads parameters and draws from its own random stream; it changes
nothing and never runs TensorFlow.

  evaluation = Evaluation("arithmetic", "validation", cache, lengths,
                          SamplingParams(temperature=0.0), batch_size=64)
  evaluate(evaluation, {"student": Model(lm, params)}, seed=0, step=100)
  # {"eval/arithmetic/accuracy": 54.2, "eval/arithmetic/accuracy_ci_low": …}
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax

from gkd import processes
from gkd.errors import explaining_memory
from gkd.evaluation import comparisons
from gkd.evaluation import predictions
from gkd.evaluation import scores
from gkd.evaluation.bootstrap import Score
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.job import ANSWERS
from gkd.evaluation.job import Job
from gkd.evaluation.predictions import Record
from gkd.losses.likelihood import score_batch
from gkd.metric_fields import SUFFIXES
from gkd.types import Model

Answers = Sequence[Sequence[Record]]


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
  on_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
  """Scores of the student on one split, also in comparison with other models.

  Args:
    evaluation: the split and the decoding strategy.
    roles: {"student": the model that is evaluated}, maybe with a "teacher" and
      other frozen models.
    seed: of the run.
    step: of the student; draws and file names depend on it.
    predictions_dir: where to write `<task>-<split>-<label>-<step>.jsonl`.
    batch_sharding: layout of batches over devices; default as jit places them.
    on_answers: called with the records of all answers.
    on_batch: called after each batch, in all processes; what it raises leaves
      the evaluation.

  Returns:
    `eval/<task>/<metric>`: the task's metrics, of several answers also those of
    `repeated_sampling`, `length` in tokens, `truncation_rate`, the
    `reward` where there is one; with a teacher the same of its answers as
    `teacher_<metric>`, and the distances `forward_kl` and `reverse_kl`, summed
    over a sequence, and `…_per_token`, `agreement_on_teacher_text` and
    `…_on_own_text`, the share of tokens at which both prefer the same one,
    `acceptance_on_…`, the share that speculative decoding takes, and
    `length_ratio`; to another as `forward_kl_to_<role>`, also the teacher's
    own, `teacher_forward_kl_to_<role>`. Each comes with the ends of its 95 %
    interval, `<metric>_ci_low` and `…_ci_high`, a comparison with a model with
    its standard error, `…_se`.

  Raises:
    FloatingPointError: the logits of a model are not finite.
  """
  job = Job.of(
    evaluation,
    roles,
    seed=seed,
    step=step,
    batch_sharding=batch_sharding,
    on_batch=on_batch,
  )
  answers = _answers(job, "student")
  if predictions_dir is not None and processes.is_writer():
    predictions.write(answers, predictions_dir, evaluation.file_parts, step)
  if on_answers is not None:
    on_answers(answers)
  return {
    f"{name}{suffix}": number
    for name, score in _all_scores(job, answers).items()
    for suffix, number in zip(("", *SUFFIXES), score, strict=True)
    if number is not None
  }


def _all_scores(job: Job, answers: Answers) -> dict[str, Score]:
  """The student's, the teacher's and the comparisons, by metric."""
  evaluation = job.evaluation
  metric_name, label = evaluation.metric_name, evaluation.label
  scored = {metric_name(n, label): s for n, s in _scores(job, answers).items()}
  if "teacher" in job.roles and evaluation.score_teacher:
    scored |= {
      metric_name(f"teacher_{n}", label): s
      for n, s in _teacher_scores(job).items()
    }
  if evaluation.sequence_kl:
    scored |= {metric_name(n): s for n, s in comparisons.scores(job).items()}
  return scored


def _answers(job: Job, role: str) -> list[list[Record]]:
  """`num_samples` lists of records, one record for each row."""
  evaluation, first = job.evaluation, ANSWERS[role]
  phase = "answers" if role == "student" else f"answers of the {role}"
  answers = [
    [
      record
      for example, samples in job.generate(
        role, draw, evaluation.decoding, phase, finish=processes.replicate
      )
      for record in predictions.records(
        *(example.indices, example.rows),
        *(jax.device_get(samples), evaluation.cache),
      )
    ]
    for draw in range(first, first + evaluation.num_samples)
  ]
  if job.examples[0].scored is not None:
    target_scores = _target_scores(job, role)
    for draw in answers:
      for record, score in zip(draw, target_scores, strict=True):
        record["score"] = score
  return answers


def _target_scores(job: Job, role: str) -> list[float]:
  """Log p(target | prompt) of each row, in nats, as T5X's `score_batch`."""
  model = job.roles[role]
  dispatched = (
    processes.replicate(_score_batch(model.lm, model.params, example.scored))
    for example in job.examples
  )
  phase = f"scores of the targets by the {role}"
  return [
    score
    for example, batch in job.with_progress(dispatched, phase)
    for score in jax.device_get(batch).tolist()[: len(example.rows)]
  ]


def _teacher_scores(job: Job) -> dict[str, Score]:
  """Scores of the teacher's answers, computed once a run."""
  return job.kept(
    "scores of the teacher",
    ["teacher"],
    lambda: _scores(job, _answers(job, "teacher")),
  )


def _scores(job: Job, answers: Answers) -> dict[str, Score]:
  evaluation = job.evaluation
  measures = scores.measures(answers, evaluation.cache, evaluation.reward)
  return job.with_intervals(measures)


_score_batch = jax.jit(score_batch, static_argnums=0)
