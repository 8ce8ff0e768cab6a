"""Entailment is the probability of the label "1" of the model's own logits."""

import jax
import numpy as np
import pytest

from gkd import partitioning
from gkd.config.reward_models import EntailmentModel
from gkd.rewards import reward as rewards
from gkd.rewards.entailment import Entailment
from gkd.rewards.reward import RewardModel
from gkd.text.vocabulary import CharacterVocabulary
from gkd.types import Model
from gkd.types import UserError
from tests import tiny

# Letters of "premise: " and "hypothesis: " beside the labels.
VOCABULARY = CharacterVocabulary("01 :aehimoprstuy")
LENGTH = 32


def make(**changes):
  model = Model(tiny.TEACHER, tiny.parameters(tiny.TEACHER, 1))
  fields = {
    "model": model,
    "vocabulary": VOCABULARY,
    "place": jax.device_put,
    "content_sha256": "",
    "batch_size": 8,
    "length": LENGTH,
    "prompt_prefix": "sum: ",
  }
  return Entailment(**fields | changes)


def test_a_reward_is_the_share_of_the_label_1_and_fills_batches():
  assert VOCABULARY.size <= tiny.TEACHER.config.vocab_size
  reward = make()
  prompts = ["sum: a hat is red", *["it is to see"] * 8]
  completions = ["a rat", *["it is"] * 7, ""]
  found = rewards.compute(reward, prompts, completions, [None] * 9)
  one, zero = (VOCABULARY.encode(label)[0] for label in "10")
  for place in (0, 8):
    ids = reward.tokens(prompts[place], completions[place])[None]
    params = reward.model.params
    logits = tiny.TEACHER.logits(params, ids, np.full((1, 1), one))[0, 0]
    logits = np.float64(logits)
    expected = 1 / (1 + np.exp(logits[zero] - logits[one]))
    np.testing.assert_allclose(found[place], expected, rtol=1e-5)
  np.testing.assert_allclose(found[1:8], found[1], rtol=1e-5)


def test_a_long_premise_is_cut_and_its_prefix_taken_off():
  reward = make()
  ids = reward.tokens("sum: " + "a" * 99, "it is")
  assert len(ids) == LENGTH
  assert ids[-1] == VOCABULARY.eos_ids[0]
  text = VOCABULARY.decode(ids.tolist())
  assert text == "premise: aaaa hypothesis: it is"


def test_what_is_no_classifier_is_refused():
  with pytest.raises(UserError, match="the labels '1' and '0' with the same"):
    make(vocabulary=CharacterVocabulary("ab"))
  with pytest.raises(UserError, match="REWARD_CHECKPOINT_PATH is empty"):
    EntailmentModel(checkpoint="")
  with pytest.raises(UserError, match="REWARD_BATCH_SIZE is 0"):
    EntailmentModel(checkpoint="nli", batch_size=0)
  assert isinstance(EntailmentModel(checkpoint="nli"), RewardModel)


def test_a_checkpoint_with_a_tokenizer_becomes_a_reward(undisturbed):
  mesh = partitioning.make_mesh(devices=jax.devices()[:1])
  found = [
    rewards.opened(
      EntailmentModel(
        checkpoint=str(undisturbed[1]), dtype=dtype, batch_size=8, length=LENGTH
      ),
      mesh,
    )(["1+2=", "30+4="], ["3", "34"], [None, None])
    for dtype in ("float32", "bfloat16")
  ]
  assert np.all((found[0] > 0) & (found[0] < 1))
  np.testing.assert_allclose(*found, atol=0.02)
