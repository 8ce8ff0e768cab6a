"""Byte-pair tokenizers and chats against transformers: `make parity`."""

import gzip
import itertools
import json

import pytest
import sentencepiece

from gkd.checkpoints.hf import hf_tokenizer
from gkd.text import chat_formats
from gkd.text import gguf_vocabulary
from gkd.text import sentencepiece_model
from gkd.text import tokenizer_folder
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import first_difference
from tests.text.test_chat_formats import TEMPLATES
from tests.tiny_tokenizers import TEXTS
from tests.tiny_tokenizers import bpe_json
from tests.tiny_tokenizers import gguf_metadata

pytestmark = pytest.mark.parity

SPECIAL = ("<bos>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<end_of_turn>")


def real_texts(data_dir):
  texts = list(TEXTS)
  for file in sorted(data_dir.glob("*/*.gz")):
    with gzip.open(file, "rt", encoding="utf-8") as lines:
      texts += itertools.islice(lines, 0, None, 200)
  assert len(texts) > 300
  return texts


def test_qwens_rules_are_those_of_its_tokenizer(transformers, data_dir):
  settings = json.loads(bpe_json(digits=False))
  merges = [tuple(pair) for pair in settings["model"]["merges"]]
  theirs = transformers.Qwen2Tokenizer(settings["model"]["vocab"], merges)
  metadata = gguf_metadata(bpe_json(digits=False), "qwen2")
  ours = gguf_vocabulary.from_metadata(metadata, "x.gguf")
  for text in real_texts(data_dir):
    assert ours.encode(text) == theirs(text)["input_ids"], text


def test_gemmas_two_files_give_the_same_ids(transformers, tmp_path, data_dir):
  """tokenizer.model by SentencePiece, tokenizer.json by `tokenizers`."""
  texts = real_texts(data_dir)
  (tmp_path / "model").mkdir()
  with (tmp_path / "model" / "tokenizer.model").open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter([text[:1000] for text in texts if text.strip()]),
      model_writer=file,
      model_type="bpe",
      vocab_size=1500,
      pad_id=0,
      eos_id=1,
      bos_id=2,
      unk_id=3,
      bos_piece="<bos>",
      eos_piece="<eos>",
      byte_fallback=True,
      add_dummy_prefix=False,
      remove_extra_whitespaces=False,
      normalization_rule_name="identity",
      split_by_whitespace=True,
      allow_whitespace_only_pieces=True,
      user_defined_symbols=["<mask>", "<start_of_turn>", "<end_of_turn>"],
      minloglevel=2,
    )
  theirs = transformers.GemmaTokenizer.from_pretrained(
    tmp_path / "model", add_bos_token=True
  )
  theirs.save_pretrained(tmp_path / "json")
  (tmp_path / "json" / "tokenizer.model").unlink(missing_ok=True)
  pieces = tokenizer_folder.load(tmp_path / "model")
  merged = tokenizer_folder.load(tmp_path / "json")
  assert isinstance(pieces, SentencePieceVocabulary)
  assert (merged.kind, merged.size) == ("bpe", pieces.size)
  for name in ("pad_id", "eos_ids", "prompt_start", "ends_prompts"):
    assert getattr(merged, name) == getattr(pieces, name), name
  for text in texts:
    ids = merged.encode(text)
    assert ids == pieces.encode(text), text
    assert [2, *ids] == theirs(text)["input_ids"]
    assert merged.decode(ids) == text
  # A Llama's begin with a blank, unless the text already does.
  proto = sentencepiece_model.parse(pieces.content, "")
  proto.normalizer_spec.add_dummy_prefix = True
  content = proto.SerializeToString()
  llama = SentencePieceVocabulary("tokenizer.model", content=content)
  for name, ours in (("gemma", pieces), ("llama", llama)):
    (tmp_path / name).mkdir()
    hf_tokenizer.write(tmp_path / name, ours)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
    assert len(theirs) == ours.size
    for text in texts:
      if ours is pieces or not text.startswith(" "):
        ids = ours.encode(text)
        assert [2, *ids] == theirs(text)["input_ids"]
        assert theirs.decode(ids) == ours.decode(ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_framed_prompts_are_those_of_apply_chat_template(
  transformers, tmp_path, name
):
  (tmp_path / "tokenizer.json").write_bytes(bpe_json(special=SPECIAL))
  ends = {"chatml": SPECIAL[2], "llama3": SPECIAL[3], "gemma": SPECIAL[4]}
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": ends.get(name, SPECIAL[2]),
    "chat_template": TEMPLATES[name],
  }
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  ours = tokenizer_folder.load(tmp_path)
  frame = chat_formats.find(ours)
  for text in TEXTS:
    expected = theirs.apply_chat_template(
      [{"role": "user", "content": text}],
      add_generation_prompt=True,
      return_dict=False,
    )
    (ids,) = chat_formats.encode_prompts(ours, [text], frame)
    start = [ours.id_of("<bos>")] if frame.begins else []
    assert [*start, *ids] == expected, text
  theirs.save_pretrained(tmp_path / "again")
  again = tokenizer_folder.load(tmp_path / "again")
  assert first_difference(again, ours) is None
  assert again.chat_template == ours.chat_template
