"""The likelihood is that of NumPy; only an odd one is warned of."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.training import teacher_check
from gkd.types import Batch
from gkd.types import LanguageModel

IDS = 5
ROWS = 7  # two of them are padding of the table


def make_batch(weights):
  rng = np.random.default_rng(0)
  targets = rng.integers(1, IDS, size=(2, 3)).astype(np.int32)
  zeros = np.zeros(2, np.int32)
  return Batch(targets, targets > 0, targets, np.float32(weights), zeros, zeros)


def make_teacher(sign):
  """Logits are `sign` times 2 on the target, and high on a padded id."""

  def hidden(params, inputs, targets, **_):
    return sign * 2.0 * jax.nn.one_hot(targets, ROWS) * params

  def head(params, hidden):
    return hidden.at[..., ROWS - 1].set(9.0)

  return LanguageModel(
    config=None,
    vocabulary_size=IDS,
    start_id=0,
    init=None,
    hidden=hidden,
    head=head,
    prefill=None,
    decode=None,
    axes=None,
  )


def say(sign, weights, caplog):
  caplog.set_level(logging.INFO, "gkd")
  batch = make_batch(weights)
  teacher_check.log_teacher_nll(make_teacher(sign), jnp.ones(()), batch)
  return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_likelihood_is_over_real_ids_and_counted_targets(caplog):
  ((level, text),) = say(1, [[1, 1, 0], [1, 0, 0]], caplog)
  nll = np.log(np.exp(2.0) + IDS - 1) - 2.0
  assert level == "INFO"
  assert f"{nll:.2f} nats a token" in text
  assert f"a uniform guess has {np.log(IDS):.2f}" in text


def test_a_teacher_worse_than_a_uniform_guess_is_warned_of(caplog):
  said = say(-1, np.ones((2, 3)), caplog)
  nll = np.log(np.exp(-2.0) + IDS - 1) + 2.0
  assert nll > np.log(IDS)
  assert [level for level, _ in said] == ["INFO", "WARNING"]
  assert "no better than a uniform guess" in said[1][1]
  assert f"{nll:.2f} against {np.log(IDS):.2f}" in said[1][1]


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_teacher_without_numbers_is_warned_of(caplog):
  said = say(float("nan"), np.ones((2, 3)), caplog)
  assert said[1][0] == "WARNING"


def test_prompts_alone_say_nothing(caplog):
  assert say(1, np.zeros((2, 3)), caplog) == []
