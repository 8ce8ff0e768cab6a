"""Byte-pair vocabularies: of a file, a folder, a GGUF and SentencePiece."""

import itertools
import json
import pickle
import unicodedata

import pytest
import regex
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import tokenizers

from gkd.errors import UserError
from gkd.text import gguf_vocabulary
from gkd.text import tokenizer_folder
from gkd.text.bpe import BPEVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import first_difference
from gkd.text.vocabulary import from_spec
from tests.tiny_tokenizers import CHATML
from tests.tiny_tokenizers import SPECIAL
from tests.tiny_tokenizers import TEXTS
from tests.tiny_tokenizers import bpe_json
from tests.tiny_tokenizers import gguf_metadata

CONTENT = bpe_json()
END, START, TURN_END = range(316, 319)


@pytest.fixture
def vocabulary():
  return BPEVocabulary(CONTENT, [TURN_END, END], chat_template=CHATML)


def test_ids_are_those_of_the_library_and_texts_come_back(vocabulary):
  own = tokenizers.Tokenizer.from_buffer(CONTENT)
  assert vocabulary.piece(0) == "!"  # a word like others
  ids = vocabulary.encode_batch([*TEXTS, "Hi!!", "<|im_end|>!"])
  assert ids[-2][-2:] == [0, 0]
  assert ids[-1] == [TURN_END, 0]
  assert ids[:-1] == [own.encode(text).ids for text in [*TEXTS, "Hi!!"]]
  assert [vocabulary.decode(row) for row in ids[:-1]] == [*TEXTS, "Hi!!"]
  assert vocabulary.size == 320
  assert vocabulary.unk_id is None
  assert (vocabulary.prompt_start, vocabulary.ends_prompts) == ((), False)


def test_a_text_ends_at_any_of_the_ends_a_prompt_at_none(vocabulary):
  ids = vocabulary.encode("a cat<|im_start|>b<|endoftext|>c")
  assert vocabulary.decode(ids) == "a cat<|im_start|>b"
  assert vocabulary.decode_prompt(ids) == "a cat<|im_start|>b<|endoftext|>c"
  assert vocabulary.control_ids == (END, START, TURN_END)


def test_saved_loaded_and_sent_to_a_worker_it_is_the_same(tmp_path, vocabulary):
  spec = json.loads(json.dumps(vocabulary.save(tmp_path)))
  assert (tmp_path / spec["file"]).read_bytes() == CONTENT
  for again in (
    from_spec(spec, tmp_path),
    pickle.loads(pickle.dumps(vocabulary)),
  ):
    assert again.spec() == vocabulary.spec()
    assert again.chat_template == CHATML
    assert first_difference(again, vocabulary) is None
    assert again.encode_batch(TEXTS) == vocabulary.encode_batch(TEXTS)
  (tmp_path / spec["file"]).write_bytes(CONTENT.replace(b"im_end", b"im_enX"))
  with pytest.raises(UserError, match="the file was changed"):
    from_spec(spec, tmp_path)


def test_other_merges_or_ends_are_another_vocabulary(vocabulary):
  merges = json.loads(CONTENT)
  last = merges["model"]["merges"]
  last[-1], last[-2] = last[-2], last[-1]
  other = BPEVocabulary(json.dumps(merges).encode(), [TURN_END, END])
  assert "unequal files" in first_difference(vocabulary, other)
  again = BPEVocabulary(CONTENT + b"\n", [TURN_END, END])
  assert first_difference(vocabulary, again) is None
  base = BPEVocabulary(CONTENT, [END], TURN_END)
  assert "eos_ids is (318, 316) in one" in first_difference(vocabulary, base)


@pytest.mark.parametrize(
  ("settings", "model", "eos_ids", "pad_id"),
  [
    ({"eos_token": "<|im_end|>"}, {}, (TURN_END,), TURN_END),
    # SmolLM2: the padding is an end.
    ({"eos_token": SPECIAL[2], "pad_token": SPECIAL[2]}, {}, (318,), 318),
    # Qwen: more ends in generation_config.json.
    (
      {"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}},
      {"eos_token_id": [TURN_END, END]},
      (TURN_END, END),
      END,
    ),
    # Gemma: turns end with another id than the tokenizer's.
    (
      {"eos_token": "<|endoftext|>", "chat_template": CHATML},
      {"eos_token_id": [END, TURN_END], "pad_token_id": START},
      (TURN_END, END),
      START,
    ),
    # A base model with the template of the others.
    (
      {"eos_token": "<|endoftext|>", "chat_template": CHATML},
      {"eos_token_id": END, "pad_token_id": -1},
      (END,),
      END,
    ),
    ({}, {"eos_token_id": START}, (START,), START),
  ],
)
def test_ends_and_padding_of_a_folder(
  tmp_path, settings, model, eos_ids, pad_id
):
  (tmp_path / "tokenizer.json").write_bytes(CONTENT)
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
  (tmp_path / "generation_config.json").write_text(json.dumps(model))
  loaded = tokenizer_folder.load(tmp_path)
  assert (loaded.eos_ids, loaded.pad_id) == (eos_ids, pad_id)
  assert loaded.content == CONTENT
  assert loaded.chat_template == settings.get("chat_template")


@pytest.mark.parametrize(
  ("settings", "ends", "message"),
  [
    ({}, None, "end a text with no id; give eos_token"),
    ({}, ["a"], r"end a text with \['a'\]; give eos_token"),
    ({}, 400, "has 320 ids, but padding is 400 and the ends"),
    ({"eos_token": "</s>"}, 1, "has no token '</s>', which the settings"),
    (
      {"added_tokens_decoder": {"320": {"content": "<new>"}}},
      1,
      "lacks tokens that the settings beside it add, '<new>'; save the",
    ),
  ],
)
def test_a_folder_without_an_end_or_a_token_is_refused(
  tmp_path, settings, ends, message
):
  ids = json.dumps({"eos_token_id": ends})
  (tmp_path / "config.json").write_text(ids)
  (tmp_path / "tokenizer.json").write_bytes(CONTENT)
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
  with pytest.raises(UserError, match=message):
    tokenizer_folder.load(tmp_path)


def test_a_file_that_is_not_there_is_called_what_it_is(vocabulary, tmp_path):
  spec = vocabulary.save(tmp_path)
  (tmp_path / spec["file"]).unlink()
  with pytest.raises(UserError, match=r"No such .*expected a tokenizer\.json;"):
    from_spec(spec, tmp_path)


def test_a_file_that_has_no_letters_is_refused():
  tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"x": 0}, []))
  with pytest.raises(UserError, match="has no token for the letter a; give"):
    BPEVocabulary(tokenizer.to_str().encode(), [0])


# The lists of src/llama-vocab.cpp in llama.cpp, applied one after the other.
GPT2 = (
  r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
LLAMA3 = (
  r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
  r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
RULES = {
  "gpt-2": [GPT2],
  "smollm": [r"\p{N}", GPT2],
  "llama-bpe": [LLAMA3],
  "qwen2": [LLAMA3.replace("{1,3}", "")],
}


@pytest.mark.parametrize("name", RULES)
def test_texts_are_split_as_llama_cpp_does(name):
  metadata = gguf_metadata(CONTENT, name)
  loaded = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  own = tokenizers.Tokenizer.from_buffer(loaded.content)
  for text in TEXTS:
    pieces = [text]
    for rule in RULES[name]:
      parts = [regex.split(f"({rule})", piece) for piece in pieces]
      pieces = [part for part in itertools.chain(*parts) if part]
    split = own.pre_tokenizer.pre_tokenize_str(text)
    assert [text[slice(*span)] for _, span in split] == pieces
    back = unicodedata.normalize("NFC", text) if name == "qwen2" else text
    assert loaded.decode(loaded.encode(text)) == back


def test_a_gguf_gives_the_ids_of_its_tokenizer_json(vocabulary):
  metadata = gguf_metadata(CONTENT, "smollm", padding_token_id=END)
  metadata["tokenizer.chat_template"] = CHATML
  loaded = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  assert loaded.encode_batch(TEXTS) == vocabulary.encode_batch(TEXTS)
  assert (loaded.size, loaded.eos_ids) == (320, (TURN_END,))  # without [PAD0]
  assert (loaded.pad_id, loaded.control_ids) == (END, vocabulary.control_ids)
  assert loaded.chat_template == CHATML
  # The end of a turn is found where the file tells another end alone.
  base = metadata | {"tokenizer.ggml.eos_token_id": END}
  ends = gguf_vocabulary.from_metadata(base, "x.gguf").eos_ids
  assert ends == (TURN_END, END)


@pytest.mark.parametrize(("name", "count"), [("llama-bpe", 1), ("qwen2", 4)])
def test_llama_3_merges_no_word_that_is_a_token(name, count):
  metadata = gguf_metadata(CONTENT, name)
  metadata["tokenizer.ggml.tokens"][0] = "xyzz"
  loaded = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  assert len(loaded.encode("xyzz")) == count


@pytest.mark.parametrize(
  ("name", "told", "expected"),
  [
    ("llama-bpe", {}, (END,)),
    ("gpt-2", {}, ()),
    ("gpt-2", {"add_bos_token": True}, (END,)),
    ("llama-bpe", {"add_bos_token": False}, ()),
  ],
)
def test_a_prompt_begins_as_the_gguf_says(name, told, expected):
  metadata = gguf_metadata(CONTENT, name, bos_token_id=END, **told)
  loaded = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  assert loaded.prompt_start == expected


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"pre": "tekken"},
      "^x.gguf splits texts by the rules 'tekken'; expected 'gpt-2', 'smollm'",
    ),
    ({"model": "bert"}, "of the kind 'bert'; expected 'gpt2' or 'llama'"),
    ({"merges": ["a"]}, "cannot be read"),
    # The library panics.
    ({"tokens": "yarn", "token_type": [1] * 4}, "cannot be read .range end"),
    ({"token_type": []}, "no whole vocabulary"),
    (
      {"model": "llama", "scores": [0.0] * 321, "add_space_prefix": 2**64 - 1},
      "no whole vocabulary .OverflowError",
    ),
    ({"eos_token_id": 400}, "has 320 ids, but padding is 400"),
  ],
)
def test_an_unknown_or_broken_vocabulary_is_refused(change, message):
  metadata = gguf_metadata(CONTENT, **{"pre": "smollm"} | change)
  with pytest.raises(UserError, match=message):
    gguf_vocabulary.from_metadata(metadata, "x.gguf")
  assert gguf_vocabulary.from_metadata({}, "x.gguf") is None


def test_a_prefix_at_which_the_library_ends_the_process_is_refused():
  settings = json.loads(CONTENT)
  settings["model"]["continuing_subword_prefix"] = "\0"
  with pytest.raises(UserError, match="it has a continuing_subword_prefix"):
    BPEVocabulary(json.dumps(settings).encode(), [TURN_END])


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
  """A SentencePiece file with Gemma's ids and rules."""
  path = tmp_path_factory.mktemp("gemma") / "tokenizer.model"
  with path.open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS[:-1] * 3),
      model_writer=file,
      model_type="bpe",
      vocab_size=400,
      pad_id=0,
      eos_id=1,
      bos_id=2,
      unk_id=3,
      byte_fallback=True,
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      normalization_rule_name="identity",
      user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n"],
      hard_vocab_limit=False,
      minloglevel=2,
    )
  return path


def test_a_sentencepiece_of_merges_begins_prompts_and_does_not_end_them(gemma):
  (gemma.parent / "generation_config.json").write_text(
    '{"eos_token_id": [1, 5]}'
  )
  loaded = tokenizer_folder.load(gemma.parent)
  assert (loaded.prompt_start, loaded.ends_prompts) == ((2,), False)
  assert (loaded.pad_id, loaded.eos_ids) == (0, (1, 5))
  assert loaded.control_ids == (0, 1, 2)
  template = "'<start_of_turn>model\\n'"
  settings = {"chat_template": template, "add_bos_token": False}
  (gemma.parent / "tokenizer_config.json").write_text(json.dumps(settings))
  spec = tokenizer_folder.load(gemma.parent).save(gemma.parent)
  again = from_spec(spec, gemma.parent)
  assert (again.eos_ids, again.prompt_start) == ((5, 1), ())
  assert not again.ends_prompts
  for text in TEXTS:
    assert loaded.decode(loaded.encode(text)) == text


def test_a_t5_with_merges_and_a_bos_ends_prompts_as_before(gemma, tmp_path):
  (tmp_path / "spiece.model").write_bytes(gemma.read_bytes())
  (tmp_path / "tokenizer_config.json").write_text(
    '{"pad_token": "<pad>", "eos_token": "</s>", "extra_ids": 0}'
  )
  loaded = tokenizer_folder.load(tmp_path)
  assert (loaded.prompt_start, loaded.ends_prompts) == ((), True)


@pytest.mark.parametrize(
  ("told", "start"), [({}, (2,)), ({"add_bos_token": False}, ())]
)
def test_a_gguf_of_pieces_gives_the_ids_of_its_model(gemma, told, start):
  original = SentencePieceVocabulary(gemma)
  proto = sentencepiece_model_pb2.ModelProto.FromString(original.content)
  # llama.cpp writes marks of turns as control tokens.
  ours = {
    "model": "llama",
    "tokens": [p.piece for p in proto.pieces],
    "scores": [p.score for p in proto.pieces],
    "token_type": [3 if "turn" in p.piece else p.type for p in proto.pieces],
    "eos_token_id": 1,
    "bos_token_id": 2,
    "unknown_token_id": 3,
    "padding_token_id": 0,
    "add_space_prefix": False,
    **told,
  }
  metadata = {f"tokenizer.ggml.{name}": value for name, value in ours.items()}
  loaded = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  texts = [*TEXTS, "<start_of_turn>user\nHi<end_of_turn>\n"]
  assert loaded.encode_batch(texts) == original.encode_batch(texts)
  assert loaded.encode(texts[-1])[0] == 4
  assert (loaded.eos_ids, loaded.pad_id) == ((1, 5), 0)
  assert (loaded.prompt_start, loaded.ends_prompts) == (start, False)
