"""From tokens to readable records and a file of predictions.

One JSON object a line, in the order of the split:

  sample       which of several answers to the prompt, from 0; only with several
  row          place of the example in its split, from 0
  prompt       the prompt's text
  reference    the postprocessed target; null where the row has none
  text         what the model wrote
  prediction   the postprocessed text, which the metrics compare
  length       tokens that the model wrote, EOS included
  score        log-probability of the target, its EOS included, in nats; only
               where a metric of the task takes it
  truncated    whether it was cut off at the longest length, without EOS
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
import re
from typing import Any
from typing import Protocol

from gkd import disk_errors
from gkd import files
from gkd.sampling.sampler import Samples

Record = Mapping[str, Any]


class Cache(Protocol):
  """What evaluation uses of a `data.cache.TokenCache`."""

  info: Mapping[str, Any]
  with_target: Sequence[int]
  vocabulary: Any
  postprocess: Callable[..., Any] | None
  metric_fns: Sequence[Callable[[list, list], Mapping[str, float]]]

  def __len__(self) -> int: ...

  def read(self, indices: Sequence[int]) -> list: ...


def records(
  row_ids: Sequence[int], rows: Sequence[Any], samples: Samples, cache: Cache
) -> list[dict[str, Any]]:
  """Readable records of one batch.

  Args:
    row_ids: ids of the rows in the cache.
    rows: the cache's rows, at most B; what follows in the batch is filler.
    samples: [B, T], on the host.
    cache: vocabulary and postprocessor.

  Returns:
    Dicts with the fields of a file, and `tokens`: the ids, EOS included.
  """
  batch_records = []
  for place, row in enumerate(rows):
    tokens = samples.tokens[place, : int(samples.lengths[place])]
    text = cache.vocabulary.decode(tokens.tolist())
    batch_records.append(
      {
        "row": int(row_ids[place]),
        "prompt": row.prompt,
        "reference": row.reference,
        "text": text,
        "prediction": postprocessed(text, cache),
        "length": len(tokens),
        "truncated": bool(samples.truncated[place]),
        "tokens": tokens,
      }
    )
  return batch_records


def postprocessed(text: str, cache: Cache) -> Any:
  """What the metrics compare of a text, by the task's postprocessor."""
  if cache.postprocess is None:
    return text
  return cache.postprocess(text, example=None, is_target=False)


def write(
  answers: Sequence[Sequence[Record]],
  directory: str,
  parts: Sequence[str],
  step: int,
) -> None:
  """Writes `<parts>-<step>.jsonl`, whole or not at all.

  Args:
    answers: one list of records for each time the whole split was answered;
      with more than one, records get a `sample` number.
    directory: made if missing.
    parts: task, split, label.
    step: of the model.

  Raises:
    UserError: the disk is full or may not be written to.
  """
  path = os.path.join(directory, stem(parts) + ending(step))
  lines = [
    json.dumps(
      ({"sample": number} if len(answers) > 1 else {})
      | {n: v for n, v in record.items() if n != "tokens"},
      ensure_ascii=False,
    )
    for number, draw in enumerate(answers)
    for record in draw
  ]
  with disk_errors.explaining(f"cannot write predictions to {directory}"):
    os.makedirs(directory, exist_ok=True)
    files.write_text(path, "".join(f"{line}\n" for line in lines))


def ending(step: int) -> str:
  """The file's name after its stem."""
  return f"-{step:08d}.jsonl"


def stem(parts: Sequence[str]) -> str:
  """The file's name before the step; what it cannot hold becomes `_`."""
  return "-".join(re.sub(r"[^\w.+]+", "_", part) for part in parts if part)
