"""Makes a token cache of a seqio task: the TensorFlow side of the data path.

The task's own source and preprocessors run once; tokens, prompt texts and
postprocessed references go to disk, with the names of the task's postprocess
and metric functions. From then on nothing needs TensorFlow.

A cache is keyed by a hash of the task, its preprocessing (functions, their
arguments and the source code they stand in), split, vocabulary and lengths: a
change of any of them makes a new one. An existing one is found without
importing TensorFlow. Rows are taken in the source's order; the loader shuffles.

Usage:
  path = materialise("gsm8k", "train", cache_dir="cache", lengths={"inputs":
    128, "targets": 256}, task_module="gkd.tasks.arithmetic", data_dir=data_dir,
    vocabulary=vocabulary)
"""

from collections.abc import Iterator
from collections.abc import Mapping
import importlib
import inspect
import logging
import os
from pathlib import Path
from typing import Any
from typing import Literal
from typing import get_args

import numpy as np
import tqdm

from gkd.data import cache
from gkd.data import finding
from gkd.data import hashes
from gkd.data import identity
from gkd.data import writer
from gkd.data.cache import Row
from gkd.text.vocabulary import Vocabulary
from gkd.types import UserError

log = logging.getLogger("gkd")

Overlong = Literal["truncate", "refuse"]
FEATURES = ("inputs", "targets")


def materialise(
  task_name: str,
  split: str,
  *,
  cache_dir: str | os.PathLike,
  lengths: Mapping[str, int],
  task_module: str,
  data_dir: str | None,
  vocabulary: Vocabulary,
  overlong: Overlong = "truncate",
) -> str:
  """Path of the cache of one split of a task; made if it does not exist.

  Args:
    task_name: name of the seqio task.
    split: one of its splits; of a TFDS source also slices and sums of them.
    cache_dir: folder of all caches; the new one is
      `<cache_dir>/<task_name>/<split>-<hash>`.
    lengths: {"inputs": I, "targets": T} in tokens, EOS included.
    task_module: module whose `register(data_dir, vocabulary)` adds the task to
      seqio's registry.
    data_dir: raw data, as `register` wants it.
    vocabulary: the vocabulary of inputs and targets.
    overlong: cut rows that are longer than `lengths` and count them, their EOS
      kept as `seqio.preprocessors.append_eos_after_trim` does; or refuse them.

  Raises:
    UserError: an unknown task or split, rows too long with "refuse", a metric
      or postprocess function that cannot be imported without TensorFlow.
  """
  if overlong not in get_args(Overlong):
    raise UserError(
      f"overlong is {overlong!r}; expected one of {get_args(Overlong)}"
    )
  if set(lengths) != set(FEATURES) or min(lengths.values()) < 1:
    raise UserError(
      f"lengths are {dict(lengths)}; give 'inputs' and 'targets', 1 or more"
    )
  found = finding.find(
    cache_dir, task_name, split, lengths, vocabulary, overlong, data_dir
  )
  if found is not None:
    return found
  task = _task(task_name, split, task_module, data_dir, vocabulary)
  info = {
    "task": task_name,
    "split": split,
    "lengths": dict(lengths),
    "overlong": overlong,
    "sources": identity.sources(task, task_module),
    **identity.functions(task),
  }
  key = {
    **info,
    "format": cache.FORMAT,
    "vocabulary": vocabulary.spec(),
    "preprocessing": identity.preprocessing(task),
  }
  info |= {"hash": hashes.content_hash(key), "vocabulary": vocabulary}
  name = f"{finding.folder_name(split)}-{info['hash'][:12]}"
  path = Path(cache_dir) / task_name / name
  if cache.is_complete(path):  # another process has just made it
    return str(path)
  rows = _rows(task, split, lengths, overlong, vocabulary, info)
  total = task.num_input_examples(split)
  progress = tqdm.tqdm(
    rows,
    desc=f"cache {task_name} {split}",
    total=total,
    unit=" rows",
    mininterval=0.5,
  )
  writer.write_rows(path, progress, info)
  for feature in FEATURES:
    if count := info[f"truncated_{feature}"]:
      log.warning(
        "%s %s: %d rows had more than %d %s tokens and were cut",
        *(task_name, split, count, lengths[feature], feature),
      )
  return str(path)


def _task(
  name: str,
  split: str,
  task_module: str,
  data_dir: str | None,
  vocabulary: Vocabulary,
) -> Any:
  """The registered seqio task, checked."""
  try:
    import seqio
  except ImportError as error:
    raise UserError(
      f"making the cache of {name} {split} needs seqio and TensorFlow"
      f" ({error}); install them or copy a cache made elsewhere here"
    ) from error

  importlib.import_module(task_module).register(data_dir, vocabulary)
  names = seqio.TaskRegistry.names()
  if name not in names:
    raise UserError(
      f"task {name!r} is not registered by {task_module}; expected one of"
      f" {sorted(names)}"
    )
  task = seqio.TaskRegistry.get(name)
  _check_split(task, split)
  missing = [f for f in FEATURES if f not in task.output_features]
  if missing:
    raise UserError(
      f"task {name!r} has the features {sorted(task.output_features)}; an"
      f" encoder-decoder also needs {missing}"
    )
  for feature in FEATURES:
    size = task.output_features[feature].vocabulary.vocab_size
    if size != vocabulary.size:
      raise UserError(
        f"task {name!r} was registered with a {feature} vocabulary of {size}"
        f" ids, expected {vocabulary.words}; use one vocabulary in a process"
      )
  return task


def _check_split(task: Any, split: str) -> None:
  """A split of the task, or with TFDS also slices and sums of its splits."""
  import seqio

  if split in task.splits:
    return
  parts = {part.partition("[")[0].strip() for part in split.split("+")}
  # With a dict of splits seqio takes those alone, see `tasks.sources`.
  sliceable = (
    isinstance(task.source, seqio.TfdsDataSource)
    and type(task.source.splits) is not dict
  )
  if sliceable and parts <= {*task.splits, "all"}:
    return
  raise UserError(
    f"task {task.name!r} has no split {split!r}; expected one of"
    f" {sorted(task.splits)}"
    + "; slices and sums are for tasks with a gkd.tasks.sources.TfdsSource"
    * (parts <= set(task.splits))
  )


def _rows(
  task: Any,
  split: str,
  lengths: Mapping[str, int],
  overlong: Overlong,
  vocabulary: Vocabulary,
  info: dict[str, Any],
) -> Iterator[Row]:
  """Rows of a split, cut to length; counts the cuts into `info`."""
  counts = dict.fromkeys(FEATURES, 0)
  total = prompts_alone = 0
  # Untrimmed, so that what is too long can be seen; then cut as seqio would.
  dataset = task.get_dataset(
    sequence_length=_sequence_length(task, lengths),
    split=split,
    shuffle=False,
    trim_output_features=False,
  )
  for example in dataset.as_numpy_iterator():
    tokens = {}
    for name in FEATURES:
      ids = np.asarray(example.get(name, ()), np.int32)
      if name == "targets" and ids.tolist() == [vocabulary.eos_id]:
        ids = ids[:0]  # training on an EOS alone would teach silence
      tokens[name] = _cut(ids, lengths[name], vocabulary.eos_id)
      counts[name] += len(tokens[name]) < len(ids)
    prompt = _text(example, "inputs", vocabulary)
    target = _text(example, "targets", vocabulary)
    reference = None
    if tokens["targets"].size:
      reference = task.postprocess_fn(target, example=example, is_target=True)
    total += 1
    prompts_alone += not tokens["targets"].size
    yield Row(tokens["inputs"], tokens["targets"], prompt, _as_json(reference))
  if overlong == "refuse" and any(counts.values()):
    raise UserError(
      f"{task.name} {split}: "
      + " and ".join(
        f"{counts[name]} rows have more than {lengths[name]} {name} tokens"
        for name in FEATURES
        if counts[name]
      )
      + "; give longer lengths in TASK_FEATURE_LENGTHS or allow truncation"
    )
  if 0 < prompts_alone < total:
    log.warning(
      "%s %s: %d of %d rows have no target; the split counts as prompts alone",
      *(task.name, split, prompts_alone, total),
    )
  info |= {f"truncated_{name}": counts[name] for name in FEATURES}


def _sequence_length(
  task: Any, lengths: Mapping[str, int]
) -> dict[str, int] | None:
  """What the preprocessors are told: nothing, unless one builds rows by it.

  seqio's two EOS preprocessors only trim by it, which is done here, counted.
  """
  import seqio

  trims = (
    seqio.preprocessors.append_eos,
    seqio.preprocessors.append_eos_after_trim,
  )
  builds = any(
    "sequence_length" in inspect.signature(p).parameters
    for p in task.preprocessors
    if p not in trims
  )
  return dict(lengths) if builds else None


def _cut(ids: np.ndarray, length: int, eos_id: int) -> np.ndarray:
  """At most `length` ids; an EOS at the end stays the last one."""
  if len(ids) <= length:
    return ids
  ends = ids[-1] == eos_id
  return np.append(ids[: length - 1], ids[-1:]) if ends else ids[:length]


def _text(example: Mapping[str, Any], name: str, vocabulary: Vocabulary) -> str:
  """The text before tokenisation; decoded ids where the task drops it."""
  text = example.get(f"{name}_pretokenized")
  if text is None:
    return vocabulary.decode(example.get(name, ()))
  return text.decode() if isinstance(text, bytes) else str(text)


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
