"""The tokenizer comes from where the user says, and fits the model."""

import dataclasses

import pytest

from gkd.checkpoints import checkpoint_tokenizer
from gkd.checkpoints.native import run_folder
from gkd.models.t5 import T5Config
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models

CHARACTERS = "characters:0123456789+=abcdef"  # 21 ids


def checkpoint(ids, rows=512, **about):
  made = tiny_models.make()
  config = T5Config.from_size(
    tiny_models.SIZE, vocab_size=rows, vocabulary_size=ids
  )
  return dataclasses.replace(made, config=config, metadata=about)


def save(folder, words):
  folder.mkdir(parents=True)
  run_folder.write_vocabulary(folder, words)
  return folder


def test_by_default_it_is_the_one_beside_the_checkpoint(tmp_path):
  bare = dataclasses.replace(checkpoint(21), home=tmp_path / "model")
  assert checkpoint_tokenizer.find(bare, None) == (
    None,
    "tokenizer: none is beside the source",
  )
  words = vocabulary.load(CHARACTERS)
  save(tmp_path / "model", words)
  tokenizer, remark = checkpoint_tokenizer.find(bare, None)
  assert vocabulary.first_difference(tokenizer, words) is None
  assert remark.endswith("of the source")
  assert checkpoint_tokenizer.find(bare, "none") == (
    None,
    "tokenizer: left out, as was asked",
  )


def test_another_folder_may_hold_it(tmp_path):
  folder = save(tmp_path / "model", vocabulary.load(CHARACTERS))
  spec = folder / "vocabulary" / "vocabulary.json"
  for named in (folder, spec):
    tokenizer, remark = checkpoint_tokenizer.find(checkpoint(21), str(named))
    assert (tokenizer.size, remark.endswith(f"from {named}")) == (21, True)
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match=r"has neither spiece.model, tokenizer.m"):
    checkpoint_tokenizer.find(checkpoint(21), str(tmp_path / "empty"))


def test_characters_may_be_more_than_the_name_of_a_file_has():
  named = "characters:" + "".join(chr(0x4E00 + i) for i in range(2000))
  size = vocabulary.load(named).size
  assert (
    checkpoint_tokenizer.find(checkpoint(size, 2048), named)[0].size == size
  )


def test_bytes_fill_the_real_ids_with_extra_ones():
  tokenizer, _ = checkpoint_tokenizer.find(checkpoint(384), "bytes")
  assert (tokenizer.kind, tokenizer.size, tokenizer.extra_ids) == (
    "bytes",
    384,
    125,
  )


def test_sentinels_are_added_to_a_file_that_lacks_them(spiece_file):
  """A SentencePiece file of T5 has 100 pieces less than the model has ids."""
  file = spiece_file
  tokenizer, _ = checkpoint_tokenizer.find(checkpoint(400), str(file))
  assert (tokenizer.size, tokenizer.extra_ids) == (400, 100)
  tokenizer, _ = checkpoint_tokenizer.find(checkpoint(300), str(file))
  assert (tokenizer.size, tokenizer.extra_ids) == (300, 0)
  with pytest.raises(UserError, match=r"does not fit .* 420 real ids in 512 r"):
    checkpoint_tokenizer.find(checkpoint(420), str(file))


def test_a_tokenizer_with_another_end_of_sequence_is_refused():
  other = checkpoint(21)
  other = dataclasses.replace(
    other, config=dataclasses.replace(other.config, eos_ids=(2, 5))
  )
  with pytest.raises(UserError, match=r"with id 1, but eos_ids .* is \(2, 5\)"):
    checkpoint_tokenizer.find(other, CHARACTERS)


def test_another_tokenizer_than_the_one_trained_with_is_refused():
  words = vocabulary.load(CHARACTERS)
  trained = checkpoint(21, vocabulary_sha256=words.sha256)
  assert checkpoint_tokenizer.find(trained, CHARACTERS)[0].size == 21
  with pytest.raises(UserError, match="was trained with another tokenizer"):
    checkpoint_tokenizer.find(trained, CHARACTERS.replace("f", "g"))
