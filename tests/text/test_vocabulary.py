"""Ids equal seqio's in tests/tasks; here is what needs no TensorFlow."""

import json

import pytest

from gkd.text.sentencepiece_training import train_sentencepiece
from gkd.text.vocabulary import ByteVocabulary
from gkd.text.vocabulary import CharacterVocabulary
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import first_difference
from gkd.text.vocabulary import from_spec
from gkd.text.vocabulary import load
from gkd.types import UserError
from tests import child

TEXTS = [f"number {i} and {i * i} make one sentence" for i in range(300)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocabulary") / "small.model"
  return train_sentencepiece(TEXTS, 340, path)


def test_training_twice_gives_the_same_file_with_ids_of_t5(trained, tmp_path):
  assert trained.size == 340
  assert [trained.piece(i) for i in range(3)] == ["<pad>", "</s>", "<unk>"]
  assert (trained.pad_id, trained.eos_ids, trained.unk_id) == (0, (1,), 2)
  again = train_sentencepiece(iter(TEXTS), 340, tmp_path / "again.model")
  assert again.sha256 == trained.sha256


def test_byte_fallback_keeps_characters_never_seen(trained, tmp_path):
  text = "Größe {≤} ~ 日本"
  ids = trained.encode(text)
  assert trained.unk_id not in ids
  assert trained.decode(ids) == trained.decode_prompt(ids) == text
  beyond = [*ids, trained.size]
  assert trained.decode(beyond) == trained.decode_prompt(beyond) == f"{text} ⁇ "
  small = train_sentencepiece(
    TEXTS, 80, tmp_path / "v.model", byte_fallback=False
  )
  assert small.unk_id in small.encode("日")


def test_split_digits_gives_each_digit_its_piece(tmp_path):
  small = train_sentencepiece(
    [*TEXTS, *["2025"] * 2000], 284, tmp_path / "v.model", split_digits=True
  )
  pieces = [small.piece(i) for i in small.encode("2025")]
  assert pieces[-4:] == ["2", "0", "2", "5"]


def test_impossible_size_names_it(tmp_path):
  with pytest.raises(UserError, match="vocabulary of 99999 pieces"):
    train_sentencepiece(TEXTS, 99999, tmp_path / "v.model")


@pytest.fixture(params=["pieces", "bytes", "characters"])
def any_vocabulary(request, trained):
  return {
    "pieces": SentencePieceVocabulary(trained.path, 5),
    "bytes": ByteVocabulary(7),
    "characters": CharacterVocabulary("0123456789+="),
  }[request.param]


def test_characters_have_ids_from_three_and_unknowns_show():
  vocabulary = CharacterVocabulary("ab+")
  assert vocabulary.size == 6
  assert vocabulary.encode("b+x") == [4, 5, 2]
  # Padding is skipped, and the text ends with its end of sequence.
  assert vocabulary.decode([0, 4, 2, 5, 99, 0, 1, 3]) == "b⁇+⁇"


def test_saved_spec_gives_the_same_vocabulary(any_vocabulary, tmp_path):
  spec = json.loads(json.dumps(any_vocabulary.save(tmp_path)))
  again = from_spec(spec, tmp_path)
  assert again.spec() == spec
  assert first_difference(again, any_vocabulary) is None
  (tmp_path / "vocabulary.json").write_text(json.dumps(spec))
  assert load(tmp_path / "vocabulary.json").spec() == spec


def test_changed_vocabulary_file_is_noticed(trained, tmp_path):
  spec = trained.save(tmp_path)
  other = train_sentencepiece(TEXTS[:200], 330, tmp_path / "other.model")
  other.path.replace(tmp_path / spec["file"])
  with pytest.raises(UserError, match=r"has sha256 .* expected"):
    from_spec(spec, tmp_path)


@pytest.mark.parametrize("where", ["absolute", "../kept/{name}", "..", ""])
def test_a_spec_names_no_file_of_another_folder(trained, tmp_path, where):
  kept, here = tmp_path / "kept", tmp_path / "here"
  kept.mkdir()
  here.mkdir()
  spec = trained.save(kept)
  name = spec["file"]
  spec["file"] = str(kept / name) if where == "absolute" else where
  spec["file"] = spec["file"].format(name=name)
  with pytest.raises(UserError, match="name of a file in the same folder"):
    from_spec(spec, here)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "is not JSON"),
    ("[]", "is not a JSON object"),
    ('{"kind": "bytes"}', "is of bytes and has no extra_ids; restore it or"),
    ('{"kind": ["bytes"]}', r"has kind \['bytes'\]; expected text"),
    ('{"kind": "bytes", "extra_ids": true}', "expected a whole number"),
    ('{"kind": "characters"}', "is of characters and has no characters"),
    ('{"kind": "sentencepiece", "extra_ids": 0}', "has no file"),
  ],
)
def test_a_damaged_spec_is_one_line(tmp_path, content, message):
  file = tmp_path / "vocabulary.json"
  file.write_text(content)
  with pytest.raises(UserError, match=message):
    load(file)


def test_load_takes_what_a_config_writes(trained):
  assert load("bytes", 3).spec() == ByteVocabulary(3).spec()
  characters = load("characters:01+")
  assert characters.spec() == CharacterVocabulary("01+").spec()
  assert load(str(trained.path), 4).size == trained.size + 4
  assert load(characters.spec()).characters == "01+"


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: load("nowhere/spiece.model"), "nowhere/spiece.model"),
    (lambda: load(__file__), "not a SentencePiece model"),
    (lambda: load("bytes", -1), "extra_ids is -1"),
    (lambda: load("characters:0101"), "each once"),
    (lambda: load("characters:01", 5), "extra_ids 5"),
    (lambda: load({"kind": "words"}), "kind 'words'"),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(UserError, match=message):
    call()


def test_first_difference_names_id_and_pieces(trained):
  left, right = CharacterVocabulary("0123"), CharacterVocabulary("01x3")
  assert "id 5 is '2' in one" in first_difference(left, right)
  assert "'x' in the other" in first_difference(left, right)
  wider = SentencePieceVocabulary(trained.path, 2)
  assert "340 ids" in first_difference(trained, wider)
  assert (
    first_difference(trained, SentencePieceVocabulary(trained.path)) is None
  )


def test_text_modules_import_heavy_libraries_only_when_used():
  code = """
    import importlib, sys
    for name in sys.argv[1:]:
      importlib.import_module(f"gkd.text.{name}")
    heavy = {"sacrebleu", "rouge_score", "sentencepiece", "nltk"}
    print(heavy & set(sys.modules))
  """
  names = ("vocabulary", "sentencepiece_training", "metrics", "postprocess")
  assert child.run(code, *names) == "set()"
