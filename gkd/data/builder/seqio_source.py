"""A registered seqio task and its examples: the TensorFlow side of the data.

Where a task ends with seqio's `tokenize` and `append_eos`, its examples are
taken before those and tokenised by workers, at a fraction of the cost. Of any
other task the tokens are taken, as seqio makes them.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import inspect
import itertools
import operator
from pathlib import Path
from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from gkd.data import cache_info
from gkd.data import task_functions
from gkd.data.builder.lookup import CacheSpec
from gkd.data.builder.tokenise import Examples
from gkd.data.cache_info import FEATURES
from gkd.errors import UserError
from gkd.text import task_modules
from gkd.text.characters import ByteVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import Vocabulary
from gkd.text.vocabulary import first_difference

_SEED = 0  # of preprocessors that draw: a continued cache fits together
_ROWS_AT_ONCE = 1024


def load(spec: CacheSpec) -> seqio.Task:
  """The registered seqio task, checked."""
  options = {}
  if spec.data_files is not None:
    options = {"task": spec.task, "data_files": spec.data_files}
  task_modules.register(
    spec.task_module, spec.data_dir, spec.vocabulary, **options
  )
  names = seqio.TaskRegistry.names()
  if spec.task not in names:
    raise _unregistered(spec, names)
  task = seqio.TaskRegistry.get(spec.task)
  _check_split(task, spec.split)
  for feature in FEATURES:
    if feature not in task.output_features:
      raise UserError(
        f"task {spec.task!r} has the features {sorted(task.output_features)};"
        f" an encoder-decoder also needs {feature!r}"
      )
    vocabulary = task.output_features[feature].vocabulary
    theirs, size = as_ours(vocabulary), vocabulary.vocab_size
    difference = None
    if theirs is not None:
      difference = first_difference(theirs, spec.vocabulary)
    elif size != spec.vocabulary.size:
      difference = f"it has {size} ids, expected {spec.vocabulary.describe()}"
    if difference:
      raise UserError(
        f"task {spec.task!r} has another {feature} vocabulary than VOCABULARY:"
        f" {difference}; leave VOCABULARY empty, or give that of the task"
      )
  return task


def own_vocabulary(spec: CacheSpec) -> Vocabulary | None:
  """That of a task or mixture which its module registers as it is imported.

  None where the module takes its vocabulary from the configuration.
  """
  if task_modules.takes_vocabulary(spec.task_module):
    return None
  known = {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}
  if spec.task not in known:
    raise _unregistered(spec, known)
  features = seqio.get_mixture_or_task(spec.task).output_features
  found = [as_ours(features[n].vocabulary) for n in FEATURES if n in features]
  if None in found or any(first_difference(found[0], v) for v in found):
    raise UserError(
      f"the vocabularies of task {spec.task!r} are not one of bytes or"
      " SentencePiece with seqio's defaults; give VOCABULARY"
    )
  return found[0]


def as_ours(vocabulary: Any) -> Vocabulary | None:
  """The vocabulary that is known to tokenise as this one of seqio."""
  extra_ids = getattr(vocabulary, "extra_ids", 0)
  if vocabulary == seqio.ByteVocabulary(extra_ids=extra_ids):
    return ByteVocabulary(extra_ids)
  file = getattr(vocabulary, "sentencepiece_model_file", None)
  # With every other argument at its default.
  if file and vocabulary == seqio.SentencePieceVocabulary(file, extra_ids):
    try:
      content = tf.io.gfile.GFile(file, "rb").read()  # may be in a bucket
    except tf.errors.OpError as error:
      raise UserError(
        f"the task's vocabulary file {file} cannot be read ({error.message});"
        " register the task with a file that can"
      ) from error
    return SentencePieceVocabulary(file, extra_ids, content)
  inner = getattr(vocabulary, "vocabulary", None)  # of `tasks.features`
  return inner if hasattr(inner, "spec") else None


def read(task: seqio.Task, spec: CacheSpec) -> Examples:
  """The examples of the split; the first one is read, which opens its files.

  Preprocessors that build rows by length get the lengths of `spec`; others get
  none, so that rows come whole.
  """
  examples = _examples(task, spec)
  first = list(itertools.islice(examples.rows, 1))
  if not first:
    raise UserError(
      f"{spec.name} has no rows; check the task, its split and the files in"
      f" {spec.data_dir or 'its data directory'}"
    )
  return examples._replace(rows=itertools.chain(first, examples.rows))


def raw_files(task: seqio.Task, spec: CacheSpec) -> dict[str, Path]:
  """{name: path} of the files that seqio's own file sources read.

  The name is the path within `data_dir`, or the whole path outside of it.
  """
  if not isinstance(task.source, seqio.FileDataSource):
    return {}
  root = Path(spec.data_dir or ".").absolute()
  paths = {}
  for name in task.source.list_shards(spec.split):
    path = Path(name).absolute()
    if path.is_file():  # a bucket's are out of reach
      inside = spec.data_dir and path.is_relative_to(root)
      paths[str(path.relative_to(root) if inside else path)] = path
  return paths


def function_names(task: seqio.Task, task_module: str) -> dict[str, Any]:
  """Names of the task's postprocess and metric functions, for info.json."""
  # The others of `metric_objs` are made of the functions.
  objects = task.metric_objs[: len(task.metric_objs) - len(task.metric_fns)]
  refused = [*task.predict_with_aux_metric_fns]
  refused += [metric for metric in objects if not _compares_texts(metric)]
  if refused:
    names = ", ".join(getattr(fn, "__name__", repr(fn)) for fn in refused)
    raise UserError(
      f"task {task.name!r}: metrics of more than texts, {names}, are not"
      " supported; give functions of (targets, predictions) or (targets,"
      " scores), or what PassthroughLegacyMetric.from_metric_fn makes of the"
      " first"
    )
  if objects and task.postprocessor is not None:
    raise UserError(
      f"task {task.name!r} has metric_objs, to which seqio gives the targets as"
      " they are, and a postprocess_fn, after which a cache does not have them;"
      " give it to from_metric_fn instead, or the metrics as metric_fns"
    )
  kinds = {
    "predictions": task.predict_metric_fns,
    "scores": task.score_metric_fns,
    "texts": objects,
  }

  name, post = task_functions.name_of, task.postprocessor
  where = f"{task_module}:{task.name}"
  return {
    "postprocess": post and name(post, f"{where}:postprocess/0"),
    "metrics": [
      name(metric, f"{where}:{kind}/{index}")
      for kind, metrics in kinds.items()
      for index, metric in enumerate(metrics)
    ],
  }


def _compares_texts(metric: Any) -> bool:
  """Whether one of `metric_objs` is a function of (targets, predictions)."""
  kind = metric if isinstance(metric, type) else type(metric)
  return (
    issubclass(kind, seqio.metrics.PassthroughLegacyMetric)
    and kind.model_output_type == seqio.metrics.ModelOutputType.PREDICTION
  )


def _examples(task: seqio.Task, spec: CacheSpec) -> Examples:
  before = _before_tokenising(task, spec.vocabulary)
  if before is not None:
    add_eos = {n: task.output_features[n].add_eos for n in FEATURES}
    if not before and hasattr(task.source, "examples"):
      rows = task.source.examples(spec.split)
      return Examples(iter(rows), operator.length_hint(rows) or None, add_eos)
    dataset = _preprocessed(task, before, spec)
    if _has_texts(dataset.element_spec):
      total = task.num_input_examples(spec.split)
      return Examples(_in_batches(dataset), total, add_eos)
  dataset = task.get_dataset(
    sequence_length=_sequence_length(task.preprocessors, spec.lengths),
    split=spec.split,
    shuffle=False,
    # Untrimmed, so that what is too long can be counted.
    trim_output_features=False,
  )
  total = task.num_input_examples(spec.split)
  return Examples(dataset.as_numpy_iterator(), total, None)


def _unregistered(spec: CacheSpec, known: Iterable[str]) -> UserError:
  return UserError(
    f"task {spec.task!r} is not registered by {spec.task_module}; expected one"
    f" of {sorted(known)}"
  )


def _check_split(task: seqio.Task, split: str) -> None:
  """A split of the task, or with TFDS also slices and sums of its splits."""
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


def _before_tokenising(task: seqio.Task, vocabulary: Vocabulary) -> list | None:
  """The preprocessors before seqio's own two last; None with any other end."""
  prep = seqio.preprocessors
  placeholder = seqio.CacheDatasetPlaceholder
  steps = [s for s in task.preprocessors if not isinstance(s, placeholder)]
  ends = (
    len(steps) > 1
    and steps[-2] is prep.tokenize
    and steps[-1] in (prep.append_eos, prep.append_eos_after_trim)
  )
  plain = set(task.output_features) == set(FEATURES) and all(
    type(feature) is seqio.Feature
    and feature.rank == 1
    and feature.dtype.name == "int32"
    and _gives_the_ids_of(feature.vocabulary, vocabulary)
    for feature in task.output_features.values()
  )
  return steps[:-2] if ends and plain else None


def _gives_the_ids_of(theirs: Any, ours: Vocabulary) -> bool:
  """Whether a seqio vocabulary is known to tokenise as one of ours."""
  same = as_ours(theirs)
  return same is not None and cache_info.same_vocabulary(
    {"vocabulary": same.spec()}, ours
  )


def _preprocessed(task: seqio.Task, steps: list, spec: CacheSpec) -> Any:
  """The dataset after these steps, as `seqio.Task.get_dataset` applies them."""
  dataset = task.source.get_dataset(split=spec.split, shuffle=False)
  with seqio.utils.map_seed_manager(_SEED):
    for step in steps:
      apply = seqio.utils.add_kwargs_to_transform(
        step,
        sequence_length=_sequence_length(steps, spec.lengths),
        output_features=task.output_features,
      )
      dataset = apply(dataset)
  return dataset


def _sequence_length(
  steps: list, lengths: Mapping[str, int]
) -> dict[str, int] | None:
  """The lengths for preprocessors: None unless one of them builds rows by it.

  seqio's two EOS preprocessors only trim by it, which is done later, counted.
  """
  prep = seqio.preprocessors
  builds = any(
    "sequence_length" in inspect.signature(step).parameters
    for step in steps
    if step not in (prep.append_eos, prep.append_eos_after_trim)
  )
  return dict(lengths) if builds else None


def _has_texts(spec: Any) -> bool:
  """Whether examples are flat, with a text for inputs and targets."""
  flat = isinstance(spec, Mapping) and all(
    isinstance(s, tf.TensorSpec) and s.shape.rank in (0, 1)
    for s in spec.values()
  )
  return flat and all(
    name in spec and spec[name].dtype == tf.string and not spec[name].shape.rank
    for name in FEATURES
  )


def _in_batches(dataset: Any) -> Iterator[dict[str, Any]]:
  """The examples one by one: leaving TensorFlow costs as much for a batch."""
  for batch in dataset.ragged_batch(_ROWS_AT_ONCE).as_numpy_iterator():
    columns = [_column(values) for values in batch.values()]
    for values in zip(*columns, strict=True):
      yield dict(zip(batch, values, strict=True))


def _column(values: Any) -> Any:
  """A sequence of the values of one field."""
  if isinstance(values, np.ndarray):
    return values
  return np.split(values.flat_values, values.row_splits[1:-1])  # ragged
