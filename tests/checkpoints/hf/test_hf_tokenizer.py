"""Tokenizer files for transformers; opened by it in tests/parity."""

import dataclasses
import json

import pytest

from gkd.checkpoints.hf import hf_folder
from gkd.checkpoints.hf import hf_tokenizer
from gkd.checkpoints.native import native_checkpoint
from gkd.text import sentencepiece_training
from gkd.text import tokenizer_folder
from gkd.text import vocabulary
from gkd.types import UserError
from tests.checkpoints import tiny_models


@pytest.mark.parametrize("byte_fallback", [False, True])
def test_a_sentencepiece_vocabulary_comes_back(tmp_path, byte_fallback):
  path = tmp_path / "own.model"
  texts = [f"{n} cats and {n + 1} dogs" for n in range(200)]
  sentencepiece_training.train_sentencepiece(
    texts, 290 if byte_fallback else 40, path, byte_fallback
  )
  wanted = vocabulary.load(path, 3)
  folder = tmp_path / "exported"
  folder.mkdir()
  hf_tokenizer.write(folder, wanted)
  found = tokenizer_folder.load(folder)
  assert vocabulary.first_difference(found, wanted) is None
  assert (folder / "spiece.model").read_bytes() == path.read_bytes()
  # Only what transformers would lose needs the second form.
  assert (folder / "tokenizer.json").exists() == byte_fallback


def test_texts_are_cut_where_they_were_also_on_the_way_through_ours(tmp_path):
  for name in ("theirs", "ours", "again"):
    (tmp_path / name).mkdir()
  made = tiny_models.make(vocab_size=384)
  words = vocabulary.load("bytes", 61)
  hf_folder.write(tmp_path / "theirs", made, vocabulary=words)
  file = tmp_path / "theirs" / "tokenizer_config.json"
  settings = json.loads(file.read_text())
  assert "model_max_length" not in settings
  file.write_text(json.dumps({**settings, "model_max_length": 512}))
  native_checkpoint.write(
    tmp_path / "ours", hf_folder.open_checkpoint(tmp_path / "theirs", {})
  )
  kept = native_checkpoint.open_checkpoint(tmp_path / "ours", {})
  hf_folder.write(tmp_path / "again", kept, vocabulary=words)
  settings = json.loads((tmp_path / "again" / file.name).read_text())
  assert settings["model_max_length"] == 512
  bad = dataclasses.replace(made, metadata={"hf": {"model_max_length": "x"}})
  with pytest.raises(UserError, match="model_max_length 'x'; expected a whole"):
    hf_folder.write(tmp_path / "again", bad, vocabulary=words)
