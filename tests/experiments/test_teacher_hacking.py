"""The oracle of the lab: its exact distribution, and what is written of it."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from gkd import api
from gkd import partitioning
from gkd.data.cache import Row
from gkd.evaluation.evaluate import evaluate
from gkd.evaluation.evaluation import Evaluation
from gkd.experiments.teacher_hacking import oracle
from gkd.models import registry
from gkd.models.markov import MarkovConfig
from gkd.sampling.params import SamplingParams
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.evaluation import table_model

CHARACTERS, T = "ab", 3
CONFIG = MarkovConfig(vocab_size=5, order=2, sharpness=1.0, mean_length=2.5)
LM = registry.build(CONFIG)
REAL = (1, 3, 4)  # the first ends a sequence


def log_probs(params, prompt) -> dict[tuple[int, ...], float]:
  """Log p of every sequence of at most T tokens, by the formula, in float64."""
  table = np.asarray(params["table"], np.float64)
  rows = np.asarray(params["prompt"], np.float64)[prompt]
  log_p = tiny.log_softmax(table + rows.sum(axis=0) / np.sqrt(len(prompt)))
  found = {}
  for full in itertools.product(REAL, repeat=T):
    end = full.index(1) + 1 if 1 in full else T
    sequence, before, total = full[:end], [0, 0], 0.0
    for token in sequence:
      total += log_p[before[0] * 5 + before[1], token]
      before = [before[1], token]
    found[sequence] = total
  return found


def exact_forward_kl(p_params, q_params, prompts) -> float:
  """The mean over the prompts."""
  kls = []
  for prompt in prompts:
    log_p, log_q = log_probs(p_params, prompt), log_probs(q_params, prompt)
    assert sum(np.exp([*log_p.values()])) == pytest.approx(1)
    kls.append(sum(np.exp(log_p[y]) * (log_p[y] - log_q[y]) for y in log_p))
  return float(np.mean(kls))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  folder = tmp_path_factory.mktemp("lab") / "oracle"
  flags = f"--family=markov --characters={CHARACTERS} --order=2 --sharpness=1"
  flags += " --mean_length=2.5 --prompt_length=4"
  flags += " --train=5 --distillation=4 --validation=7"
  oracle.main([str(folder), *flags.split()])
  return folder


def test_the_oracle_opens_by_itself_with_its_vocabulary(made):
  model = api.load(made / "model")
  assert model.lm == partitioning.partitioned(LM, partitioning.make_mesh())
  assert model.vocabulary.encode(CHARACTERS) == [3, 4]
  tiny.assert_identical(
    model.params, LM.init(oracle.keys.stream(0, 0, oracle.keys.Role.INIT))
  )


def test_prompts_of_the_splits_are_different(made):
  texts = []
  for split, size in {"train": 5, "distillation": 4, "validation": 7}.items():
    lines = (made / "prompts" / f"{split}.jsonl").read_text().splitlines()
    assert len(lines) == size
    texts += [json.loads(line)["inputs"] for line in lines]
  # All that there are.
  assert len(set(texts)) == len(texts) == 2**4


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--train=0", "--train is 0; expected a number above 0"),
    ("--sharpness=nan", "--sharpness is nan; expected a number above 0"),
    ("--mean_length=1", "--mean_length is 1.0; expected a number above 1"),
    ("--order=9", "--order is 9; expected a number above 0 and below"),
    ("--seed=-1", "--seed is -1; expected a number above -1 and below"),
    ("--prompt_length=3", "is 3; expected one at which 11 --char"),
    ("--prompt_length=19", "is 19; expected one at which 11 --char"),
  ],
)
def test_what_makes_no_oracle_is_one_line(flag, message, tmp_path):
  with pytest.raises(UserError, match=message):
    oracle.main([str(tmp_path / "oracle"), flag])
  assert not any(tmp_path.iterdir())


def test_measured_distances_are_those_of_the_exact_distributions(made):
  """Between two chains, through prefill, decode and teacher forcing."""
  model = api.load(made / "model")
  other = Model(LM, LM.init(jax.random.key(7)))
  prompts = [[3, 4, 1], [4, 1], [3, 3, 4, 1], [4, 4, 1]]
  cache = table_model.Cache(has_targets=False)
  cache._rows = [
    Row(np.int32(prompt), np.int32([]), "", "") for prompt in 500 * prompts
  ]
  lengths = {"inputs": 5, "targets": T}
  evaluation = Evaluation(
    *("toy", "test", cache, lengths, SamplingParams(0.0), 1000), bootstrap=0
  )
  roles = {"student": other, "judge": model}
  values = evaluate(evaluation, roles, seed=0, step=0)
  exact = {
    "forward": exact_forward_kl(model.params, other.params, prompts),
    "reverse": exact_forward_kl(other.params, model.params, prompts),
  }
  for direction, expected in exact.items():
    name = f"eval/toy/{direction}_kl_to_judge"
    error = values[f"{name}_se"]
    assert 0 < error < 0.1 * expected
    assert abs(values[name] - expected) < 4 * error


def test_init_makes_sequences_of_about_the_mean_length():
  config = dataclasses.replace(CONFIG, vocab_size=14, mean_length=8.0)
  params = registry.build(config).init(jax.random.key(0))
  logits = np.asarray(params["table"] + params["prompt"].sum(0) / np.sqrt(14))
  p = np.exp(tiny.log_softmax(logits))
  assert 1 / p[:, 1].mean() == pytest.approx(8.0, rel=0.15)
  assert p[:, config.unused_ids].max() < 1e-8


def test_a_random_t5_has_the_sharpness_and_the_length_asked_for(tmp_path):
  flags = "--sharpness=3 --mean_length=20 --train=9 --validation=4"
  oracle.main([str(tmp_path / "oracle"), *flags.split()])
  model = api.load(tmp_path / "oracle" / "model")
  text = np.random.default_rng(0).integers(3, 14, (2, 300, 8), np.int32)
  logits = np.asarray(model.lm.logits(model.params, *text), np.float64)
  assert logits[..., 3:].std(axis=-1).mean() == pytest.approx(3, rel=0.1)
  p = np.exp(tiny.log_softmax(logits))
  assert p[..., [0, 2]].max() < 1e-6  # padding and the unknown token
  end = np.exp(np.log(p[..., 1]).mean())
  others = np.exp(np.log(p[..., 3:].sum(axis=-1)).mean())
  assert others / end == pytest.approx(19, rel=0.2)
