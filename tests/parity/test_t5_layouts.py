"""Other layouts of T5 against transformers, as their users have them.

MADLAD-400 (padding 1, end 2, start 0), CodeT5 (T5 1.0 with a RoBERTa tokenizer,
0, 2, 0) and Aya-101 (mT5 in bfloat16): `make parity`.
"""

import functools
import json

import jax
import numpy as np
import pytest
import sentencepiece
import tokenizers

from gkd import keys
from gkd import trees
from gkd.checkpoints import source
from gkd.data.loader import Loader
from gkd.models import registry
from gkd.models.kept_layers import EveryKth
from gkd.partitioning import make_mesh
from gkd.sampling.generate import forbidden_ids
from gkd.sampling.generate import generate
from gkd.sampling.params import SamplingParams
from gkd.text import tokenizer_folder
from gkd.training import loop
from gkd.types import Batch
from gkd.types import Model
from tests import tiny
from tests.checkpoints import tiny_models
from tests.tiny_tokenizers import TEXTS

pytestmark = pytest.mark.parity

GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
LAYOUTS = {
  "madlad-400": {"pad_token_id": 1, "eos_token_id": 2, **GATED},
  "codet5": {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1},
  "aya-101": {"pad_token_id": 0, "eos_token_id": 1, **GATED},
}
LENGTHS = {"inputs": 14, "targets": 16}
REAL = [f"{p.inputs} {p.targets}" for p in tiny.CHAINS.problems("train", 300)]


@pytest.fixture(scope="module")
def layout(torch, transformers, tmp_path_factory):
  """Of a name: the folder that transformers wrote, its model and tokenizer."""

  @functools.cache
  def make(name):
    folder = tmp_path_factory.mktemp(name)
    write = _codet5_tokenizer if name == "codet5" else _spiece
    settings = write(folder, LAYOUTS[name])
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    words = transformers.AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(3)
    config = transformers.T5Config(
      vocab_size=len(words) + 12,
      **{"d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 3},
      **{"num_layers": 2, "num_decoder_layers": 2},
      decoder_start_token_id=0,
      **LAYOUTS[name],
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    if not config.tie_word_embeddings:  # version 5 ties it all the same
      head = torch.empty(config.vocab_size, config.d_model)
      model.lm_head.weight = torch.nn.Parameter(head)
    with torch.no_grad():
      for tensor in model.parameters():
        tensor.normal_(std=0.4)
    model = model.bfloat16() if name == "aya-101" else model
    model.save_pretrained(folder)
    return folder, model, words

  return make


def _spiece(folder, ids):
  """MADLAD-400's has <s> as its padding and no piece <pad>, mT5's <pad>."""
  has_pad = ids["pad_token_id"] == 0
  first = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
  with (folder / "spiece.model").open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter([*REAL, *TEXTS[:3]]),
      model_writer=file,
      vocab_size=120,
      hard_vocab_limit=False,
      minloglevel=2,
      **(first if has_pad else {}),
    )
  return {
    "tokenizer_class": "T5Tokenizer",
    "eos_token": "</s>",
    "pad_token": "<pad>" if has_pad else "<s>",
    "unk_token": "<unk>",
    "extra_ids": 0,
    "additional_special_tokens": [],
  }


def _codet5_tokenizer(folder, ids):
  """The files of a slow tokenizer, sentinels beside its vocab.json."""
  del ids
  merges = tokenizers.ByteLevelBPETokenizer()
  special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
  merges.train_from_iterator(
    [*TEXTS, *REAL], 330, special_tokens=special, show_progress=False
  )
  merges.save_model(str(folder))
  size = merges.get_vocab_size()
  sentinels = {f"<extra_id_{99 - i}>": size + i for i in range(100)}
  (folder / "added_tokens.json").write_text(json.dumps(sentinels))
  mask = {"content": "<mask>", "lstrip": True, "normalized": True}
  return {
    "tokenizer_class": "RobertaTokenizer",
    "mask_token": {**mask, "__type": "AddedToken"},
    "additional_special_tokens": list(sentinels),
    "add_prefix_space": False,
    "model_max_length": 512,
  }


def _texts(words):
  """Unknown letters are id 2 in transformers, also where that is the end."""
  texts = (*TEXTS, *REAL[:9], "a <mask> b<extra_id_7>  c", "def f(x):\n\tpass")
  return [text for text in texts if words.unk_id not in words.encode(text)]


def _batch(words):
  """Prompts of 1 to 12 real tokens, and targets, both ended and padded."""
  random = np.random.RandomState(5)
  sides, pad, end = [], words.pad_id, words.eos_ids[0]
  for width in (12, 7):
    ids = random.randint(5, words.size, (8, width)).astype(np.int32)
    lengths = np.linspace(1, width, 8).astype(int)[:, None]
    at = np.arange(width)
    ids[at >= lengths] = 0
    ids = np.where(at == lengths - 1, end, np.where(at < lengths, ids, pad))
    sides += [ids, at < lengths]
  return sides


@pytest.mark.parametrize("name", LAYOUTS)
def test_logits_greedy_answers_and_ids_equal_transformers(torch, layout, name):
  folder, theirs, their_words = layout(name)
  words = tokenizer_folder.load(folder)
  assert words.size == len(their_words)
  for text in _texts(words):
    ids = [*words.target_start, *words.encode(text), words.eos_ids[0]]
    assert their_words(text)["input_ids"] == ids, text
    assert words.decode(ids) == words.decode_prompt(words.encode(text))

  config, params = tiny_models.read(folder)
  lm = registry.build(config)
  inputs, input_mask, targets, real = _batch(words)
  fed = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]  # start 0
  prompts = {
    "input_ids": torch.tensor(inputs),
    "attention_mask": torch.tensor(input_mask.astype(int)),
  }
  theirs = theirs.float()
  with torch.no_grad():
    want = theirs(**prompts, decoder_input_ids=torch.tensor(fed)).logits.numpy()
  params = jax.tree.map(lambda x: x.astype(np.float32), params)
  got = jax.jit(lm.logits)(params, inputs, targets, input_mask=input_mask)
  np.testing.assert_allclose(
    np.asarray(got)[real], want[real], atol=1e-4 * np.ptp(want)
  )

  rows = np.arange(len(inputs))
  samples = generate(
    Model(lm, params),
    Batch(inputs, input_mask, None, None, rows, None),
    keys.stream(0, 0, keys.Role.EVALUATION),
    SamplingParams(temperature=0.0),
    max_length=9,
    vocabulary=words,
  )
  never = [*forbidden_ids(lm.start_id, words), *range(words.size, len(want.T))]
  answers = theirs.generate(
    **prompts, do_sample=False, max_new_tokens=9, suppress_tokens=never
  ).numpy()[:, 1:]
  for row, answer in enumerate(answers):
    length = int(samples.lengths[row])
    np.testing.assert_array_equal(samples.tokens[row, :length], answer[:length])


@pytest.mark.parametrize("name", LAYOUTS)
def test_through_gkd_and_back_it_is_the_same_folder(
  torch, transformers, layout, tmp_path, name
):
  folder, theirs, their_words = layout(name)
  dtype = torch.bfloat16 if name == "aya-101" else torch.float32
  tiny_models.convert(folder, tmp_path / "gkd", to="gkd")
  tiny_models.convert(tmp_path / "gkd", tmp_path / "hf", to="hf")
  model, info = type(theirs).from_pretrained(
    tmp_path / "hf", output_loading_info=True, dtype="auto"
  )
  assert not any(info.values()), info
  for key, tensor in theirs.to(dtype).state_dict().items():
    assert torch.equal(model.state_dict()[key], tensor), key
  for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
    assert getattr(model.config, key) == getattr(theirs.config, key)
  again = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
  for text in _texts(tokenizer_folder.load(folder)):
    assert again(text)["input_ids"] == their_words(text)["input_ids"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_is_a_frozen_bfloat16_teacher(layout, tmp_path, name):
  folder, _, _ = layout(name)
  words = tokenizer_folder.load(folder)
  mesh = make_mesh(devices=jax.devices()[:1])
  opened = source.open_checkpoint(folder, dtype="bfloat16", dropout_rate=0.0)
  pruned = source.pick_layers(source.open_checkpoint(folder), EveryKth(2))
  roles = {}
  for role, checkpoint in {"teacher": opened, "student": pruned}.items():
    lm = registry.build(checkpoint.config)
    kept = "bfloat16" if role == "teacher" else None
    params = source.load_params(checkpoint, lm, mesh, dtype=kept)
    roles[role] = Model(lm, params)
  before = jax.device_get(roles["teacher"].params)
  halves = {leaf.dtype.name for leaf in jax.tree.leaves(before)}
  assert halves == {"bfloat16"}
  cache = tiny.make_cache(
    tmp_path / "cache", vocabulary=words, rows=16, lengths=LENGTHS
  )
  loader = Loader(cache, batch_size=8, lengths=LENGTHS, seed=0)
  run = tiny.make_run(
    tmp_path / "run",
    {"train": cache},
    roles=roles,
    loader=loader,
    train_steps=2,
  )
  changed = loop.train(run).params
  tiny.assert_identical(roles["teacher"].params, before)
  deltas = jax.tree.map(
    lambda new, old: np.abs(new - old).max(),
    *jax.device_get((changed, roles["student"].params)),
  )
  assert min(trees.flatten(deltas).values()) > 0
  losses = [line["train/loss"] for line in tiny.lines(tmp_path / "run")]
  assert np.isfinite(losses).all()
