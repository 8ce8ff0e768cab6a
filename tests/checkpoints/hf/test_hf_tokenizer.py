"""Tokenizer files for transformers; opened by it in tests/parity."""

import dataclasses

import pytest

from gkd.checkpoints.hf import hf_tokenizer
from gkd.text import sentencepiece_model
from gkd.text import sentencepiece_training
from gkd.text import tokenizer_folder
from gkd.text import vocabulary
from gkd.text.bpe import BPEVocabulary
from gkd.types import UserError
from tests import tiny_tokenizers
from tests.checkpoints import tiny_models


def test_a_byte_pair_tokenizer_comes_back_byte_by_byte(tmp_path):
  words = BPEVocabulary(
    tiny_tokenizers.bpe_json(), [318, 316], 316, tiny_tokenizers.CHATML
  )
  hf_tokenizer.check(words)
  hf_tokenizer.write(tmp_path, words, 77)
  again = tokenizer_folder.load(tmp_path)
  assert again.content == words.content
  assert again.chat_template == words.chat_template
  assert (again.pad_id, again.eos_ids) == (316, (318,))  # others: the model's
  assert tokenizer_folder.max_length(tmp_path) == 77


def merged(has_bytes, prefix=True, **options):
  """A tokenizer.model with a BOS."""
  pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
  pieces += [(f"<0x{i:02X}>", 0.0, 6) for i in range(256 * has_bytes)]
  content = sentencepiece_model.bpe_model(
    [*pieces, ("a", -1.0, 1)],
    {"unk": 0, "bos": 1, "eos": 2},
    add_dummy_prefix=prefix,
  )
  return vocabulary.SentencePieceVocabulary(
    vocabulary.BEGINNING_FILE, content=content, **options
  )


def test_merged_pieces_without_bytes_have_no_tokenizer_there():
  with pytest.raises(UserError, match="give --tokenizer=none to write the"):
    hf_tokenizer.check(merged(False))


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("LlamaTokenizer", {"prefix": True}),
    ("GemmaTokenizer", {"prefix": False, "add_bos": False}),
  ],
)
def test_merged_pieces_come_back_byte_by_byte(tmp_path, name, options):
  words = merged(True, chat_template=tiny_tokenizers.CHATML, **options)
  hf_tokenizer.check(words)
  hf_tokenizer.write(tmp_path, words)
  again = tokenizer_folder.load(tmp_path)
  assert again.content == words.content
  assert again.spec() == words.spec() | {"pad_id": 0, "eos_ids": [2]}
  assert again.prompt_start == words.prompt_start
  settings = tiny_models.read_json(tmp_path / "tokenizer_config.json")
  assert settings["tokenizer_class"] == name


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
  loaded = tokenizer_folder.load(folder)
  assert vocabulary.first_difference(loaded, wanted) is None
  assert (folder / "spiece.model").read_bytes() == path.read_bytes()
  # Only what transformers would lose needs the second form.
  assert (folder / "tokenizer.json").exists() == byte_fallback


def test_a_limit_of_texts_and_mt5_survive_on_the_way_through_ours(tmp_path):
  made = tiny_models.make(vocab_size=384)
  words = vocabulary.load("bytes", 61)
  theirs = tiny_models.save(tmp_path / "theirs", made, "hf", words)
  settings = tiny_models.read_json(theirs / "tokenizer_config.json")
  assert "model_max_length" not in settings
  tiny_models.rewrite_json(
    theirs / "tokenizer_config.json", model_max_length=512
  )
  tiny_models.rewrite_json(theirs / "config.json", model_type="mt5")
  tiny_models.convert(theirs, tmp_path / "ours", to="gkd")
  tiny_models.convert(tmp_path / "ours", tmp_path / "again", to="hf")
  settings = tiny_models.read_json(tmp_path / "again" / "tokenizer_config.json")
  assert settings["model_max_length"] == 512
  config = tiny_models.read_json(tmp_path / "again" / "config.json")
  assert config["architectures"] == ["MT5ForConditionalGeneration"]
  bad = dataclasses.replace(made, metadata={"hf": {"model_max_length": "x"}})
  with pytest.raises(UserError, match="model_max_length 'x'; expected a whole"):
    tiny_models.save(tmp_path / "bad", bad, "hf")
