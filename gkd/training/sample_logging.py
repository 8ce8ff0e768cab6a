"""Readable dumps of a trained batch: prompt, text and the teacher's score."""

from typing import Any

import jax
import numpy as np

from gkd.losses.likelihood import score_batch
from gkd.text.vocabulary import Vocabulary
from gkd.types import Batch
from gkd.types import LanguageModel
from gkd.types import Params
from gkd.types import Source

_score = jax.jit(score_batch, static_argnums=0)


def describe(
  batch: Batch,
  vocabulary: Vocabulary,
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
