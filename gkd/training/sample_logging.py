"""What a run says of texts: scores, answers, references, and sample dumps.

A teacher that reads prompts in another format than it was trained on, or with
another tokenizer, teaches noise, and nothing fails. Its negative log-likelihood
of the references of one batch shows it at once.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
import logging
import math
import os
from typing import Any

import jax
import numpy as np

from gkd import partitioning
from gkd import processes
from gkd.collate import collate
from gkd.evaluation.evaluation import Evaluation
from gkd.evaluation.predictions import Record
from gkd.losses.likelihood import score_batch
from gkd.losses.likelihood import score_tokens
from gkd.metric_fields import SUFFIXES
from gkd.progress import short
from gkd.text.vocabulary import Vocabulary
from gkd.training.run import Run
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source

log = logging.getLogger("gkd")

_score = jax.jit(score_batch, static_argnums=0)
# In one program, which runs the layers once.
_score_both = jax.jit(
  lambda *args: (score_batch(*args), score_tokens(*args)), static_argnums=0
)
# Rows of a dump whose tokens have a score each: as many as a report shows.
_NUM_ROWS_BY_TOKEN = 6
_NUM_SHOWN = 3  # answers of each evaluation
_MOST_SHOWN = 160  # characters of a text


def log_teacher_nll(
  teacher: Model, batch: Batch, name: str = "teacher"
) -> None:
  """Logs the teacher's NLL per token of a batch; warns of one that is odd.

  A batch without counted targets is passed over in silence.
  """
  count = float(np.asarray(processes.replicate(batch.weights)).sum())
  if not count:
    return
  scores = processes.replicate(_score(teacher.lm, teacher.params, batch))
  total = float(np.asarray(scores).sum())
  nll, uniform = -total / count, math.log(teacher.lm.vocabulary_size)
  log.info(
    "%-10s %.2f nats a token on the references of the first batch; a"
    " uniform guess has %.2f",
    *(f"{name}:", nll, uniform),
  )
  if not nll < uniform:  # NaN is odd too
    log.warning(
      "the %s is no better than a uniform guess on the references (%.2f"
      " against %.2f nats a token): is its checkpoint of another tokenizer,"
      " prompt format or family?",
      *(name, nll, uniform),
    )


def log_evaluation(
  run: Run,
  evaluation: Evaluation,
  done: int,
  scored: Mapping[str, float],
  records: Sequence[Record],
  teacher: Model | None,
) -> None:
  """Logs scores, the first answers and what the teacher thinks of them."""
  infos, prefix = run.metric_infos, evaluation.metric_name("")
  ends = {f"{name}{end}" for name in scored for end in SUFFIXES}
  numbers = []
  for name in [name for name in scored if name not in ends - infos.keys()]:
    unit = infos[name].unit if name in infos else ""
    number = f"{name.removeprefix(prefix)} {short(scored[name])} {unit}"
    numbers.append(number.rstrip())
  # As wide as the first batch: its program for the teacher serves again.
  size = run.loader.batch_size
  ids = [record["row"] for record in records[: min(size, _NUM_SHOWN)]]
  rows = [
    row._replace(targets=record["tokens"])
    for row, record in zip(evaluation.cache.read(ids), records, strict=False)
  ]
  batch = collate(rows, ids, evaluation.lengths, size)
  log_answers(
    f"step {done}, {evaluation.name} {evaluation.split}"
    f" {evaluation.decoding.describe()}: {', '.join(numbers)}",
    records[: len(ids)],
    partitioning.place(batch, partitioning.batch_sharding(run.mesh)),
    teacher,
  )


def log_answers(
  title: str,
  records: Sequence[Mapping[str, Any]],
  batch: Batch,
  teacher: Model | None,
) -> None:
  """Logs some of the answers of an evaluation.

  Args:
    title: what was evaluated, and the scores.
    records: the answers that are shown.
    batch: their prompts, and they as targets, in the first rows.
    teacher: which says how likely it finds them, if there is one.
  """
  lines = [title]
  scores = [None] * len(records)
  if teacher is not None:
    scored = _score(teacher.lm, teacher.params, batch)
    scores = np.asarray(processes.replicate(scored)).tolist()
  for record, score in zip(records, scores, strict=False):
    line = f"  {_shown(record['prompt'])} → {_shown(record['text'])}"
    if score is not None:
      line += f", of log-probability {score:.4g} by the teacher"
    lines.append(line)
  log.info("%s", "\n".join(lines))


def describe(
  batch: Batch,
  vocabulary: Vocabulary,
  teacher: Model | None = None,
  rewards: np.ndarray | None = None,
  teachers: Sequence[str] = (),
) -> list[dict[str, Any]]:
  """One record per row of a batch as trained.

  Returns:
    Dicts with `row`, `source`, `prompt`, `text`, `tokens` (length) and, with a
    teacher, `teacher_log_prob` (nats, summed over the sequence). The first
    rows have `token_log_probs` as well: pairs of a token's text and its nats.
    Where the teacher reads another prompt it is the row's `teacher_prompt`.
    Rows that are rewarded, as `rewards` [B] are no NaN, have their `reward`,
    and those of several `teachers` the name of their `teacher`. Rows that the
    student wrote have their `staleness` where the batch has it.
  """
  scores = None
  if teacher is not None:
    scored = _score_both(teacher.lm, teacher.params, batch)
    scores, by_token = jax.device_get(processes.replicate(scored))
  batch = jax.device_get(processes.replicate(batch))
  records = []
  for index, row in enumerate(batch.rows):
    prompt = batch.inputs[index][batch.input_mask[index]]
    text = batch.targets[index][batch.weights[index] > 0]
    record = {
      "row": int(row),
      "source": Source(int(batch.source[index])).name.lower(),
      "prompt": vocabulary.decode_prompt(prompt.tolist()),
      "text": vocabulary.decode(text.tolist()),
      "tokens": int(batch.weights[index].sum()),
    }
    if batch.teacher_inputs is not None:
      own = batch.teacher_inputs[index][batch.teacher_input_mask[index]]
      record["teacher_prompt"] = vocabulary.decode_prompt(own.tolist())
    if teachers:
      record["teacher"] = teachers[batch.teacher[index]]
    if rewards is not None and np.isfinite(rewards[index]):
      record["reward"] = float(rewards[index])
    if batch.staleness is not None and batch.source[index] == Source.STUDENT:
      record["staleness"] = int(batch.staleness[index])
    if scores is not None:
      record["teacher_log_prob"] = float(scores[index])
      if index < _NUM_ROWS_BY_TOKEN:
        nats = by_token[index][batch.weights[index] > 0]
        texts = _texts_of_tokens(vocabulary, text.tolist())
        record["token_log_probs"] = [
          [piece, round(float(x), 3) if math.isfinite(x) else None]
          for piece, x in zip(texts, nats, strict=True)
        ]
    records.append(record)
  return records


def _texts_of_tokens(vocabulary: Vocabulary, ids: list[int]) -> list[str]:
  """What each token adds to the text; nothing for the end of a sequence."""
  texts = [vocabulary.decode(ids[:end]) for end in range(len(ids) + 1)]
  return [
    after[len(os.path.commonprefix([before, after])) :]  # noqa: RUF071, letters
    for before, after in itertools.pairwise(texts)
  ]


def _shown(text: str) -> str:
  """In quotes, cut, with line ends and control characters escaped."""
  return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…")
