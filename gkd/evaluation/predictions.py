"""From sampled tokens to readable records, scores and a file of predictions."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import re
from typing import Any
from typing import Protocol

import numpy as np

from gkd.sampling.sampler import Samples

Record = Mapping[str, Any]


class Cache(Protocol):
  """What evaluation uses of a `data.cache.TokenCache`."""

  info: Mapping[str, Any]
  vocabulary: Any
  postprocess: Callable[..., Any] | None
  metric_fns: Sequence[Callable[[list, list], Mapping[str, float]]]

  def __len__(self) -> int: ...

  def read(self, indices: Sequence[int]) -> list: ...


def records(
  row_ids: np.ndarray, rows: Sequence[Any], samples: Samples, cache: Cache
) -> list[dict[str, Any]]:
  """Readable records of one batch.

  Args:
    row_ids: [B] ids of the rows in the cache.
    rows: the cache's rows, at most B; what follows in the batch is filler.
    samples: the answers, on the host.
    cache: vocabulary and postprocessor.

  Returns:
    Dicts with `row`, `prompt`, `reference` (postprocessed target), `text` (as
    written), `prediction` (postprocessed text), `length` in tokens (EOS
    included) and `truncated`.
  """
  found = []
  for place, row in enumerate(rows):
    text = cache.vocabulary.decode(samples.tokens[place].tolist())
    prediction = text
    if cache.postprocess is not None:
      prediction = cache.postprocess(text, example=None, is_target=False)
    found.append(
      {
        "row": int(row_ids[place]),
        "prompt": row.prompt,
        "reference": row.reference,
        "text": text,
        "prediction": prediction,
        "length": int(samples.lengths[place]),
        "truncated": bool(samples.truncated[place]),
      }
    )
  return found


def scores(
  answers: Sequence[Sequence[Record]], cache: Cache
) -> dict[str, float]:
  """Metrics of a split.

  Args:
    answers: one list of records for each time the whole split was answered.
    cache: metric functions; a split without references has none.

  Returns:
    The metrics of each time, averaged: the lists are equally long. Besides the
    task's own ones `length` and `truncation_rate`.
  """
  values: dict[str, list[float]] = {}
  for found in answers:
    result = {
      "length": np.mean([record["length"] for record in found]),
      "truncation_rate": np.mean([record["truncated"] for record in found]),
    }
    if cache.info["has_targets"]:
      targets = [record["reference"] for record in found]
      texts = [record["prediction"] for record in found]
      for metric_fn in cache.metric_fns:
        result |= metric_fn(targets, texts)
    for name, value in result.items():
      values.setdefault(name, []).append(float(value))
  return {name: float(np.mean(value)) for name, value in values.items()}


def write(
  answers: Sequence[Sequence[Record]],
  directory: str,
  parts: Sequence[str],
  step: int,
) -> str:
  """Writes `<parts>-<step>.jsonl`, whole or not at all; returns its path.

  Args:
    answers: as for `scores`; with more than one, records get a `sample` number.
    directory: where; made if missing.
    parts: task, split, label; what a file name cannot hold becomes `_`.
    step: of the model.
  """
  names = [re.sub(r"[^\w.+]+", "_", part) for part in parts if part]
  path = os.path.join(directory, "-".join([*names, f"{step:08d}.jsonl"]))
  os.makedirs(directory, exist_ok=True)
  with open(f"{path}.tmp", "w", encoding="utf-8") as file:
    for number, found in enumerate(answers):
      extra = {"sample": number} if len(answers) > 1 else {}
      for record in found:
        file.write(json.dumps(extra | record, ensure_ascii=False) + "\n")
  os.replace(f"{path}.tmp", path)
  return path
