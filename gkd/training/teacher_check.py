"""Before the first step: does the teacher know this kind of text at all?

A teacher that reads prompts in another format than it was trained on, or with
another tokenizer, teaches noise, and nothing fails. Its negative
log-likelihood of the references of one batch shows it at once. Nothing is
changed and nothing random is drawn.
"""

import logging
import math

import jax
import jax.numpy as jnp

from gkd.losses.likelihood import score_batch
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params

log = logging.getLogger("gkd")

_score = jax.jit(score_batch, static_argnums=0)


def log_teacher_nll(
  teacher: LanguageModel, params: Params, batch: Batch
) -> None:
  """Logs the teacher's NLL per token of a batch; warns of one that is odd.

  A batch without counted targets is passed over in silence.
  """
  count = float(jnp.sum(batch.weights))
  if not count:
    return
  total = float(jnp.sum(_score(teacher, params, batch)))
  value, uniform = -total / count, math.log(teacher.vocabulary_size)
  log.info(
    "teacher:   %.2f nats a token on the references of the first batch; a"
    " uniform guess has %.2f",
    *(value, uniform),
  )
  if not value < uniform:  # NaN is odd too
    log.warning(
      "the teacher is no better than a uniform guess on the references (%.2f"
      " against %.2f nats a token): is TEACHER_CHECKPOINT_PATH of another"
      " tokenizer, prompt format or family?",
      *(value, uniform),
    )
