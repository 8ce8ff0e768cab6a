"""From the examples of a task to the rows of a cache; runs in worker processes.

A worker imports neither TensorFlow nor seqio nor jax, unless a task's own
postprocess function does. Texts are tokenised in
batches, with the ids that `seqio.preprocessors.tokenize` gives.
"""

import collections
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import os
import traceback
from typing import Any
from typing import NamedTuple

import numpy as np

from gkd.data import cache
from gkd.data import cache_info
from gkd.data import shards
from gkd.data import task_functions
from gkd.errors import UserError
from gkd.errors import row_name
from gkd.text import chat_formats
from gkd.text.vocabulary import Vocabulary

_TEXTS_AT_ONCE = 1024
_SHOWN = 24  # characters of a text that does not come back


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What is done with every example of a task.

  Attributes:
    folder: of the cache in the making.
    lengths: {"inputs": I, "targets": T}; what is longer is cut, its EOS kept,
      and counted.
    vocabulary: of inputs and targets.
    postprocess: "module:function" for the references; None keeps the text.
    add_eos: {"inputs": …, "targets": …}: whether an EOS follows the tokens of a
      text; None where examples come with tokens.
    frame: texts around each prompt, of which the one behind it stays.
    cut_left: a prompt loses its beginning and not its end; what the vocabulary
      and the frame put before it stays.
  """

  folder: str
  lengths: Mapping[str, int]
  vocabulary: Vocabulary
  postprocess: str | None
  add_eos: Mapping[str, bool] | None
  frame: chat_formats.Frame | None = None
  cut_left: bool = False

  @functools.cached_property
  def kept(self) -> int:
    """Tokens at the end of a prompt that the frame takes."""
    return len(self.vocabulary.encode(self.frame.after)) if self.frame else 0

  @functools.cached_property
  def kept_before(self) -> int:
    """Tokens before the text of a prompt, of vocabulary and frame."""
    if self.frame is None:
      return len(self.vocabulary.prompt_start)
    before = self.vocabulary.encode(self.frame.before)
    return len(self.vocabulary.prompt_start) * self.frame.begins + len(before)


class Examples(NamedTuple):
  """The examples of a split, in the source's order."""

  rows: Iterator[Mapping[str, Any]]  # field -> text, number or array
  total: int | None  # where it is known beforehand
  add_eos: Mapping[str, bool] | None  # as in `Recipe`


class Job(NamedTuple):
  """One shard."""

  index: int
  first_row: int  # of the split
  examples: Sequence[Mapping[str, Any]]  # as preprocessors leave them


def write(recipe: Recipe, job: Job) -> int:
  """Writes a shard; returns its number of rows.

  Raises:
    UserError: it cannot be written, or an example cannot be converted.
  """
  counts, notes = collections.Counter(), {}
  try:
    return shards.write(
      *(recipe.folder, job.index),
      *(rows(recipe, job, counts, notes), counts, notes),
    )
  except UserError:
    raise
  # Most of all the task's own postprocess function may raise whatever it likes.
  except Exception as error:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    raise UserError(
      f"{row_name(job.first_row + counts['rows'])} cannot be converted"
      f" ({type(error).__name__}: {error}, in {frame.name} at"
      f" {frame.filename}:{frame.lineno}); mend the row or the task and run the"
      " same command again: finished shards stay"
    ) from error


def rows(
  recipe: Recipe,
  job: Job,
  counts: collections.Counter[str],
  notes: dict[str, str],
) -> Iterator[cache.Row]:
  """Rows of a shard.

  Counts up `rows` and `prompts_alone`, rows without a target, and of inputs and
  of targets `truncated_…`, `lossy_…`, rows whose text does not come back from
  its tokens, `unknown_…`, the tokens of these that stand for no piece, and
  `tokens_…:N`, rows that have N tokens before they are cut. The notes have the
  first `lossy_…` as an example.
  """
  name, postprocess = recipe.postprocess, task_functions.keep_text
  if name and name.startswith(task_functions.PREFIX):
    postprocess = task_functions.resolve_here(name, recipe.vocabulary)
  elif name:
    postprocess = task_functions.resolve(
      name, "the task", lambda: recipe.vocabulary
    )
  for start in range(0, len(job.examples), _TEXTS_AT_ONCE):
    examples = job.examples[start : start + _TEXTS_AT_ONCE]
    if recipe.add_eos is not None:
      tokenised = functools.partial(_tokenised, recipe=recipe)
      try:
        examples = tokenised(examples)
      except Exception:  # again one by one, so that the row is counted to
        examples = (tokenised([example])[0] for example in examples)
    for example in examples:
      yield _row(example, recipe, postprocess, counts)
      place = row_name(job.first_row + counts["rows"])
      for name in cache_info.FEATURES:
        _count_lossy(example, name, recipe, place, counts, notes)
      counts["rows"] += 1


def _tokenised(
  examples: Sequence[Mapping[str, Any]], recipe: Recipe
) -> list[dict[str, Any]]:
  """The examples as seqio's `tokenize` and `append_eos` would leave them.

  They also have what the vocabulary and the frame put around them.
  """
  vocabulary, add_eos = recipe.vocabulary, recipe.add_eos
  tokenised = [{k: _as_tensor(v) for k, v in e.items()} for e in examples]
  for name in cache_info.FEATURES:
    texts = [_as_text(example[name]) for example in examples]
    if name == "inputs":
      batch = chat_formats.encode_prompts(
        vocabulary, texts, recipe.frame, add_eos[name]
      )
    else:
      start, end = vocabulary.target_start, [vocabulary.eos_ids[0]]
      end *= add_eos[name]
      batch = [[*start, *ids, *end] for ids in vocabulary.encode_batch(texts)]
    for example, ids in zip(tokenised, batch, strict=True):
      example[f"{name}_pretokenized"] = example[name]
      example[name] = np.array(ids, np.int32)
  return tokenised


def _count_lossy(example, name, recipe, place, counts, notes) -> None:
  """Counts a text that does not come back from its tokens, ends aside."""
  if f"{name}_pretokenized" not in example:  # a task may drop its texts
    return
  vocabulary, ids = recipe.vocabulary, example[name]
  text = _text(example, name, vocabulary).strip()
  if name == "inputs":
    decoded = chat_formats.decode_prompt(vocabulary, ids.tolist(), recipe.frame)
  else:
    decoded = vocabulary.decode(ids.tolist())
  decoded = decoded.strip()
  if decoded == text:
    return
  counts[f"lossy_{name}"] += 1
  counts[f"unknown_{name}"] += int(np.sum(ids == vocabulary.unk_id))
  if f"lossy_{name}" not in notes:
    start = len(os.path.commonprefix([text, decoded]))  # noqa: RUF071, letters
    shown = slice(max(0, start - _SHOWN // 2), start + _SHOWN // 2)
    notes[f"lossy_{name}"] = (
      f"{place}, where {text[shown]!r} comes back as {decoded[shown]!r}"
    )


def _row(example, recipe, postprocess, counts) -> cache.Row:
  vocabulary, tokens = recipe.vocabulary, {}
  for name in cache_info.FEATURES:
    ids = np.asarray(example.get(name, ()), np.int32)
    is_short = ids.size == 1 + len(vocabulary.target_start)
    if name == "targets" and is_short and ids[-1] in vocabulary.eos_ids:
      ids = ids[:0]  # training on an EOS alone would teach silence
    kept = recipe.kept if name == "inputs" else 0
    if not kept and ids.size and ids[-1] in vocabulary.eos_ids:
      kept = 1
    length = recipe.lengths[name]
    if name == "inputs" and recipe.cut_left:
      kept = max(length - recipe.kept_before, kept)
    tokens[name] = _cut(ids, length, kept)
    counts[f"truncated_{name}"] += len(tokens[name]) < len(ids)
    counts[f"tokens_{name}:{len(ids)}"] += ids.size > 0
  reference = None
  if tokens["targets"].size:
    target = _text(example, "targets", vocabulary)
    reference = postprocess(target, example=example, is_target=True)
  counts["prompts_alone"] += not tokens["targets"].size
  return cache.Row(
    inputs=tokens["inputs"],
    targets=tokens["targets"],
    prompt=_text(example, "inputs", vocabulary),
    reference=_as_json(reference),
    teacher=_as_text(example.get("teacher", "")),
  )


def _cut(ids: np.ndarray, length: int, kept: int) -> np.ndarray:
  """At most `length` ids; the last `kept` of them stay, such as an EOS."""
  if len(ids) <= length:
    return ids
  start = len(ids) - kept
  return np.concatenate([ids[: length - kept], ids[start:]])


def _text(example: Mapping[str, Any], name: str, vocabulary: Vocabulary) -> str:
  """The text before tokenisation; decoded ids where the task drops it."""
  text = example.get(f"{name}_pretokenized")
  if text is None:
    return vocabulary.decode(example.get(name, ()))
  return _as_text(text)


def _as_text(text: Any) -> str:
  return text.decode() if isinstance(text, bytes) else str(text)


def _as_tensor(value: Any) -> Any:
  """What TensorFlow would make of the value of a Python row."""
  if isinstance(value, str):
    return value.encode()
  if isinstance(value, list | tuple):
    return np.array([_as_tensor(v) for v in value], object)
  return value


def _as_json(value: Any) -> Any:
  """Bytes as text and NumPy values as Python's."""
  if isinstance(value, bytes):
    return value.decode()
  if isinstance(value, np.ndarray | np.generic):
    return _as_json(value.tolist())
  if isinstance(value, Mapping):
    return {str(k): _as_json(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_as_json(v) for v in value]
  return value
