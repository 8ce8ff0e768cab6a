"""Where rows come from: lists, JSON lines of the data directory, or TFDS.

A row has "inputs" and, unless there are only prompts, "targets"; where a task
accepts several answers also "references". Files are opened when a split is
read, not at registration, so that a task can be registered without its data.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import gzip
import json
import os
from pathlib import Path
from typing import Any

import seqio
import tensorflow as tf

from gkd.types import UserError

Row = Mapping[str, Any]


def rows_source(
  rows: Callable[[str], Iterable[Row]],
  splits: Iterable[str],
  *,
  with_references: bool = False,
) -> seqio.FunctionDataSource:
  """A seqio source over Python rows; always in the order given.

  Args:
    rows: `rows(split)` gives the rows of a split. "targets" may be missing,
      None or "": the row is a prompt alone.
    splits: names of the splits.
    with_references: whether rows carry a list "references".
  """
  signature = {
    "inputs": tf.TensorSpec([], tf.string),
    "targets": tf.TensorSpec([], tf.string),
  }
  if with_references:
    signature["references"] = tf.TensorSpec([None], tf.string)

  def dataset_fn(split, shuffle_files, seed=None):
    del shuffle_files, seed  # shuffling is the loader's, a function of the step
    # Read here: an error inside a generator comes back wrapped by TensorFlow.
    found = [_complete(row, signature, i) for i, row in enumerate(rows(split))]
    return tf.data.Dataset.from_generator(
      lambda: iter(found), output_signature=signature
    )

  return seqio.FunctionDataSource(dataset_fn, splits=tuple(splits))


def _complete(row: Row, names: Iterable[str], number: int) -> Row:
  """The row with every field; a prompt alone has "" as its target."""
  row = {**row, "targets": row.get("targets") or ""}
  wrong = [name for name in names if name not in row]
  wrong += [n for n in ("inputs", "targets") if not isinstance(row.get(n), str)]
  if wrong:
    raise UserError(
      f"row {number} has {sorted(row)}; expected {wrong[0]!r} as"
      f" {'a list of texts' if wrong[0] == 'references' else 'text'}; correct"
      " the rows of the task"
    )
  return row


def read_jsonl(
  data_dir: str | os.PathLike | None, relative: str
) -> list[dict[str, Any]]:
  """Rows of `data_dir/relative`, a gzipped file of JSON lines."""
  if not data_dir:
    raise UserError(
      f"no data directory given, expected one that holds {relative}: set "
      "--data_dir or GKD_DATA_DIR"
    )
  path = Path(data_dir) / relative
  try:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
      return [json.loads(line) for line in lines]
  except FileNotFoundError as error:
    raise UserError(
      f"data file {relative} not found in data_dir {str(data_dir)!r}: expected "
      f"{path}; set --data_dir or GKD_DATA_DIR to the folder that holds it"
    ) from error
  except (OSError, EOFError, ValueError) as error:
    raise UserError(
      f"data file {path} cannot be read ({error}): expected gzipped JSON "
      "lines; copy the file again"
    ) from error


class TfdsSource(seqio.TfdsDataSource):
  """seqio's TFDS source with slices, and failures that say what to do.

  seqio looks a split up among those it was given, so that "train[:90%]" would
  be none of them; here they go to TFDS as they are.
  """

  def __init__(self, name: str, splits: Iterable[str], remedy: str):
    super().__init__(tfds_name=name)
    self._name = name
    self._names = tuple(splits)
    self._remedy = remedy

  @property
  def splits(self) -> tuple[str, ...]:
    """The splits whose slices and sums can be read."""
    return self._names

  def get_dataset(self, *args, **kwargs) -> tf.data.Dataset:
    try:
      return super().get_dataset(*args, **kwargs)
    # Missing files, no network, no manual_dir: TFDS raises them as it likes.
    except Exception as error:
      reason = " ".join(str(error).split())[:200]
      raise UserError(
        f"TFDS data set {self._name} cannot be read "
        f"({type(error).__name__}: {reason}): {self._remedy}"
      ) from error

  def num_input_examples(self, split: str) -> int | None:
    try:
      return super().num_input_examples(split)
    # Not generated yet: its size is not known. A slice that TFDS does not
    # understand is reported when it is read.
    except (KeyError, ValueError):
      return None
