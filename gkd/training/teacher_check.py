"""Before the first step: does the teacher know this kind of text at all?

A teacher that reads prompts in another format than it was trained on, or with
another tokenizer, teaches noise, and nothing fails. Its negative
log-likelihood of the references of one batch shows it at once. Nothing is
changed and nothing random is drawn.
"""

import functools
import logging
import math

import jax
import jax.numpy as jnp

from gkd.losses.chunked import sum_over_chunks
from gkd.losses.likelihood import token_log_probs
from gkd.losses.objective import mask_padded_vocab
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params

log = logging.getLogger("gkd")

# Positions whose logits exist at once.
_CHUNK_SIZE = 64


def log_teacher_nll(
  teacher: LanguageModel, params: Params, batch: Batch
) -> None:
  """Logs the teacher's NLL per token of a batch; warns of one that is odd.

  A batch without counted targets is passed over in silence.
  """
  if not jnp.any(batch.weights > 0):
    return
  total, count = map(float, _log_likelihood(teacher, params, batch))
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


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(
  teacher: LanguageModel, params: Params, batch: Batch
) -> tuple[Array, Array]:
  """Sum over the counted targets of log p, nats, and their number."""

  def of_positions(positions) -> tuple[Array, Array]:
    hidden, targets, weights = positions
    logits = teacher.head(params, hidden)
    logits, _ = mask_padded_vocab(logits, logits, teacher.vocabulary_size)
    log_probs = token_log_probs(logits, targets)
    counts = weights > 0
    return jnp.sum(jnp.where(counts, log_probs, 0.0)), jnp.sum(counts)

  hidden = teacher.hidden_of(params, batch)
  positions = (hidden, batch.targets, batch.weights)
  return sum_over_chunks(of_positions, positions, _CHUNK_SIZE)
