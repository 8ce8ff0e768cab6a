"""Beam search on a model whose probabilities are known exactly."""

import functools
import itertools

import jax
import numpy as np
import pytest

from gkd import keys
from gkd import partitioning
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import UserError
from tests.sampling import toy_model as toy
from tests.sampling.toy_model import EOS_ID
from tests.sampling.toy_model import ToyConfig
from tests.sampling.toy_model import history_model
from tests.sampling.toy_model import make_inputs
from tests.sampling.toy_model import next_state
from tests.sampling.toy_model import toy_model
from tests.tiny import log_softmax

T = 6
ROWS = 3  # there are no more kinds of prompts
HISTORY = history_model()
MODEL = toy_model()  # 12 columns, of which 1 to 9 may be chosen
PARAMS = [jax.device_get(MODEL.init(jax.random.key(seed))) for seed in range(4)]

OPTIONS = {"num_beams": 4, "alpha": 0.6, "max_length": T}


def search(params, inputs=None, rows=None, model=MODEL, **options):
  """A search for all kinds of prompts."""
  inputs = make_inputs(ROWS) if inputs is None else inputs
  rows = np.arange(len(inputs)) if rows is None else rows
  return toy.search(model, params, inputs, rows, **OPTIONS | options)


def _log_probs(params, prompt):
  """[V, V] float64: log-probability of the second id after the first."""
  logits = np.asarray(params["table"], np.float64)[prompt[0] % 3].copy()
  logits[:, 0] = logits[:, 10:] = -np.inf
  return log_softmax(logits)


def _score(log_prob, length, alpha):
  return log_prob / ((5 + length) / 6) ** alpha


def _after_last(log_probs):
  """Log-probabilities after some ids, by the table of `toy_model`."""
  return lambda ids: log_probs[ids[-1] if ids else 0]


def _after_all(log_probs):
  """Log-probabilities after some ids, by the table of `history_model`."""
  return lambda ids: log_probs[functools.reduce(next_state, ids, 0)]


def _reference(after, num_beams, alpha, max_length, eos_ids=(EOS_ID,)):
  """[(score, ids)] by lists and sorting, one prompt at a time; best first.

  Independent of the code it checks: it keeps what lives and what ended in plain
  lists and never stops early.
  """
  live, ended = [(0.0, [])], []
  for _ in range(max_length):
    longer = [
      (score + step, [*ids, token])
      for score, ids in live
      for token, step in enumerate(after(ids))
      if np.isfinite(step)
    ]
    longer.sort(key=lambda pair: -pair[0])
    longer = longer[: (1 + len(eos_ids)) * num_beams]
    ended += [
      (_score(score, len(ids), alpha), ids)
      for score, ids in longer
      if ids[-1] in eos_ids
    ]
    ended = sorted(ended, key=lambda pair: -pair[0])[:num_beams]
    live = [pair for pair in longer if pair[1][-1] not in eos_ids]
    live = live[:num_beams]
  return ended or live


def _check(beams, row, expected, eos_ids=(EOS_ID,)):
  """Equality of one row with [(score, ids)]."""
  for k, (score, ids) in enumerate(expected):
    length = int(beams.lengths[row, k])
    assert beams.tokens[row, k].tolist() == ids + [0] * (T - len(ids))
    assert length == len(ids)
    assert beams.weights[row, k].tolist() == [1.0] * length + [0.0] * (
      T - length
    )
    assert beams.truncated[row, k] == (ids[-1] not in eos_ids)
    np.testing.assert_allclose(beams.scores[row, k], score, rtol=1e-5)
  for k in range(len(expected), beams.tokens.shape[1]):
    assert not beams.tokens[row, k].any()
    assert not beams.weights[row, k].any()
    assert not beams.truncated[row, k]
    assert (beams.lengths[row, k], beams.scores[row, k]) == (0, -np.inf)


@pytest.mark.parametrize("num_beams", [1, 2, 4, 9])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
def test_beams_equal_a_search_by_lists(num_beams, alpha):
  inputs = make_inputs(ROWS)
  for seed in range(3):
    params = jax.device_get(HISTORY.init(jax.random.key(seed)))
    got = search(params, model=HISTORY, num_beams=num_beams, alpha=alpha)
    for row in range(3):
      after = _after_all(_log_probs(params, inputs[row]))
      _check(got, row, _reference(after, num_beams, alpha, T))


def test_a_wide_search_finds_the_best_of_all_sequences():
  """Two tokens and EOS: 9 beams are all there are."""
  inputs = make_inputs(1)
  log_probs = _log_probs(PARAMS[0], inputs[0])
  found = []
  for length in (1, 2, 3):
    for ids in itertools.product(range(2, 10), repeat=length - 1):
      ids = [*ids, EOS_ID]
      steps = zip([0, *ids], ids, strict=False)
      found.append((_score(sum(log_probs[s] for s in steps), length, 0.6), ids))
  best = max(found)
  got = search(PARAMS[0], inputs, num_beams=9, max_length=3)
  assert got.tokens[0, 0].tolist() == best[1] + [0] * (3 - len(best[1]))
  np.testing.assert_allclose(got.scores[0, 0], best[0], rtol=1e-5)


def test_one_beam_without_penalty_is_greedy_where_greedy_ends():
  """One beam may go on where greedy decoding ends: see T5X's second candidate.

  So EOS is made certain where it is likely at all.
  """
  table = PARAMS[0]["table"].copy()
  likely = table[..., EOS_ID] >= table[..., 2:10].max(-1)
  table[..., EOS_ID] = np.where(likely, 1e3, -1e3)
  table[:, 5, EOS_ID] = 1e3  # so that rows end at all
  params = {"table": table}
  inputs = make_inputs(ROWS)
  got = search(params, num_beams=1, alpha=0.0)
  greedy = toy.sample(
    MODEL,
    params,
    inputs,
    np.arange(ROWS),
    keys.stream(0, 0, keys.Role.EVALUATION),
    SamplingParams(0.0),
    max_length=T,
  )
  assert not np.asarray(greedy.truncated).all()
  for name in ("tokens", "lengths", "weights", "truncated"):
    np.testing.assert_array_equal(
      getattr(got.best, name), getattr(greedy, name)
    )
  np.testing.assert_allclose(
    got.best.scores, greedy.log_probs.sum(-1), rtol=1e-5, atol=1e-5
  )


def _equal(found, expected):
  """The same beams; scores but for rounding, of which XLA has several kinds."""
  np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)
  found, expected = (each.replace(scores=None) for each in (found, expected))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def _row(beams, row):
  return jax.tree.map(lambda array: array[row], beams)


def test_a_row_depends_neither_on_its_neighbours_nor_on_the_batch():
  inputs = make_inputs(9)
  whole = search(PARAMS[1], inputs)
  turned = search(PARAMS[1], inputs[::-1].copy(), np.arange(9)[::-1].copy())
  for row in range(3):
    alone = search(PARAMS[1], inputs[row : row + 1], [row])
    _equal(_row(alone, 0), _row(whole, row))
    _equal(_row(turned, 8 - row), _row(whole, row))


def test_four_devices_search_as_one():
  inputs, rows = make_inputs(8), np.arange(8, dtype=np.int32)
  alone = search(PARAMS[1], inputs, rows)
  mesh = partitioning.make_mesh()
  assert mesh.shape["data"] == 4
  sharding = partitioning.batch_sharding(mesh)
  placed = jax.device_put((inputs, rows), sharding)
  _equal(search(PARAMS[1], *placed), alone)


def test_what_lives_may_still_come_first_by_its_length():
  """A search that stopped by the penalty of now would miss it."""
  table = np.full((3, 12, 12), -50.0, np.float32)
  table[:, 0, [EOS_ID, 5]] = 0.0, -0.2
  table[:, 5, 6] = table[:, 6, EOS_ID] = 0.0
  got = search({"table": table}, make_inputs(1), num_beams=1, alpha=2.0)
  assert got.tokens[0, 0].tolist() == [5, 6, EOS_ID, 0, 0, 0]
  log_prob = -0.2 - np.log(1 + np.exp(-0.2))
  np.testing.assert_allclose(
    got.scores[0, 0], _score(log_prob, 3, 2.0), rtol=1e-5
  )


def test_the_loop_ends_with_the_last_row_that_can_change():
  """Fillers have no beams, and rows that are done wait for nobody."""
  steps = []
  model = toy_model(on_decode=lambda: steps.append(1))
  # Prompt 2 % 3 never ends, the others end at once: their two best are
  # [EOS] and, with the second candidate, [x, EOS].
  table = np.zeros((3, 12, 12), np.float32)
  table[:, :, EOS_ID] = 50.0
  table[2, :, EOS_ID] = -50.0
  params = {"table": table}
  inputs = make_inputs(ROWS)

  def calls(rows):
    steps.clear()
    beams = search(
      params, rows=np.asarray(rows), model=model, num_beams=2, alpha=0.0
    )
    jax.block_until_ready(beams)
    jax.effects_barrier()
    return len(steps), beams

  assert inputs[0, 0] % 3 == 2
  long, whole = calls([0, 1, 2])
  assert long == T - 1
  short, beams = calls([-1, 1, 2])
  assert short == 1
  # The filler got nothing, and the others what they get beside it.
  assert not np.asarray(beams.tokens[0]).any()
  assert not np.asarray(beams.weights[0]).any()
  assert np.isneginf(beams.scores[0]).all()
  assert not np.asarray(beams.truncated[0]).any()
  for row in (1, 2):
    _equal(_row(beams, row), _row(whole, row))
  none, _ = calls([-1, -1, -1])
  assert none == 0


def test_pad_and_padded_ids_are_never_chosen_however_likely():
  table = PARAMS[0]["table"].copy()
  table[..., 0] = table[..., 10:] = 30.0
  got = search({"table": table})
  tokens = np.asarray(got.tokens)[np.asarray(got.weights) > 0]
  assert tokens.size
  assert ((tokens > 0) & (tokens < 10)).all()
  # And the others' probabilities are not those of a vocabulary that has them.
  after = _after_last(_log_probs(PARAMS[0], make_inputs(1)[0]))
  _check(got, 0, _reference(after, 4, 0.6, T))


def test_without_an_end_live_beams_come_with_their_log_probability():
  table = PARAMS[2]["table"].copy()
  table[..., EOS_ID] = -np.inf
  params = {"table": table}
  got = search(params)
  assert np.asarray(got.truncated).all()
  assert (np.asarray(got.lengths) == T).all()
  for row in range(3):
    log_probs = _log_probs(params, make_inputs(ROWS)[row])
    for k in range(4):
      steps = itertools.pairwise([0, *got.tokens[row, k].tolist()])
      expected = sum(log_probs[step] for step in steps)
      # Not divided by the penalty, as in T5X.
      np.testing.assert_allclose(got.scores[row, k], expected, rtol=1e-5)
  scores = np.asarray(got.scores)
  assert (np.diff(scores, axis=-1) <= 0).all()


def test_one_token_is_eos_or_the_most_likely_ones():
  table = PARAMS[0]["table"].copy()
  table[:2, 0, EOS_ID] = 9.0
  table[2, 0, EOS_ID] = -50.0
  params = {"table": table}
  inputs = make_inputs(ROWS)
  got = search(params, max_length=1)
  assert got.tokens.shape == (3, 4, 1)
  best = np.argsort(-_log_probs(params, inputs[0])[0])[:4]
  assert got.tokens[0, :, 0].tolist() == best.tolist()
  assert np.asarray(got.truncated[0]).all()
  for row in (1, 2):
    assert got.tokens[row, :, 0].tolist() == [EOS_ID, 0, 0, 0]
    assert got.lengths[row].tolist() == [1, 0, 0, 0]
    expected = _log_probs(params, inputs[row])[0, EOS_ID]
    np.testing.assert_allclose(got.scores[row, 0], expected, atol=1e-6)


@pytest.mark.parametrize("eos_ids", [(7,), (1, 4), (2, 5, 8)])
def test_several_ids_may_end_a_sequence(eos_ids):
  inputs = make_inputs(ROWS)
  params = jax.device_get(HISTORY.init(jax.random.key(1)))
  got = search(params, model=HISTORY, num_beams=3, eos_ids=eos_ids)
  for row in range(ROWS):
    after = _after_all(_log_probs(params, inputs[row]))
    expected = _reference(after, 3, 0.6, T, eos_ids)
    _check(got, row, expected, eos_ids)


def test_alpha_is_traced_and_favours_long_answers():
  search(PARAMS[0], make_inputs(1))
  programs = toy.search.cache_size()
  # EOS at once has a half; 5, 6, EOS have a little less together.
  table = np.full((3, 12, 12), -50.0, np.float32)
  table[:, 0, [EOS_ID, 5]] = 0.0
  table[:, 5, [6, 7]] = 0.0, -3.0
  table[:, 6, EOS_ID] = 0.0
  lengths = [
    int(search({"table": table}, make_inputs(1), alpha=alpha).best.lengths[0])
    for alpha in (0.0, 1.0)
  ]
  assert toy.search.cache_size() == programs
  assert lengths == [1, 3]


def test_logits_that_are_not_finite_are_told_by_the_scores():
  table = PARAMS[0]["table"].copy()
  table[2] = np.nan
  got = search({"table": table})
  assert np.isnan(got.scores[0]).all()
  assert np.isfinite(got.scores[1:, 0]).all()
  fillers = search({"table": table}, rows=np.array([-1, 0, 1]))
  assert np.isneginf(fillers.scores[0]).all()


def test_more_beams_than_ids_are_refused():
  message = "beam size is 10, but the model chooses among 9 ids; give at most 9"
  with pytest.raises(UserError, match=message):
    search(PARAMS[0], make_inputs(1), num_beams=10)
  got = search(PARAMS[0], make_inputs(1), num_beams=10, forbidden_ids=())
  assert got.tokens.shape == (1, 10, T)


def test_narrow_vocabularies_leave_places_empty():
  """Three ids, EOS among them, and three beams: 2K is more than there are."""
  model = history_model(ToyConfig(width=4, vocabulary_size=4))
  params = jax.device_get(model.init(jax.random.key(0)))
  got = search(params, model=model, num_beams=3)
  for row in range(3):
    logits = np.asarray(params["table"], np.float64)[
      make_inputs(ROWS)[row, 0] % 3
    ]
    log_probs = log_softmax(np.where(np.arange(4) == 0, -np.inf, logits))
    _check(got, row, _reference(_after_all(log_probs), 3, 0.6, T))


def test_no_gradient_flows_through_a_search():
  def loss(table):
    beams = search(
      {"table": table}, make_inputs(1), num_beams=1, alpha=0.0, max_length=1
    )
    return beams.scores.sum()

  assert not np.asarray(jax.grad(loss)(PARAMS[0]["table"])).any()


def test_ways_in_words():
  assert BeamSearch().describe() == "by a search with 4 beams, alpha 0.6"
  assert BeamSearch(1, 0.0).describe() == "by a search with 1 beam, alpha 0"
  assert (BeamSearch().label, BeamSearch().is_random) == ("beam4", False)
