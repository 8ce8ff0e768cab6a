"""Text-to-text tasks in seqio's registry, and seqio's twins of vocabularies.

Training and evaluation use `gkd.text.vocabulary`; seqio wants its own classes,
which give the same ids.
"""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
import seqio
import tensorflow as tf

from gkd.text import vocabulary as text_vocabulary
from gkd.types import UserError

AnyVocabulary = text_vocabulary.Vocabulary | seqio.Vocabulary


class PythonVocabulary(seqio.Vocabulary):
  """A seqio vocabulary around one of ours that TensorFlow cannot compute."""

  def __init__(self, vocabulary: text_vocabulary.Vocabulary):
    super().__init__(extra_ids=vocabulary.extra_ids)
    self.vocabulary = vocabulary

  @property
  def bos_id(self) -> None:
    return None

  @property
  def eos_id(self) -> int:
    return self.vocabulary.eos_ids[0]

  @property
  def unk_id(self) -> int | None:
    return self.vocabulary.unk_id

  @property
  def _base_vocab_size(self) -> int:
    return self.vocabulary.size - self.vocabulary.extra_ids

  def _encode(self, s: str) -> Sequence[int]:
    return self.vocabulary.encode(s)

  def _decode(self, ids: Sequence[int]) -> str:
    return self.vocabulary.decode(ids)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    def encode(text) -> np.ndarray:
      # bytes inside a graph, an array of no axes outside.
      content = np.asarray(text).item().decode("utf-8")
      return np.asarray(self.vocabulary.encode(content), np.int32)

    ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
    return tf.ensure_shape(ids, [None])

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    def decode(row: np.ndarray) -> bytes:
      return self.vocabulary.decode(row).encode("utf-8")

    text = tf.numpy_function(decode, [ids], tf.string, stateful=False)
    return tf.ensure_shape(text, [])

  def __eq__(self, other) -> bool:
    return (
      isinstance(other, PythonVocabulary)
      and self.vocabulary.spec() == other.vocabulary.spec()
    )

  __hash__ = None


def seqio_vocabulary(vocabulary: AnyVocabulary) -> seqio.Vocabulary:
  """The seqio twin: same ids, same text."""
  if isinstance(vocabulary, seqio.Vocabulary):
    return vocabulary
  if isinstance(vocabulary, text_vocabulary.SentencePieceVocabulary):
    if vocabulary.has_ids_of_file:
      return seqio.SentencePieceVocabulary(
        str(vocabulary.path), extra_ids=vocabulary.extra_ids
      )
    return PythonVocabulary(vocabulary)
  if isinstance(vocabulary, text_vocabulary.ByteVocabulary):
    return seqio.ByteVocabulary(extra_ids=vocabulary.extra_ids)
  if isinstance(vocabulary, text_vocabulary.Vocabulary):
    return PythonVocabulary(vocabulary)
  raise UserError(
    f"vocabulary {vocabulary!r}: expected one of gkd.text.vocabulary or a"
    " seqio.Vocabulary; load it with gkd.text.vocabulary.load"
  )


def add_task(
  name: str,
  source: seqio.DataSource,
  vocabulary: AnyVocabulary,
  *,
  preprocess: Callable | None = None,
  postprocess: Callable,
  metrics: Sequence[Callable],
) -> None:
  """Registers a text-to-text task, replacing one of the same name.

  Args:
    name: name in seqio's registry.
    source: gives fields "inputs" and "targets", or what `preprocess` turns
      into them.
    vocabulary: of both features.
    preprocess: maps a dataset to one with "inputs" and "targets".
    postprocess: module-level function of `gkd.text`; caches record its name.
    metrics: module-level functions of `gkd.text`.
  """
  twin = seqio_vocabulary(vocabulary)
  feature = seqio.Feature(vocabulary=twin, add_eos=True)
  # Those that seqio has itself are of T5's kind.
  ends = not isinstance(twin, PythonVocabulary) or twin.vocabulary.ends_prompts
  prompt = seqio.Feature(vocabulary=twin, add_eos=ends)
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  seqio.TaskRegistry.add(
    name,
    source=source,
    preprocessors=[
      *([preprocess] if preprocess else []),
      seqio.preprocessors.tokenize,
      seqio.preprocessors.append_eos,
    ],
    postprocess_fn=postprocess,
    metric_fns=list(metrics),
    output_features={"inputs": prompt, "targets": feature},
  )
