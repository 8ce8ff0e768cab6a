"""Tokenizers of folders: which files are read, which ids they give."""

import json

import pytest

from gkd.checkpoints.hf import hf_tokenizer
from gkd.errors import UserError
from gkd.text import tokenizer_folder
from gkd.text import unigram_json
from gkd.text import vocabulary

TEXTS = (
  "the cat sat on the mat, and 17 dogs looked at it.",
  "two  spaces, a tab\tand a line\nbreak; ﬁne ½ Ünïcode 中",
  "  leading and trailing  ",
)


@pytest.fixture
def folder(tmp_path, spiece_file):
  (tmp_path / "spiece.model").write_bytes(spiece_file.read_bytes())
  return tmp_path


def fast_json(spiece_file, extra_ids=0):
  """tokenizer.json of the file."""
  return unigram_json.tokenizer_json(vocabulary.load(spiece_file, extra_ids))


def settle(folder, *, file="tokenizer_config.json", **settings):
  (folder / file).write_text(json.dumps(settings))


BYTES = {"tokenizer_class": "ByT5Tokenizer"}
LISTED = [f"<extra_id_{i}>" for i in range(125)]


@pytest.mark.parametrize(
  ("settings", "size"),
  [
    ({}, 400),
    ({"extra_ids": 7}, 307),
    ({"extra_ids": 0}, 300),
    # transformers adds none to those that are listed.
    ({"extra_ids": 0, "additional_special_tokens": LISTED[:1]}, 301),
    ({"extra_special_tokens": LISTED[:2]}, 302),
    (BYTES, 384),
    (BYTES | {"extra_ids": 0}, 259),
    # As transformers 5 saves it.
    (BYTES | {"extra_ids": 0, "extra_special_tokens": LISTED}, 384),
  ],
)
def test_extra_ids_are_those_of_the_settings_or_of_transformers(
  folder, settings, size
):
  settle(folder, **settings)
  loaded = tokenizer_folder.load(folder)
  assert loaded.size == size
  if loaded.kind == "bytes":
    assert loaded.encode("a") == [100]
  elif size > 300:
    assert loaded.piece(size - 1) == "▁<extra_id_0>"


@pytest.mark.parametrize(
  ("stated", "expected"),
  [(1, (1,)), ([1], (1,)), ([1, 4], (1, 4)), ([4, 7, 1], (1, 4, 7))],
)
def test_other_ends_of_a_text_are_those_of_the_model(folder, stated, expected):
  (folder / "config.json").write_text(json.dumps({"eos_token_id": stated}))
  assert tokenizer_folder.load(folder).eos_ids == expected
  (folder / "config.json").write_text('{"eos_token_id": [4, 7]}')
  refused(folder, r"ids \[4, 7\], but .* with 1; correct")


@pytest.mark.parametrize(
  ("model", "generation", "expected"),
  [
    (1, 1, (1,)),
    (1, [1], (1,)),
    (1, None, (1,)),
    (None, [1, 4], (1, 4)),
    (1, [4, 1], (1, 4)),
    ([1, 7], [1, 4], (1, 7, 4)),
    ([1, 7], 1, (1, 7)),
  ],
)
def test_ends_of_a_text_are_also_those_of_the_generation(
  folder, model, generation, expected
):
  settle(folder, file="config.json", eos_token_id=model)
  settle(folder, file="generation_config.json", eos_token_id=generation)
  assert tokenizer_folder.load(folder).eos_ids == expected


@pytest.mark.parametrize(
  ("name", "model", "generation"),
  [
    ("eos_token_id", 1, [4, 7]),
    ("eos_token_id", [1, 7], 4),
    ("pad_token_id", 0, 3),
    ("decoder_start_token_id", 0, 2),
  ],
)
def test_two_files_of_a_model_may_not_contradict_each_other(
  folder, name, model, generation
):
  settle(folder, file="config.json", **{name: model})
  settle(folder, file="generation_config.json", **{name: generation})
  shown = rf"{name} {model}, but generation_config.json beside it {generation}"
  refused(folder, shown.replace("[", r"\[").replace("]", r"\]"))


@pytest.mark.parametrize(
  ("model", "generation", "expected"),
  [(-1, 0, 0), (0, -1, 0), (None, -1, None), (-1, None, None)],
)
def test_a_padding_of_minus_one_is_none(folder, model, generation, expected):
  settle(folder, file="config.json", pad_token_id=model)
  settle(folder, file="generation_config.json", pad_token_id=generation)
  assert tokenizer_folder.model_ids(folder).get("pad_token_id") == expected


def test_sentinels_inside_the_file_are_not_added_again(folder):
  from sentencepiece import sentencepiece_model_pb2

  path = folder / "spiece.model"
  proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
  for i in reversed(range(100)):  # as in the file of mT5
    proto.pieces.add(piece=f"▁<extra_id_{i}>", score=0.0, type=4)
  path.write_bytes(proto.SerializeToString())
  assert tokenizer_folder.load(folder).size == 400


@pytest.mark.parametrize("extra_ids", [0, 100])
def test_a_lone_tokenizer_json_gives_the_same_ids(
  tmp_path, spiece_file, extra_ids
):
  """There and back: what we write for transformers is what we can read."""
  settings = fast_json(spiece_file, extra_ids)
  (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
  loaded = tokenizer_folder.load(tmp_path)
  original = vocabulary.load(spiece_file, extra_ids)
  assert vocabulary.first_difference(loaded, original) is None
  ids = original.encode_batch(TEXTS)
  assert loaded.encode_batch(TEXTS) == ids
  assert list(map(loaded.decode, ids)) == list(map(original.decode, ids))
  # Other scores are another vocabulary.
  settings["model"]["vocab"][290][1] -= 1.0
  (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
  other = tokenizer_folder.load(tmp_path)
  difference = vocabulary.first_difference(other, original)
  assert "equal pieces but unequal files" in difference


def test_a_lone_tokenizer_json_has_the_sentinels_of_its_settings(
  tmp_path, spiece_file
):
  (tmp_path / "tokenizer.json").write_text(
    json.dumps(fast_json(spiece_file, 5))
  )
  for stated in (0, 5):
    settle(tmp_path, extra_ids=stated)
    assert tokenizer_folder.load(tmp_path).size == 305
  settle(tmp_path, extra_ids=100)
  refused(
    tmp_path, "has 5 <extra_id_…>, but tokenizer_config.json .* 100; give"
  )
  settle(tmp_path, additional_special_tokens=LISTED[:7])
  refused(tmp_path, "has 5 <extra_id_…>, but .* 7; give")


def test_our_own_spec_is_read_from_the_folder_or_below_it(
  tmp_path, spiece_file
):
  assert tokenizer_folder.load(tmp_path) is None
  kept = tmp_path / "vocabulary"
  kept.mkdir()
  spec = vocabulary.load(spiece_file, 5).save(kept)
  (kept / "vocabulary.json").write_text(json.dumps(spec))
  assert tokenizer_folder.load(tmp_path).size == 305
  assert tokenizer_folder.load(kept).size == 305


def refused(folder, match):
  with pytest.raises(UserError, match=match):
    tokenizer_folder.load(folder)


ADDED = {"300": {"content": "<extra_id_0>"}, "400": {"content": "<tool>"}}


@pytest.mark.parametrize(
  ("settings", "match"),
  [
    ({"added_tokens_decoder": [1]}, r"added_tokens_decoder \[1\]; expected an"),
    (
      {"added_tokens_decoder": ADDED},
      "tokens that somebody added, '<tool>'; expected T5's own",
    ),
    ({"pad_token": "[PAD]"}, r"tokens that somebody added, '\[PAD\]'"),
    ({"mask_token": "[MASK]"}, r"tokens that somebody added, '\[MASK\]'"),
    (BYTES | {"cls_token": {"content": "<c>"}}, "somebody added, '<c>'"),
    (BYTES | {"eos_token": "<|end|>"}, r"somebody added, '<\|end\|>'"),
    ({"additional_special_tokens": 5}, "tokens 5; expected a list"),
    (
      {"extra_ids": 7, "additional_special_tokens": ["<extra_id_0>"]},
      "has extra_ids 7, but lists 1 <extra_id_…>; correct",
    ),
    ({"extra_ids": "100"}, "extra_ids '100'; expected a whole number"),
    ({"extra_ids": True}, "extra_ids True; expected a whole number"),
    ({"extra_ids": -1}, "extra_ids -1; expected a whole number of at least 0"),
    ({"extra_ids": 10**9}, "extra_ids is 1000000000; expected a whole number"),
    ({"tokenizer_class": 5}, "tokenizer_class 5; expected text"),
  ],
)
def test_settings_that_no_t5_has_are_one_line(folder, settings, match):
  settle(folder, **settings)
  refused(folder, match)


SLOW = {f"<extra_id_{i}>": 302 - i for i in range(3)}


@pytest.mark.parametrize("settings", [{}, BYTES])
@pytest.mark.parametrize(
  ("file", "content", "added"),
  [
    ("added_tokens.json", SLOW, {"<tool>": 400}),
    (
      "special_tokens_map.json",
      {"additional_special_tokens": list(SLOW)},
      {"additional_special_tokens": ["<tool>"]},
    ),
    (
      "special_tokens_map.json",
      {"additional_special_tokens": [{"content": t} for t in SLOW]},
      {"extra_special_tokens": {"tool": "<tool>"}},
    ),
  ],
)
def test_tokens_of_older_files_count_as_those_of_the_settings(
  folder, settings, file, content, added
):
  """Where slow tokenizers of transformers 4 keep them."""
  settle(folder, extra_ids=0, **settings)
  settle(folder, file=file, **content)
  size = 259 if settings else 300
  assert tokenizer_folder.load(folder).size == size + 3
  settle(folder, file=file, **content | added)
  refused(folder, "tokens that somebody added, '<tool>'; expected T5's own")


@pytest.mark.parametrize("settings", [{}, {"pad_token": "<s>"}])
def test_special_tokens_of_the_older_file_are_used_or_contradict(
  tmp_path, madlad_file, settings
):
  (tmp_path / "spiece.model").write_bytes(madlad_file.read_bytes())
  settle(tmp_path, extra_ids=0, **settings)
  pad = {"content": "<s>", "lstrip": False}
  settle(tmp_path, file="special_tokens_map.json", pad_token=pad)
  assert tokenizer_folder.load(tmp_path).pad_id == 1
  settle(tmp_path, extra_ids=0, pad_token="<unk>")
  refused(tmp_path, "pad_token '<unk>', but special_tokens_map.* it '<s>'")


def test_bytes_may_be_named_by_the_model_alone(tmp_path):
  """Whose folder needs no file of a tokenizer."""
  settle(tmp_path, file="config.json", tokenizer_class="T5Tokenizer")
  assert tokenizer_folder.load(tmp_path) is None
  settle(tmp_path, file="config.json", **BYTES)
  assert tokenizer_folder.load(tmp_path).size == 384
  settle(tmp_path, tokenizer_class="T5Tokenizer")
  assert tokenizer_folder.load(tmp_path) is None


def _model(**changes):
  return lambda tokenizer: {"model": tokenizer["model"] | changes}


def _added(tokenizer):
  added = [*tokenizer["added_tokens"], {"id": 300, "content": "\n"}]
  return {"added_tokens": added}


FIRST = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first"}
ODD = "tokenizer.json is not a tokenizer.json as transformers"


@pytest.mark.parametrize(
  ("change", "match"),
  [
    (_added, r"tokens that somebody added, '\\n'"),
    ({"model": {"type": "WordPiece"}}, "of type 'WordPiece'; expected Uni"),
    ({"model": {"type": "BPE"}}, "cannot be read .*; give a whole tokenizer"),
    ({"model": "x"}, "tokenizer.json has model .*; expected an object"),
    ({"model": []}, "tokenizer.json has model .*; expected an object"),
    (
      {"pre_tokenizer": {"type": "ByteLevel"}},
      r"splits texts by rules that T5's tokenizer does not have \(ByteLevel\)",
    ),
    ({"pre_tokenizer": FIRST}, "splits texts by rules"),
    ({"normalizer": {"type": "Lowercase"}}, "normalises texts by Lowercase"),
    (_model(vocab=None), ODD),
    (_model(vocab=[1, 2]), ODD),
    (_model(vocab=[["<pad>", 0.0]]), ODD),
    (_model(vocab=[["<pad>"], ["</s>"], ["<unk>"]]), ODD),
    (_model(vocab=[["<pad>", "x"], ["</s>", 0.0], ["<unk>", 0.0]]), ODD),
    (_model(vocab={"a": 0}), ODD),
    (
      _model(vocab=[[x, 0.0] for x in ("<pad>", "</s>", "<unk>", "b", "b")]),
      "is refused by SentencePiece",
    ),
  ],
)
def test_another_kind_of_tokenizer_json_is_refused(
  tmp_path, spiece_file, change, match
):
  tokenizer = fast_json(spiece_file)
  tokenizer |= change(tokenizer) if callable(change) else change
  (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
  refused(tmp_path, match)


def test_a_tokenizer_json_has_the_pieces_of_the_file_beside_it(
  folder, spiece_file
):
  settings = fast_json(spiece_file, 100)
  (folder / "tokenizer.json").write_text(json.dumps(settings))
  assert tokenizer_folder.load(folder).size == 400
  piece = settings["model"]["vocab"][9][0]
  settings["model"]["vocab"][9][0] = "other"
  (folder / "tokenizer.json").write_text(json.dumps(settings))
  refused(
    folder, f"has 'other' as piece 9 and spiece.model beside it '{piece}'"
  )


@pytest.mark.parametrize("name", ["spiece.model", "tokenizer.json"])
def test_a_link_to_nowhere_or_a_folder_is_not_no_tokenizer(tmp_path, name):
  (tmp_path / name).symlink_to("nowhere")
  refused(tmp_path, f"{name}.* cannot be read .No such file")
  (tmp_path / name).unlink()
  (tmp_path / name).mkdir()
  refused(tmp_path, f"{name}.* cannot be read .Is a directory")


@pytest.mark.parametrize("lone_json", [False, True])
def test_other_special_ids_survive_the_way_there_and_back(
  tmp_path, madlad_file, lone_json
):
  settle(
    tmp_path,
    pad_token={"content": "<s>"},
    eos_token="</s>",
    unk_token="<unk>",
    added_tokens_decoder={"1": {"content": "<s>"}},
    extra_ids=0,
  )
  (tmp_path / "spiece.model").write_bytes(madlad_file.read_bytes())
  first = tokenizer_folder.load(tmp_path)
  hf_tokenizer.write(tmp_path, first)
  if lone_json:
    (tmp_path / "spiece.model").unlink()
  again = tokenizer_folder.load(tmp_path)
  for loaded in (first, again):
    assert (loaded.pad_id, loaded.eos_ids, loaded.unk_id) == (1, (2,), 0)
  assert again.size == first.size
  assert again.encode_batch(TEXTS) == first.encode_batch(TEXTS)


@pytest.mark.parametrize(
  ("stated", "expected"), [(512, 512), (10**30, None), (None, None)]
)
def test_the_longest_text_is_that_of_the_settings(tmp_path, stated, expected):
  settle(tmp_path, model_max_length=stated)
  assert tokenizer_folder.max_length(tmp_path) == expected


def test_damaged_files_are_one_line(folder):
  """See tests/test_files.py for all that JSON can be damaged by."""
  (folder / "tokenizer_config.json").write_text("{")
  refused(folder, r"tokenizer_config.json is not JSON \(.*\); download it")
  settle(folder)
  (folder / "spiece.model").write_bytes(b"\x80\x04version https://git-lfs")
  refused(folder, "is not a SentencePiece model")
