"""Where rows come from: Python, JSON lines of the data directory, or TFDS.

A row has "inputs" and, unless there are only prompts, "targets"; where a task
accepts several references also "references". Files are opened when a split is
read, not at registration, so that a task can be registered without its data.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import gzip
import itertools
import json
import operator
import os
from pathlib import Path
import random
from typing import Any

import seqio
import tensorflow as tf

from gkd.errors import UserError
from gkd.errors import row_name
from gkd.text import raw_files

Row = Mapping[str, Any]


def rows_source(
  rows: Callable[[str], Iterable[Row]],
  splits: Iterable[str],
  *,
  with_references: bool = False,
  texts: Iterable[str] = (),
  generated: bool = False,
) -> "RowsSource":
  """A seqio source over Python rows; always in the order given.

  Args:
    rows: `rows(split)` gives the rows of a split; a generator is read as a
      stream when a cache is made. "targets" may be missing, None or "": the row
      is a prompt alone.
    splits: names of the splits.
    with_references: whether rows carry a list "references".
    texts: names of further texts that rows carry, such as "task", see
      `postprocess.answer_of_task`, or "teacher", see `cache.Row`.
    generated: whether rows come from code alone; without this, and without
      files that `gkd.text.raw_files` found, `gkd cache list` says that raw
      files are not tracked.
  """
  signature = {
    "inputs": tf.TensorSpec([], tf.string),
    "targets": tf.TensorSpec([], tf.string),
  }
  if with_references:
    signature["references"] = tf.TensorSpec([None], tf.string)
  signature |= {name: tf.TensorSpec([], tf.string) for name in texts}

  def dataset_fn(split, shuffle_files, seed=None):
    del shuffle_files, seed  # shuffling is the loader's, a function of the step
    # Read here: an error inside a generator comes back wrapped by TensorFlow.
    whole = [_complete(row, signature, i) for i, row in enumerate(rows(split))]
    return tf.data.Dataset.from_generator(
      lambda: iter(whole), output_signature=signature
    )

  return RowsSource(dataset_fn, splits, rows, tuple(signature), generated)


class RowsSource(seqio.FunctionDataSource):
  """Python rows that can also be had without a detour through TensorFlow."""

  def __init__(self, dataset_fn, splits, rows, names, generated):
    super().__init__(dataset_fn, splits=tuple(splits))
    self.generated = generated
    self.rows = rows
    self._names = names

  def examples(self, split: str) -> "Mapped":
    """The rows of a split as they come; its length hint is their number."""
    return Mapped(
      lambda row, number: _complete(row, self._names, number), self.rows(split)
    )


def jsonl_source(
  data_dir: str | os.PathLike | None,
  files: Mapping[str, str],
  convert: Callable[[dict[str, Any]], Row],
  *,
  with_references: bool = False,
  shuffled: Sequence[str] = (),
) -> RowsSource:
  """A seqio source over files of JSON lines, gzipped (`.gz`) or not.

  Args:
    data_dir: the data directory.
    files: {split: path below `data_dir`, or an absolute one}.
    convert: makes a row of the object in a line.
    with_references: whether rows carry a list "references".
    shuffled: splits whose lines come in a drawn order, always the same.
  """
  rows = functools.partial(
    _json_rows, data_dir, dict(files), convert, tuple(shuffled)
  )
  return rows_source(rows, files, with_references=with_references)


def _json_rows(data_dir, files, convert, shuffled, split: str) -> "JsonLines":
  return read_jsonl(data_dir, files[split], convert, split in shuffled)


def prefixed(prefix: str, line: Mapping[str, Any]) -> Row:
  """The row of a line whose inputs get a prefix; see `jsonl_source`."""
  return {
    "inputs": prefix + line["inputs"],
    "targets": line["targets"],
    "references": line.get("references") or [line["targets"]],
  }


class Mapped:
  """A function of each item and its number, when asked for; not a list."""

  def __init__(self, function: Callable[[Any, int], Any], items: Iterable[Any]):
    self._function = function
    self._items = items

  def __iter__(self) -> Iterator[Any]:
    return map(self._function, self._items, itertools.count())

  def __length_hint__(self) -> int:
    return operator.length_hint(self._items)


def _complete(row: Row, names: Iterable[str], number: int) -> Row:
  """The fields of a row; a prompt alone has "" as its target."""
  if row.get("targets") is None:
    row = {**row, "targets": ""}
  for name in names:
    if wrong := _wrong(row, name):
      kind = "a list of texts" if name == "references" else "text"
      raise UserError(
        f"{row_name(number)} has {wrong}; expected {name!r} as {kind};"
        " correct the rows of the task"
      )
  return {name: row[name] for name in names}


def _wrong(row: Row, name: str) -> str:
  """What a row has instead of the text, or texts, of a field; "" if nothing."""
  if name not in row:
    return str(sorted(row))
  value = row[name]
  if name != "references":
    texts = [value]
  elif not row["targets"]:
    return ""  # nothing is compared with them
  elif isinstance(value, str) or not isinstance(value, Iterable):
    return f"{name!r} {value!r:.60}"
  else:
    texts = [text for text in value if not isinstance(text, bytes)]
  for text in texts:
    if not isinstance(text, str):
      return f"{name!r} {text!r:.60}"
    try:
      text.encode()
    except UnicodeEncodeError as error:
      place = error.start
      return f"{name!r} with half a character, {text[place]!r} at {place}"
  return ""


@dataclasses.dataclass(frozen=True)
class JsonLines:
  """Rows of a file of JSON lines, parsed when asked for.

  The lines are held: they take a quarter of the memory of the rows.
  """

  path: Path
  lines: Sequence[str]
  order: Sequence[int]
  convert: Callable[[dict[str, Any]], Any]

  def __len__(self) -> int:
    return len(self.lines)

  def __iter__(self) -> Iterator[Any]:
    for place in self.order:
      try:
        line = json.loads(self.lines[place])
      except ValueError as error:
        raise _unreadable(self.path, f"line {place + 1}: {error}") from error
      if not isinstance(line, dict):
        raise _unreadable(self.path, f"line {place + 1} is no object")
      try:
        row = self.convert(line)
      except KeyError as error:
        raise UserError(
          f"data file {self.path}, line {place + 1} has no {error}, but"
          f" {sorted(line)}; correct the line, or the names that the task reads"
        ) from error
      yield row


def read_jsonl(
  data_dir: str | os.PathLike | None,
  relative: str,
  convert: Callable[[dict[str, Any]], Any] = dict,
  shuffled: bool = False,
) -> JsonLines:
  """What `convert` makes of the lines of `data_dir/relative`.

  A file that ends in `.gz` is unzipped; `shuffled` lines come in a drawn order,
  always the same.
  """
  path = raw_files.find(data_dir, relative)
  open_text = gzip.open if path.suffix == ".gz" else open
  try:
    with open_text(path, "rt", encoding="utf-8") as file:
      lines = file.readlines()
  except (OSError, EOFError, ValueError) as error:
    raise _unreadable(path, error) from error
  order = list(range(len(lines)))
  if shuffled:
    random.Random(0).shuffle(order)
  return JsonLines(path, lines, order, convert)


def _unreadable(path: Path, why: Exception | str) -> UserError:
  return UserError(
    f"data file {path} cannot be read ({why}): expected JSON lines"
    f"{', gzipped' * (path.suffix == '.gz')}; copy the file again"
  )


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
    # Missing files, no network: TFDS raises whatever it likes.
    except Exception as error:
      reason = " ".join(str(error).split())[:200]
      remedy = self._remedy
      if isinstance(error, ImportError):
        remedy = f"install what is missing: pip install {error.name}"
      elif "ConnectionError" in {c.__name__ for c in type(error).__mro__}:
        remedy = f"there is no connection to download it from here; {remedy}"
      raise UserError(
        f"TFDS data set {self._name} cannot be read "
        f"({type(error).__name__}: {reason}): {remedy}"
      ) from error

  def num_input_examples(self, split: str) -> int | None:
    try:
      return super().num_input_examples(split)
    # Not generated yet: its size is not known. A slice that TFDS does not
    # understand is reported when it is read.
    except (KeyError, ValueError):
      return None
