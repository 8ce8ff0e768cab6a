"""VOCABULARY as a word, a file or a folder."""

import pytest

from gkd.config import configuration
from gkd.config import vocabularies
from gkd.config.records import DataConfig
from gkd.config.records import Folders
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.types import UserError

SIZE = 300
LENGTHS = {"inputs": 4, "targets": 4}


def of(name, extra_ids=0, **places):
  places = {"data_dir": "", "cache_dir": ""} | places
  data = DataConfig(
    task="toy",
    split="train",
    lengths=LENGTHS,
    vocabulary=name,
    extra_ids=extra_ids,
  )
  return vocabularies.of(data, Folders(**places))


def test_a_folder_says_its_own_extra_ids(spiece_file):
  """Those of a task's file are for the vocabulary that the file names."""
  configuration.load([], [])
  for extra_ids in (0, 7, 100):
    vocabulary = of(str(spiece_file.parent), extra_ids)
    assert vocabulary.size == SIZE + 100
    assert vocabulary.piece(SIZE + 99) == "▁<extra_id_0>"


def test_a_folder_may_be_below_the_data_folder(spiece_file):
  configuration.load([], [])
  place = spiece_file.parent
  vocabulary = of(place.name, data_dir=str(place.parent))
  assert vocabulary.spec() == of(str(place)).spec()


def test_a_rebuilt_tokenizer_is_written_where_seqio_can_read_it(
  spiece_file, tmp_path, monkeypatch
):
  configuration.load([], [])
  content = spiece_file.read_bytes()
  rebuilt = SentencePieceVocabulary(
    tmp_path / "spiece.model", 9, content, eos_ids=[1, 4]
  )
  monkeypatch.setattr(tokenizer_folder, "load", lambda folder: rebuilt)
  vocabulary = of(str(tmp_path), 9, cache_dir=str(tmp_path / "cache"))
  assert vocabulary.path.is_relative_to(tmp_path / "cache")
  assert vocabulary.path.read_bytes() == content
  assert vocabulary.spec() == rebuilt.spec()
  # A second time it is there.
  again = of(str(tmp_path), 9, cache_dir=str(tmp_path / "cache"))
  assert again.path == vocabulary.path


def test_a_file_takes_the_extra_ids_that_are_given(spiece_file):
  assert of(str(spiece_file), 7).size == SIZE + 7


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("", "VOCABULARY is empty; .* takes that of INITIAL_CHECKPOINT_PATH"),
    (None, "VOCABULARY is empty; .*; gkd cache vocabulary --output=FILE makes"),
    ("nowhere", "'nowhere' is not a file .*, or --data_dir .*; gkd cache voc"),
    ("own/spice.model", "did you mean spiece.model there.; .* its path; gkd"),
  ],
)
def test_what_is_not_there_is_refused(name, message, tmp_path):
  (tmp_path / "own").mkdir()
  (tmp_path / "own" / "spiece.model").touch()
  with pytest.raises(UserError, match=message):
    of(name, data_dir=str(tmp_path) if "/" in (name or "") else "")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
  with pytest.raises(UserError, match="is a folder without a tokenizer; give"):
    of(str(tmp_path))
