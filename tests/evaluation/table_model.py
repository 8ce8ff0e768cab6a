"""A model and a split whose answers and scores are known by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gkd.data.cache import Row
from gkd.evaluation import evaluate
from gkd.evaluation.evaluation import Evaluation
from gkd.sampling.params import SamplingParams
from gkd.types import LanguageModel
from gkd.types import Model

VOCAB, WIDTH, LENGTH = 8, 3, 4
GREEDY = SamplingParams(temperature=0.0)


def table_model() -> LanguageModel:
  """Logits of position t are `params["table"][t]`, whatever came before.

  With `params["echo"]` > 0 the first token is the first input id.
  """

  def logits(params, inputs, positions):
    first = jax.nn.one_hot(inputs[:, :1], VOCAB) * (positions == 0)[:, None]
    return params["table"][positions] + params["echo"] * first

  def hidden(params, inputs, targets, **unused):
    return logits(params, inputs, jnp.arange(targets.shape[1]))

  def prefill(params, inputs, max_length, **unused):
    return decode(params, (inputs, jnp.int32(0)), None)

  def decode(params, cache, tokens):
    inputs, position = cache
    return (inputs, position + 1), logits(params, inputs, position[None])[:, 0]

  return LanguageModel(
    config=None,
    vocabulary_size=VOCAB,
    start_id=0,
    init=lambda key: None,
    hidden=hidden,
    head=lambda params, hidden: hidden,
    prefill=prefill,
    decode=decode,
    axes=lambda params: None,
  )


MODEL = table_model()
TEACHER = table_model()


def make_params(seed=0, echo=0.0):
  """Ids 2… at every position but the last, where only EOS can be drawn."""
  table = np.random.default_rng(seed).normal(size=(LENGTH, VOCAB)) * 1.5
  table[:, :2] = -1e9
  table[-1] = -1e9
  table[-1, 1] = 0.0
  return {"table": jnp.float32(table), "echo": jnp.float32(echo)}


def spelled(*ids):
  """A model that answers `ids`, then EOS, always."""
  table = np.full((LENGTH, VOCAB), -1e9, np.float32)
  for position in range(LENGTH):
    table[position, ids[position] if position < len(ids) else 1] = 0.0
  return {"table": jnp.asarray(table), "echo": jnp.float32(0.0)}


class _Vocabulary:
  """Ids as digits; EOS ends the text."""

  pad_id = 0
  eos_ids = (1,)
  control_ids = ()

  def decode(self, ids):
    ids = list(ids)
    ids = ids[: ids.index(1)] if 1 in ids else ids
    return "".join(str(i) for i in ids if i)


class Cache:
  """Rows of one input id each; the reference is this id."""

  def __init__(self, num_rows=5, has_targets=True):
    self.info = {"has_targets": has_targets}
    self.with_target = range(num_rows if has_targets else 0)
    self.vocabulary = _Vocabulary()
    self.postprocess = lambda text, example=None, is_target=False: text[:1]
    self.calls = []
    self.metric_fns = [self._accuracy]
    self._rows = [
      Row(np.int32([n, 1]), np.int32([n, 1]), f"prompt {i}", str(n))
      for i, n in zip(range(num_rows), itertools.cycle(range(2, VOCAB)))
    ]

  def __len__(self):
    return len(self._rows)

  def read(self, indices):
    return [self._rows[i] for i in indices]

  def _accuracy(self, targets, predictions):
    self.calls.append((targets, predictions))
    equal = [t == p for t, p in zip(targets, predictions, strict=True)]
    return {"accuracy": 100.0 * sum(equal) / len(equal)}


def make_evaluation(cache=None, decoding=GREEDY, **kwargs):
  kwargs = {"batch_size": 2, "bootstrap": 0, "score_teacher": False, **kwargs}
  return Evaluation(
    "toy",
    kwargs.pop("split", "test"),
    Cache() if cache is None else cache,
    {"inputs": WIDTH, "targets": LENGTH},
    decoding,
    **kwargs,
  )


def run(params, evaluation, seed=0, step=0, teacher=None, **kwargs):
  """`teacher` are the parameters of TEACHER."""
  roles = {"student": Model(MODEL, params)}
  if teacher is not None:
    roles["teacher"] = Model(TEACHER, teacher)
  return evaluate.evaluate(evaluation, roles, seed=seed, step=step, **kwargs)


def softmax(logits):
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def kl(p, q):
  inside = p > 0
  ratio = np.log(np.where(inside, p, 1) / np.where(inside, q, 1))
  return float(np.sum(np.where(inside, p * ratio, 0.0)))
