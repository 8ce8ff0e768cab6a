"""Ways of decoding that were asked for: which, and what is refused."""

import pytest

from gkd.config import decoding
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import UserError


def test_an_evaluation_for_each_temperature_and_for_the_search():
  assert decoding.evaluated((0.0, 0.7), 4, 0.6, 2) == [
    SamplingParams(temperature=0.0),
    SamplingParams(temperature=0.7),
    BeamSearch(4, 0.6),
  ]
  assert decoding.evaluated((0.0,), 0, 0.6, 1) == [
    SamplingParams(temperature=0.0)
  ]
  assert decoding.evaluated((), 2, 0.0, 1) == [BeamSearch(2, 0.0)]


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (((), 0, 0.6, 1), "EVAL_TEMPERATURES is empty and EVAL_BEAM_SIZE 0"),
    (((-1.0,), 0, 0.6, 1), "decoding temperature is -1.0"),
    (((0.5, 0.5), 0, 0.6, 1), "give each temperature once"),
    (((0.0,), 0, 0.6, 2), "EVAL_SAMPLES is 2 but greedy answers"),
    (((), 4, 0.6, 2), "EVAL_SAMPLES is 2 but the answers are all the same"),
    (((0.0,), -1, 0.6, 1), "beam size is -1; expected 1 or more"),
    (((0.0,), 2.5, 0.6, 1), "beam size is 2.5; expected an integer"),
    (((0.0,), True, 0.6, 1), "beam size is True; expected an integer"),
    (((0.0,), 4, -0.5, 1), r"beam alpha is -0.5; expected 0 \(no length"),
    (((0.0,), 4, float("inf"), 1), "beam alpha is inf; expected 0"),
    (((0.0,), 4, "x", 1), "beam alpha is 'x'; expected a number"),
  ],
)
def test_what_cannot_be_evaluated_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    decoding.evaluated(*given)


def test_completions_are_drawn_unless_there_is_a_beam_size():
  drawn = SamplingParams(temperature=0.5)
  assert decoding.sampled(drawn, 0, 0.6, 3) is drawn
  assert decoding.sampled(drawn, 4, 0.0, 3) == BeamSearch(4, 0.0)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    (
      (SamplingParams(0.0), 0, 0.6, 2),
      "NUM_SAMPLES is 2 but greedy completions",
    ),
    (
      (SamplingParams(), 2, 0.6, 3),
      "NUM_SAMPLES is 3 but BEAM_SIZE 2 finds at most 2 completions",
    ),
    ((SamplingParams(), -1, 0.6, 1), "beam size is -1; expected 1 or more"),
    ((SamplingParams(top_p=0.0), 0, 0.6, 1), "decoding top_p is 0.0"),
  ],
)
def test_what_cannot_be_sampled_is_refused(given, message):
  with pytest.raises(UserError, match=message):
    decoding.sampled(*given)


@pytest.mark.parametrize(
  ("way", "idle"),
  [
    (
      BeamSearch(),
      ["SAMPLING_TEMPERATURE", "SAMPLING_TOP_K", "SAMPLING_TOP_P"],
    ),
    (SamplingParams(0.0), ["BEAM_ALPHA", "SAMPLING_TOP_K", "SAMPLING_TOP_P"]),
    (SamplingParams(0.7), ["BEAM_ALPHA"]),
  ],
)
def test_what_is_of_another_way_is_idle(way, idle, monkeypatch):
  refused = []
  monkeypatch.setattr(
    decoding.configuration,
    "refuse_idle_flags",
    lambda names, why: refused.extend(names),
  )
  decoding.refuse_idle_flags(way)
  assert refused == idle
