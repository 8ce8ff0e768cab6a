"""One generator for all strategies."""

import types

import jax
import numpy as np
import pytest

from gkd import keys
from gkd.sampling import generate
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import Model
from tests.sampling import toy_model as toy

MODEL = toy.toy_model()
PARAMS = MODEL.init(jax.random.key(3))
KEY = keys.stream(5, 7, keys.Role.EVALUATION)
INPUTS = np.array([[2, 1, 0], [3, 1, 0], [4, 1, 0]], np.int32)
ROWS = np.arange(3)


def run(strategy, **options):
  return generate.generate(
    Model(MODEL, PARAMS),
    toy.prompts(INPUTS, ROWS),
    KEY,
    strategy,
    max_length=6,
    vocabulary=toy.VOCABULARY,
    **options,
  )


def test_samples_are_those_of_the_sampler():
  decoding = SamplingParams(0.7, 5)
  expected = toy.sample(
    MODEL, PARAMS, INPUTS, ROWS, KEY, decoding, max_length=6
  )
  jax.tree.map(np.testing.assert_array_equal, run(decoding), expected)
  several = run(decoding, num_best=1)
  assert several.tokens.shape == (3, 1, 6)
  jax.tree.map(np.testing.assert_array_equal, several.best, expected)


def test_a_search_gives_its_best_or_several():
  expected = toy.search(
    MODEL, PARAMS, INPUTS, ROWS, num_beams=4, alpha=0.6, max_length=6
  )
  best, three = run(BeamSearch(4)), run(BeamSearch(4), num_best=3)
  np.testing.assert_array_equal(best.tokens, expected.tokens[:, 0])
  np.testing.assert_array_equal(three.tokens, expected.tokens[:, :3])
  assert best.is_finite


def test_one_and_one_point_zero_share_a_program():
  run(SamplingParams(1.0))
  run(BeamSearch(2, 1.0))
  before = generate._generate._cache_size()
  run(SamplingParams(1, 0, 1))
  run(BeamSearch(2, 1))
  assert generate._generate._cache_size() == before


@pytest.mark.parametrize(
  ("start_id", "eos_ids", "pad_id", "control_ids", "expected"),
  [
    (0, [1], 0, [0], (0,)),  # T5
    (0, [2], 1, [1], (0, 1)),  # MADLAD-400
    (2, [1], 0, [0, 2], (0, 2)),  # T5Gemma
    (2, [2], 1, [], (1,)),  # an end that starts, as in BART
    (5, [7, 8], 7, [], (5,)),  # padded with an end
    (1, [2], 2, [0, 1, 2, 3], (0, 1, 3)),  # SmolLM2, with more control tokens
    (9, [9], 8, [8, 9], (8,)),  # Qwen, whose id 0 is a word
  ],
)
def test_padding_start_and_control_are_forbidden_unless_they_end_a_text(
  start_id, eos_ids, pad_id, control_ids, expected
):
  vocabulary = types.SimpleNamespace(
    eos_ids=eos_ids, pad_id=pad_id, control_ids=control_ids
  )
  assert generate.forbidden_ids(start_id, vocabulary) == expected


def test_device_works_on_the_next_batch_while_one_is_read():
  started = []

  def dispatch():
    for number in range(4):
      started.append(number)
      yield number

  seen = [(n, len(started)) for n in generate.prefetch(dispatch())]
  assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
