"""Our vocabularies and seqio's: the same ids, the same text."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from gkd.tasks.features import seqio_vocabulary
from gkd.text.vocabulary import ByteVocabulary
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.types import UserError

TEXTS = [
  "Tom lives here.",
  "The answer is 72.  Two  blanks ",
  "Größe, ß, Ä {x} < ~ \n 日本語",
  "I like <extra_id_0> and <extra_id_99> sandwiches",
  "1+2=3;A3",
  "",
]


@pytest.fixture(params=["pieces", "bytes", "characters"])
def vocabulary(request, pieces):
  return {
    "pieces": pieces,
    "bytes": ByteVocabulary(extra_ids=100),
    "characters": CharacterVocabulary("0123456789+-=;A"),
  }[request.param]


def test_ids_equal_seqios_in_python_and_tensorflow(vocabulary):
  _assert_twins(vocabulary)


def test_decoding_equals_seqios_for_any_ids(vocabulary):
  twin = seqio_vocabulary(vocabulary)
  rng = np.random.default_rng(0)
  for _ in range(100):
    ids = rng.integers(2, vocabulary.size + 20, size=12)
    ids = np.where(rng.random(12) < 0.1, rng.integers(0, 2, 12), ids)
    assert vocabulary.decode(ids) == twin.decode(ids.tolist())
    assert vocabulary.decode(list(ids)) == vocabulary.decode(ids)


def test_t5_vocabulary_equals_seqios(data_dir):
  path = data_dir / "vocab" / "t5_spiece.model"
  vocabulary = SentencePieceVocabulary(path, extra_ids=100)
  assert vocabulary.size == 32_100
  assert vocabulary.encode("<extra_id_0>")[-1] == 32_099
  _assert_twins(vocabulary)
  # T5's own test of its vocabulary: ids of t5 1.0's published examples.
  prefix = vocabulary.encode("translate English to German: ")
  assert prefix[:3] == [13959, 1566, 12]


def test_seqio_vocabularies_pass_through_and_others_are_refused():
  twin = seqio.ByteVocabulary()
  assert seqio_vocabulary(twin) is twin
  with pytest.raises(UserError, match="vocabulary 'bytes'"):
    seqio_vocabulary("bytes")


def _assert_twins(vocabulary):
  twin = seqio_vocabulary(vocabulary)
  assert twin.vocab_size == vocabulary.size
  assert (twin.pad_id, twin.eos_id, twin.unk_id) == (0, 1, 2)
  for text in TEXTS:
    ids = vocabulary.encode(text)
    assert ids == list(twin.encode(text))
    assert ids == twin.encode_tf(tf.constant(text)).numpy().tolist()
    assert vocabulary.decode(ids) == twin.decode(ids)
    assert twin.decode_tf(tf.constant(ids)).numpy().decode() == twin.decode(ids)
