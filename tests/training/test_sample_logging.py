"""The teacher's likelihood is that of NumPy, and fits where a step does."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd.losses.likelihood import score_batch
from gkd.training import sample_logging
from gkd.types import Batch
from gkd.types import Model
from gkd.types import Source
from tests.sampling.toy_model import ToyConfig
from tests.sampling.toy_model import toy_model

B, T = 3, 7
CONFIG = ToyConfig(num_prompts=3, width=12, vocabulary_size=10)
MODEL = toy_model(CONFIG)


@dataclasses.dataclass(frozen=True)
class Digits:
  def decode(self, ids):
    return " ".join(str(i) for i in ids if i)

  decode_prompt = decode


def make_batch():
  random = np.random.default_rng(0)
  targets = random.integers(1, 10, (B, T)).astype(np.int32)
  weights = np.ones((B, T), np.float32)
  for row, length in enumerate((T, 4, 0)):
    targets[row, length:] = 0
    weights[row, length:] = 0
  return Batch(
    inputs=np.array([[3, 1], [4, 1], [5, 1]], np.int32),
    input_mask=np.ones((3, 2), bool),
    targets=targets,
    weights=weights,
    rows=np.array([4, 5, 6], np.int32),
    source=np.array([0, 1, 2], np.int32),
  )


def test_the_teachers_score_is_that_of_the_real_ids():
  params = MODEL.init(jax.random.key(0))
  batch = make_batch()
  records = sample_logging.describe(batch, Digits(), Model(MODEL, params))

  table = np.float64(params["table"])[..., :10]  # two columns are padding
  for row, record in enumerate(records):
    previous, total, expected = 0, 0.0, []
    for token in batch.targets[row][: int(batch.weights[row].sum())]:
      logits = table[batch.inputs[row, 0] % 3, previous]
      nats = logits[token] - np.log(np.sum(np.exp(logits)))
      expected.append(nats)
      total += nats
      previous = token
    np.testing.assert_allclose(record["teacher_log_prob"], total, rtol=1e-5)
    pieces, nats = zip(*record["token_log_probs"] or [("", 0)], strict=True)
    assert "".join(pieces) == record["text"]
    np.testing.assert_allclose(nats, expected or [0], atol=6e-4)
    assert record["row"] == 4 + row
    assert record["source"] == Source(row).name.lower()
    assert record["tokens"] == batch.weights[row].sum()
    assert record["text"] == Digits().decode(batch.targets[row])


@pytest.mark.parametrize("has_teacher", [True, False])
def test_answers_are_said_with_the_teachers_scores(caplog, has_teacher):
  caplog.set_level(logging.INFO, logger="gkd")
  teacher = Model(MODEL, MODEL.init(jax.random.key(0)))
  batch = make_batch()
  dumped = sample_logging.describe(batch, Digits(), teacher)
  records = [{"prompt": "2+2\x1b", "text": "5" * 200}, *dumped[1:2]]
  sample_logging.log_answers(
    "step 7", records, batch, teacher if has_teacher else None
  )
  first, *shown = caplog.messages[0].splitlines()
  assert first == "step 7"
  starts = [
    f"  '2+2\\x1b' → '{'5' * 160}…'",
    f"  {dumped[1]['prompt']!r} → {dumped[1]['text']!r}",
  ]
  ends = [
    f", of log-probability {record['teacher_log_prob']:.4g} by the teacher"
    for record in dumped
  ]
  for line, start, end in zip(shown, starts, ends, strict=False):
    assert line == start + end * has_teacher
  assert len(shown) == 2


def test_logits_of_all_positions_never_exist_at_once():
  # A head of its own, as the toy's hidden states are its logits.
  model = dataclasses.replace(
    MODEL, head=lambda params, hidden: hidden @ params["table"][0, :, :11]
  )
  params = MODEL.init(jax.random.key(0))
  jaxpr = str(
    jax.make_jaxpr(lambda p, b: score_batch(model, p, b, chunk_size=2))(
      params, make_batch()
    )
  )
  assert "[3,2,11]" in jaxpr
  assert "[3,7,11]" not in jaxpr
  assert "[3,8,11]" not in jaxpr


def test_without_a_teacher_there_is_no_score():
  (first, *_) = sample_logging.describe(make_batch(), Digits())
  assert "teacher_log_prob" not in first


def test_the_teacher_of_each_row_is_named():
  batch = make_batch().replace(teacher=np.array([1, 0, 1], np.int32))
  records = sample_logging.describe(batch, Digits(), teachers=("a", "b"))
  assert [record["teacher"] for record in records] == ["b", "a", "b"]


def test_the_text_has_the_real_ids_alone():
  batch = make_batch()
  padded = np.where(batch.weights > 0, batch.targets, 9)
  records = sample_logging.describe(batch.replace(targets=padded), Digits())
  assert records == sample_logging.describe(batch, Digits())


ROWS = 12  # of the toy's table, two of them padding


def messages(sign, weights, caplog):
  """Of a teacher whose logits are `sign` times 2 on the target."""

  def hidden(params, inputs, targets, **_):
    return sign * 2.0 * jax.nn.one_hot(targets, ROWS) * params

  def head(params, hidden):
    return hidden.at[..., ROWS - 1].set(9.0)  # of a padded id

  model = dataclasses.replace(MODEL, hidden=hidden, head=head)
  batch = make_batch().replace(weights=np.float32(weights))
  caplog.set_level(logging.INFO, "gkd")
  sample_logging.log_teacher_nll(Model(model, jnp.ones(())), batch)
  return [(record.levelname, record.getMessage()) for record in caplog.records]


def test_the_likelihood_is_over_real_ids_and_counted_targets(caplog):
  ((level, text),) = messages(1, make_batch().weights, caplog)
  nll = np.log(np.exp(2.0) + 9) - 2.0
  assert level == "INFO"
  assert f"{nll:.2f} nats a token" in text
  assert f"a uniform guess has {np.log(10):.2f}" in text


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_teacher_worse_than_a_uniform_guess_is_warned_of(caplog):
  (info, _), (warning, text) = messages(-1, make_batch().weights, caplog)
  nll = np.log(np.exp(-2.0) + 9) + 2.0
  assert (info, warning) == ("INFO", "WARNING")
  assert "no better than a uniform guess" in text
  assert f"{nll:.2f} against {np.log(10):.2f}" in text
  assert messages(np.nan, make_batch().weights, caplog)[-1][0] == "WARNING"


def test_prompts_alone_have_no_likelihood(caplog):
  assert messages(1, np.zeros((B, T)), caplog) == []
