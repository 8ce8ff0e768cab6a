"""What a run says of texts: the teacher's view of references, and sample dumps.

A teacher that reads prompts in another format than it was trained on, or with
another tokenizer, teaches noise, and nothing fails. Its negative log-likelihood
of the references of one batch shows it at once.
"""

import logging
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gkd.losses.likelihood import score_batch
from gkd.text.vocabulary import Vocabulary
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source

log = logging.getLogger("gkd")

_score = jax.jit(score_batch, static_argnums=0)


def log_teacher_nll(teacher: Model, batch: Batch) -> None:
  """Logs the teacher's NLL per token of a batch; warns of one that is odd.

  A batch without counted targets is passed over in silence.
  """
  count = float(jnp.sum(batch.weights))
  if not count:
    return
  total = float(jnp.sum(_score(teacher.lm, teacher.params, batch)))
  nll, uniform = -total / count, math.log(teacher.lm.vocabulary_size)
  log.info(
    "teacher:   %.2f nats a token on the references of the first batch; a"
    " uniform guess has %.2f",
    *(nll, uniform),
  )
  if not nll < uniform:  # NaN is odd too
    log.warning(
      "the teacher is no better than a uniform guess on the references (%.2f"
      " against %.2f nats a token): is TEACHER_CHECKPOINT_PATH of another"
      " tokenizer, prompt format or family?",
      *(nll, uniform),
    )


def describe(
  batch: Batch, vocabulary: Vocabulary, teacher: Model | None = None
) -> list[dict[str, Any]]:
  """One record per row of a batch as trained.

  Returns:
    Dicts with `row`, `source`, `prompt`, `text`, `tokens` (length) and, with a
    teacher, `teacher_log_prob` (nats, summed over the sequence).
  """
  scores = None
  if teacher is not None:
    scores = np.asarray(_score(teacher.lm, teacher.params, batch))
  batch = jax.device_get(batch)
  records = []
  for index, row in enumerate(batch.rows):
    prompt = batch.inputs[index][batch.input_mask[index]]
    text = batch.targets[index][batch.weights[index] > 0]
    record = {
      "row": int(row),
      "source": Source(int(batch.source[index])).name.lower(),
      "prompt": vocabulary.decode(prompt.tolist()),
      "text": vocabulary.decode(text.tolist()),
      "tokens": int(batch.weights[index].sum()),
    }
    if scores is not None:
      record["teacher_log_prob"] = float(scores[index])
    records.append(record)
  return records
