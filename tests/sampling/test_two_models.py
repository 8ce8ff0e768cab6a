"""Two models that draw together: distributions that are known exactly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd.sampling.generate import generate
from gkd.sampling.params import SamplingParams
from gkd.sampling.two_models import Interleaved
from gkd.sampling.two_models import Mixture
from gkd.sampling.two_models import TwoModels
from gkd.sampling.two_models import together
from gkd.types import Batch
from gkd.types import Model
from gkd.types import UserError
from tests import tiny
from tests.sampling import toy_model as toy
from tests.sampling.test_sampler import assert_frequencies

T, REAL = 6, 10
# The teacher's table is padded wider; its functions are another model's.
WIDER = toy.toy_model(toy.ToyConfig(width=14))
STUDENT = Model(toy.toy_model(), toy.toy_model().init(jax.random.key(0)))
TEACHER = Model(WIDER, WIDER.init(jax.random.key(1)))
KEY = keys.stream(5, 7, keys.Role.STUDENT_SAMPLE)
PROPOSALS = [Interleaved(3), Mixture(0.4)]


def sample(proposal, rows, *, inputs=None, teacher=TEACHER, decoding=None):
  inputs = toy.make_inputs(len(rows)) if inputs is None else inputs
  return generate(
    together(STUDENT, teacher),
    toy.prompts(inputs, np.asarray(rows)),
    KEY,
    TwoModels(decoding or SamplingParams(), proposal),
    max_length=T,
    vocabulary=toy.VOCABULARY,
  )


def proposed(proposal, student, teacher, temperature=1.0):
  """Probabilities [..., V] of the next token by the equations, in float64."""
  logits = np.array(student, np.float64), np.array(teacher, np.float64)
  for of_one in logits:  # the padding
    of_one[..., 0] = -np.inf
  q, p = (np.exp(tiny.log_softmax(x / temperature)) for x in logits)
  if isinstance(proposal, Mixture):
    return proposal.teacher_share * p + (1 - proposal.teacher_share) * q
  taken = np.argsort(np.argsort(-p)) < proposal.top_k
  return q * taken + p * (q * ~taken).sum(axis=-1, keepdims=True)


def after(proposal, row, previous, temperature=1.0):
  """Of the toy models, by the kind of the prompt and the token before."""
  kind = toy.make_inputs(row + 1)[row, 0] % 3
  tables = (
    m.params["table"][kind, previous, :REAL] for m in (STUDENT, TEACHER)
  )
  return proposed(proposal, *tables, temperature)


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_tokens_follow_the_distribution_of_the_equation(proposal):
  """First tokens, and second tokens given the first."""
  inputs = np.tile(toy.make_inputs(1), (20_000, 1))
  parts = np.arange(20_000).reshape(10, -1)
  drawn = [sample(proposal, p, inputs=inputs[: len(p)]) for p in parts]
  tokens = np.concatenate([of_part.tokens for of_part in drawn])
  assert_frequencies(tokens[:, 0], after(proposal, 0, 0))
  common = np.argsort(np.bincount(tokens[:, 0]))[::-1]
  common = common[common != toy.EOS_ID][0]
  second = tokens[tokens[:, 0] == common, 1]
  assert_frequencies(second, after(proposal, 0, common))
  if isinstance(proposal, Interleaved):
    redrawn = np.concatenate([of_part.redrawn for of_part in drawn])[:, 0]
    student = np.exp(tiny.log_softmax(STUDENT.params["table"][2, 0, 1:REAL]))
    teacher = np.asarray(TEACHER.params["table"][2, 0, 1:REAL])
    rate = student[np.argsort(-teacher)[3:]].sum()
    assert abs(redrawn.mean() - rate) < 5 * (rate * (1 - rate) / 2e4) ** 0.5


@pytest.mark.parametrize("proposal", [Interleaved(5), Mixture(0.2)])
def test_cached_log_probs_are_those_of_the_whole_text_scored_at_once(proposal):
  """Of two T5 of different sizes: each has a cache of its own."""
  inputs = np.random.default_rng(0).integers(3, 9, (4, 5))
  other = np.flip(inputs, axis=1)[:, :4]  # what the teacher reads
  batch = Batch(
    *(inputs, inputs > 0, None, None, np.arange(4), None),
    teacher_inputs=other,
    teacher_input_mask=other > 0,
  )
  privileged = dataclasses.replace(tiny.TEACHER, privileged=True)
  models = tiny.STUDENT, privileged
  params = [tiny.parameters(m, seed) for seed, m in enumerate(models)]
  samples = generate(
    together(*map(Model, models, params)),
    batch,
    KEY,
    TwoModels(SamplingParams(0.7), proposal),
    max_length=T,
    vocabulary=toy.VOCABULARY,
  )
  logits = [
    jax.jit(model.logits)(own, read, samples.tokens)
    for model, own, read in zip(models, params, (inputs, other), strict=True)
  ]
  real = tiny.VOCABULARY.size
  expected = proposed(proposal, *(x[..., :real] for x in logits), 0.7)
  chosen = np.take_along_axis(
    expected, np.asarray(samples.tokens)[..., None], 2
  )
  counted = np.asarray(samples.weights) > 0
  assert counted.sum() > 10
  np.testing.assert_allclose(
    np.exp(samples.log_probs)[counted], chosen[..., 0][counted], rtol=1e-4
  )


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_a_row_gets_the_same_sample_in_any_batch(proposal):
  rows = np.array([5, 3, -1, 9, 4, 8])
  inputs = toy.make_inputs(len(rows))
  whole = sample(proposal, rows, inputs=inputs)
  order = np.array([4, 0, 3])
  some = sample(proposal, rows[order], inputs=inputs[order])
  expected = jax.tree.map(lambda array: array[order], whole)
  jax.tree.map(np.testing.assert_array_equal, some, expected)
  assert whole.lengths[2] == 0
  assert not np.asarray(whole.weights)[2].any()


def test_a_teacher_that_takes_all_leaves_the_students_own_samples():
  rows = np.arange(64)
  own = generate(
    STUDENT,
    toy.prompts(toy.make_inputs(64), rows),
    KEY,
    SamplingParams(),
    max_length=T,
    vocabulary=toy.VOCABULARY,
  )
  got = sample(Interleaved(REAL), rows)
  np.testing.assert_array_equal(got.tokens, own.tokens)
  np.testing.assert_allclose(got.log_probs, own.log_probs, atol=1e-5)
  assert not np.asarray(got.redrawn).any()


def test_a_redrawn_token_is_drawn_apart_from_the_proposal():
  """Equal models: with one stream, the token that was refused would return."""
  rows = np.arange(512)
  inputs = np.tile(toy.make_inputs(1), (512, 1))
  got = sample(Interleaved(1), rows, inputs=inputs, teacher=STUDENT)
  first = np.asarray(got.tokens)[np.asarray(got.redrawn)[:, 0], 0]
  table = STUDENT.params["table"][2, 0, 1:REAL]
  assert (
    np.mean(first == 1 + table.argmax()) > 0.5 * jax.nn.softmax(table).max()
  )


@pytest.mark.parametrize("proposal", PROPOSALS)
def test_greedy_rows_are_of_the_likeliest_tokens(proposal):
  got = sample(proposal, np.arange(3), decoding=SamplingParams(0.0))
  for row in range(3):
    expected = after(proposal, row, 0)
    if isinstance(proposal, Interleaved):
      student, teacher = (
        np.asarray(model.params["table"][(2 + row) % 3, 0, 1:REAL])
        for model in (STUDENT, TEACHER)
      )
      is_taken = student.argmax() in np.argsort(-teacher)[:3]
      expected = np.append(-1, student if is_taken else teacher)
    assert got.tokens[row, 0] == expected.argmax()


@pytest.mark.parametrize("proposal", PROPOSALS)
@pytest.mark.parametrize("broken", ["student", "teacher"])
def test_logits_of_either_model_that_are_not_finite_show(proposal, broken):
  models = {"student": STUDENT, "teacher": TEACHER}
  own = models[broken]
  table = own.params["table"].at[0].set(jnp.nan)
  models[broken] = Model(own.lm, {"table": table})
  got = generate(
    together(**models),
    toy.prompts(toy.make_inputs(6), np.arange(6)),
    KEY,
    TwoModels(SamplingParams(), proposal),
    max_length=T,
    vocabulary=toy.VOCABULARY,
  )
  finite = np.isfinite(got.log_probs).all(axis=1)
  np.testing.assert_array_equal(finite, np.arange(6) % 3 != 1)
  assert not got.is_finite


@pytest.mark.parametrize(
  ("check", "message"),
  [
    (Interleaved(0).validate, "TEACHER_TOP_K is 0; expected a whole number"),
    (Interleaved(2.5).validate, r"TEACHER_TOP_K is 2\.5; expected a whole"),
    (Mixture(1).validate, "TEACHER_SHARE is 1; expected a number between 0"),
    (
      functools.partial(Interleaved(9).check_num_ids, 9),
      "TEACHER_TOP_K is 9, but the models choose among 9 ids",
    ),
  ],
)
def test_numbers_out_of_range_are_named(check, message):
  with pytest.raises(UserError, match=message):
    check()


def test_shapes_of_a_pair_are_those_of_both_models():
  models = {
    role: Model(lm, tiny.parameters(lm, 0))
    for role, lm in (("student", tiny.STUDENT), ("teacher", tiny.TEACHER))
  }
  pair = together(**models)
  assert tiny.STUDENT.shapes is not None
  expected = jax.eval_shape(
    lambda: (models["student"].params, models["teacher"].params)
  )
  assert pair.lm.abstract_params == expected
