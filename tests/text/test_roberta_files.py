"""vocab.json and merges.txt of a RoBERTa tokenizer, such as CodeT5's."""

import collections
import json

import pytest
import tokenizers

from gkd.data.builder import tokenise
from gkd.errors import UserError
from gkd.text import chat_formats
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import first_difference
from tests.tiny_tokenizers import TEXTS
from tests.tiny_tokenizers import bpe_json

PAD, BOS, EOS = 0, 1, 2
NAMES = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
MASK = {"content": "<mask>", "lstrip": True}


@pytest.fixture
def folder(tmp_path):
  """CodeT5's files: its ids, and sentinels beside vocab.json."""
  model = json.loads(bpe_json(digits=False))["model"]
  vocab = [*NAMES, *model["vocab"]]
  files = {
    "vocab.json": {token: index for index, token in enumerate(vocab)},
    "added_tokens.json": {"<extra_id_0>": 322, "<extra_id_1>": 321},
    "config.json": {"tokenizer_class": "RobertaTokenizer", "eos_token_id": EOS},
    "special_tokens_map.json": {"mask_token": MASK, "pad_token": "<pad>"},
  }
  for name, content in files.items():
    (tmp_path / name).write_text(json.dumps(content))
  merges = ["#version: 0.2", *map(" ".join, model["merges"]), ""]
  (tmp_path / "merges.txt").write_text("\n".join(merges))
  return tmp_path


def test_ids_are_those_of_the_rules_that_the_files_leave_out(folder):
  words = tokenizer_folder.load(folder)
  plain = tokenizers.Tokenizer.from_buffer(bpe_json(digits=False))
  for text in TEXTS:
    ids = words.encode(text)
    assert ids == [i + len(NAMES) for i in plain.encode(text).ids]
    assert words.decode([BOS, *ids, EOS, *ids]) == text
  assert words.encode("<s>a  <mask><extra_id_0>") == [
    *(BOS, words.id_of("a"), NAMES.index("<mask>"), 322)
  ]
  assert (words.size, words.pad_id, words.eos_ids) == (323, PAD, (EOS,))
  assert words.control_ids == (0, 2, 3, 4)  # an answer begins with <s>


def test_prompts_and_targets_stand_between_its_begin_and_end(folder):
  words = tokenizer_folder.load(folder)
  (prompt,) = chat_formats.encode_prompts(words, ["the cat"], None)
  assert prompt == [BOS, *words.encode("the cat"), EOS]
  assert chat_formats.decode_prompt(words, prompt, None) == "the cat"
  eos = {"inputs": True, "targets": True}
  lengths = {"inputs": 9, "targets": 5}
  recipe = tokenise.Recipe("", lengths, words, None, eos)
  texts = [{"inputs": "a", "targets": text} for text in ("dogs sat", "")]
  counts = collections.Counter()
  rows = tokenise.rows(recipe, tokenise.Job(0, 0, texts), counts, {})
  long, empty = (row.targets.tolist() for row in rows)
  assert long == [BOS, *words.encode("dogs sat")[:3], EOS]
  assert empty == []
  assert counts["lossy_targets"] == counts["lossy_inputs"] == 0


def test_saved_by_transformers_or_by_gkd_it_is_the_same(folder, tmp_path):
  words = tokenizer_folder.load(folder)
  (tmp_path / "tokenizer.json").write_bytes(words.content)
  again = tokenizer_folder.load(tmp_path)
  assert first_difference(words, again) is None
  assert again.target_start == (BOS,)


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    (
      "tokenizer_config.json",
      '{"tokenizer_class": "Qwen2Tokenizer"}',
      "is of a Qwen2Tokenizer, whose rules it does not tell; save the",
    ),
    ("config.json", '{"eos_token_id": 2}', "is of no tokenizer_class, whose"),
    ("tokenizer_config.json", '{"add_prefix_space": "no"}', "add_prefix_space"),
    ("added_tokens.json", '{"<new>": 400}', "<new> is 400, but would be 321"),
    ("merges.txt", "a b c", "merges.txt beside it cannot be read"),
    ("vocab.json", "[]", "merges.txt beside it cannot be read"),
    ("merges.txt", None, r"expected a merges\.txt of byte-pair encoding; give"),
  ],
)
def test_files_without_their_rules_or_of_two_models_are_refused(
  folder, file, content, message
):
  if content is None:
    (folder / file).unlink()
  else:
    (folder / file).write_text(content)
  with pytest.raises(UserError, match=message) as refused:
    tokenizer_folder.load(folder)
  assert "\n" not in str(refused.value)
