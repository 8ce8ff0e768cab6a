"""Models whose special ids are not T5's: from a Hugging Face folder and back.

MADLAD-400 has padding 1, end 2 and start 0, CodeT5 0, 2 and 0; other families
have several ids that end a sequence, or a start that is not the padding.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
import sentencepiece

from gkd import api
from gkd import partitioning
from gkd.checkpoints import source
from gkd.checkpoints.hf import hf_folder
from gkd.config import model_spec
from gkd.data.cache import Row
from gkd.data.cache import TokenCache
from gkd.data.completions.spec import Completions
from gkd.data.completions.write import write_completions
from gkd.data.loader import Loader
from gkd.data.writer import write_rows
from gkd.evaluation.evaluate import evaluate
from gkd.models import registry
from gkd.models import t5
from gkd.sampling.strategies import BeamSearch
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.text.vocabulary import from_spec
from gkd.training import loop
from gkd.training.rollout import Rollout
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.checkpoints import tiny_models

FAMILIES = {
  "madlad": {"pad_id": 1, "eos_ids": (2,), "start_id": 0},
  "codet5": {"pad_id": 0, "eos_ids": (2,), "start_id": 0},
  "several": {"pad_id": 1, "eos_ids": (2, 5), "start_id": 6},
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
  """Characters as pieces, after MADLAD-400's special ids and four more."""
  path = tmp_path_factory.mktemp("pieces") / "spiece.model"
  problems = tiny.CHAINS.problems("train", 200)
  with path.open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(f"{p.inputs} {p.targets}" for p in problems),
      model_writer=file,
      model_type="char",
      vocab_size=30,
      hard_vocab_limit=False,
      unk_id=0,
      bos_id=1,
      eos_id=2,
      pad_id=-1,
      user_defined_symbols=["<a>", "<b>", "<c>", "<d>"],
      minloglevel=2,
    )
  return path


@pytest.fixture(params=FAMILIES)
def ids(request):
  return FAMILIES[request.param]


@pytest.fixture
def vocabulary(model_file, ids):
  return SentencePieceVocabulary(
    model_file, pad_id=ids["pad_id"], eos_ids=ids["eos_ids"]
  )


@pytest.fixture
def model(ids, vocabulary):
  config = dataclasses.replace(
    tiny.STUDENT.config,
    vocab_size=vocabulary.size + 3,
    vocabulary_size=vocabulary.size,
    dropout_rate=0.0,
    **ids,
  )
  return t5.encoder_decoder(config)


@pytest.fixture
def cache(tmp_path, vocabulary):
  rows = []
  for problem in tiny.CHAINS.problems("train", 24):
    inputs, targets = (
      np.array(vocabulary.encode(text) + [vocabulary.eos_ids[0]], np.int32)
      for text in (problem.inputs, problem.targets)
    )
    rows.append(Row(inputs, targets, problem.inputs, problem.answer))
  info = {
    "task": "sums",
    "split": "train",
    "lengths": {"inputs": 12, "targets": 20},
    "vocabulary": vocabulary,
    "postprocess": "gkd.text.postprocess:chain_answer",
    "metrics": ["gkd.text.metrics:accuracy"],
  }
  return TokenCache(write_rows(tmp_path / "cache", rows, info))


def test_the_ids_of_a_vocabulary_survive_saving(tmp_path, vocabulary, ids):
  spec = json.loads(json.dumps(vocabulary.save(tmp_path)))
  again = from_spec(spec, tmp_path)
  assert (again.pad_id, again.eos_ids) == (ids["pad_id"], ids["eos_ids"])
  text = "12 + 3"
  tokens = again.encode(text)
  assert again.decode([*tokens, ids["eos_ids"][-1], *tokens]) == text


def test_loaded_trained_sampled_evaluated_and_exported(
  tmp_path, cache, model, ids
):
  random = tiny_models.as_leaves(tiny_models.make_arrays(model.config))
  checkpoint = dataclasses.replace(
    tiny_models.make(), config=model.config, leaves=random
  )
  (tmp_path / "hf").mkdir()
  hf_folder.write(tmp_path / "hf", checkpoint, vocabulary=None)
  opened = source.open_checkpoint(
    tmp_path / "hf", vocabulary_size=model.vocabulary_size, dropout_rate=0.0
  )
  assert opened.config == model.config
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  params = source.load_params(opened, model, mesh)

  lengths = cache.info["lengths"]
  loader = Loader(cache, batch_size=8, lengths=lengths, seed=0)
  run = tiny.make_run(
    tmp_path / "run",
    {"train": cache},
    roles={"student": Model(model, params), "teacher": Model(model, params)},
    loader=loader,
    train_steps=2,
  )
  params = loop.train(run).params
  evaluation = tiny.make_evaluation(
    cache, lengths=lengths, decoding=BeamSearch(3), bootstrap=0
  )
  roles = {name: Model(model, params) for name in ("student", "teacher")}
  values = evaluate(evaluation, roles, seed=0, step=2)
  assert np.isfinite(list(values.values())).all()

  plan = Completions(
    model=model, parameters={}, prompts=cache, lengths=lengths, num_samples=3
  )
  write_completions(tmp_path / "completions", plan, lambda: params)
  completions = TokenCache(tmp_path / "completions")
  never = {ids["pad_id"], ids["start_id"]} - set(ids["eos_ids"])
  ended = 0
  for row in completions.read(range(len(completions))):
    ends = np.isin(row.targets, ids["eos_ids"])
    assert not ends[:-1].any()
    assert not np.isin(row.targets, list(never)).any()
    assert row.targets.max() < model.vocabulary_size
    ended += ends[-1]
  assert ended > 0

  options = {"vocabulary_size": model.vocabulary_size}
  saved, back = tmp_path / "saved", tmp_path / "back"
  tiny_models.convert(
    tmp_path / "hf", saved, to="gkd", tokenizer="none", given=options
  )
  tiny_models.convert(saved, back, to="hf", tokenizer="none")
  written = json.loads((back / "config.json").read_text())
  eos_ids = list(ids["eos_ids"])
  assert written["pad_token_id"] == ids["pad_id"]
  assert written["decoder_start_token_id"] == ids["start_id"]
  assert written["eos_token_id"] == (eos_ids if eos_ids[1:] else eos_ids[0])


@pytest.mark.parametrize("ids", ["several"], indirect=True)
def test_a_decoder_learns_from_a_t5_on_its_own_text_and_goes_on_exactly(
  tmp_path, cache, vocabulary, model, ids
):
  config = dataclasses.replace(
    tiny.DECODER,
    vocab_size=vocabulary.size + 2,
    vocabulary_size=vocabulary.size,
    num_layers=1,
    **ids,
  )
  lm = registry.build(config)
  lengths = cache.info["lengths"]
  loader = Loader(cache, batch_size=8, lengths=lengths, seed=0)
  roles = {
    "student": Model(lm, tiny.parameters(lm, 0)),
    "teacher": Model(model, tiny.parameters(model, 1)),
  }

  def train(name, steps):
    run = tiny.make_run(
      tmp_path / name,
      {"train": cache},
      roles=roles,
      loader=loader,
      rollout=Rollout(student_fraction=1.0),
      train_steps=steps,
    )
    return loop.train(run).params

  straight = train("straight", 4)
  train("stopped", 2)
  tiny.assert_identical(train("stopped", 4), straight)
  loaded = api.load(tmp_path / "straight")
  assert loaded.config == config
  tiny.assert_identical(loaded.params, straight)
  lines = tiny.lines(tmp_path / "straight")
  assert max(line.get("train/eos_rate", 0) for line in lines) > 0


def test_sizes_of_a_decoder_say_their_family(vocabulary, ids):
  names = ("emb_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim")
  sizes = {n: getattr(tiny.DECODER, n) for n in (*names, "mlp_dim")}
  sizes |= {"family": "decoder_only", "vocab_size": vocabulary.size}
  spec = model_spec.t5(sizes, dtype="bfloat16")
  config = model_spec.build("student", spec, None, vocabulary).config
  assert (config.eos_ids, config.dtype) == (ids["eos_ids"], "bfloat16")
  other = dataclasses.replace(config, rope_theta=500.0)
  saved = dataclasses.replace(
    tiny_models.make(), config=other, family="decoder_only"
  )
  with pytest.raises(UserError, match=r"rope_theta=10000.0, but .* with 500.0"):
    model_spec.build("student", spec, saved, vocabulary)
  with pytest.raises(UserError, match="no model family 'gpt'; expected one of"):
    model_spec.t5(sizes | {"family": "gpt"})


def test_filler_of_any_id_changes_nothing(cache, model):
  """Masks say what is real: whatever stands under a 0 of them."""
  lengths = cache.info["lengths"]
  batch = Loader(cache, batch_size=8, lengths=lengths, seed=0).batch(0)
  other = batch.replace(
    inputs=np.where(batch.input_mask, batch.inputs, 7),
    targets=np.where(batch.weights > 0, batch.targets, 7),
  )
  params = model.init(jax.random.key(0))
  logits = jax.jit(lambda b: model.head(params, model.hidden_of(params, b)))
  real = batch.weights > 0
  np.testing.assert_allclose(
    logits(other)[real], logits(batch)[real], atol=1e-5
  )


def test_a_size_by_name_gets_the_ids_of_the_vocabulary(model, vocabulary, ids):
  without = t5.encoder_decoder(
    dataclasses.replace(model.config, pad_id=0, eos_ids=(1,))
  )
  built = model_spec.build("student", without, None, vocabulary)
  assert built.config == model.config


def test_sizes_beside_a_checkpoint_get_its_ids_or_are_refused(vocabulary):
  ids = {"pad_id": 3, "eos_ids": (1, 4), "start_id": 5}
  saved = tiny_models.make()
  config = dataclasses.replace(saved.config, **ids)
  saved = dataclasses.replace(saved, format="hf", config=config)

  def build(**changes):
    sizes = dataclasses.asdict(tiny_models.make().config) | changes
    spec = model_spec.t5(sizes)
    return model_spec.build("student", spec, saved, vocabulary).config

  assert {name: getattr(build(), name) for name in ids} == ids
  assert {name: getattr(build(**ids), name) for name in ids} == ids
  with pytest.raises(
    UserError, match=r"pad_id=2, but .* trained with 3; leave"
  ):
    build(pad_id=2)
