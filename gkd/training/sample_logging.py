"""Readable dumps of a trained batch: prompt, text and the teacher's score."""

import functools
from typing import Any
from typing import Protocol

import jax
import numpy as np

from gkd import masks
from gkd.losses import likelihood
from gkd.losses.chunked import sum_over_chunks
from gkd.types import Array
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source

# Positions whose logits exist at once: a dump must fit wherever the step did.
_CHUNK_SIZE = 32


class Decodes(Protocol):
  """A vocabulary, as far as a dump needs one."""

  def decode(self, ids: list[int]) -> str: ...


def describe(
  batch: Batch,
  vocabulary: Decodes,
  teacher: LanguageModel | None = None,
  teacher_params: Params | None = None,
) -> list[dict[str, Any]]:
  """One record per row: who wrote it, what, and what the teacher makes of it.

  Returns:
    Dicts with `row`, `source`, `prompt`, `text`, `tokens` (length) and, with a
    teacher, `teacher_log_prob` (nats, summed over the sequence).
  """
  scores = None
  if teacher is not None:
    scores = np.asarray(_score(teacher, teacher_params, batch))
  batch = jax.device_get(batch)
  records = []
  for index, row in enumerate(batch.rows):
    prompt = batch.inputs[index][batch.input_mask[index]]
    record = {
      "row": int(row),
      "source": Source(int(batch.source[index])).name.lower(),
      "prompt": vocabulary.decode(prompt.tolist()),
      "text": vocabulary.decode(batch.targets[index].tolist()),
      "tokens": int(batch.weights[index].sum()),
    }
    if scores is not None:
      record["teacher_log_prob"] = float(scores[index])
    records.append(record)
  return records


@functools.partial(jax.jit, static_argnums=0)
def _score(model: LanguageModel, params: Params, batch: Batch) -> Array:
  """[B] log-probability of each row's targets over the real ids."""
  hidden = model.hidden_of(params, batch)

  def of_positions(positions) -> Array:
    hidden, targets, weights = positions
    logits = model.head(params, hidden)
    logits = masks.mask_padded_ids(logits, model.vocabulary_size)
    return likelihood.sequence_log_probs(logits, targets, weights)

  return sum_over_chunks(
    of_positions, (hidden, batch.targets, batch.weights), _CHUNK_SIZE
  )
