"""Evaluation by generation, on models whose answers are known by hand."""

import dataclasses
import errno
import json
import os
import random
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import keys
from gkd.evaluation import evaluate
from gkd.evaluation import predictions
from gkd.evaluation.evaluation import Evaluation
from gkd.sampling.generate import prefetch
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import LanguageModel
from gkd.types import Model
from gkd.types import UserError
from tests.sampling import toy_model

VOCAB, WIDTH, LENGTH = 8, 3, 4
GREEDY = SamplingParams(temperature=0.0)


def _table_model() -> LanguageModel:
  """Logits of position t are `params["table"][t]`, whatever came before.

  With `params["echo"]` > 0 the first token is the first input id.
  """

  def head(params, hidden):
    position = hidden[..., 0].astype(jnp.int32)
    first = jax.nn.one_hot(hidden[..., 1].astype(jnp.int32), VOCAB)
    echo = params["echo"] * first * (position == 0)[..., None]
    return params["table"][position] + echo

  def hidden(params, inputs, targets, **unused):
    positions = jnp.broadcast_to(jnp.arange(targets.shape[1]), targets.shape)
    first = jnp.broadcast_to(inputs[:, :1], targets.shape)
    return jnp.stack([positions, first], -1).astype(jnp.float32)

  def at(params, inputs, position):
    first = inputs[:, 0]
    state = jnp.stack([jnp.full_like(first, position), first], -1)
    return head(params, state.astype(jnp.float32))

  def prefill(params, inputs, max_length, **unused):
    return (inputs, jnp.int32(1)), at(params, inputs, 0)

  def step(params, cache, tokens):
    inputs, position = cache
    return (inputs, position + 1), at(params, inputs, position)

  return LanguageModel(
    config=None,
    vocabulary_size=VOCAB,
    start_id=0,
    init=lambda key: None,
    hidden=hidden,
    head=head,
    prefill=prefill,
    decode=step,
    axes=lambda params: None,
  )


MODEL = _table_model()
TEACHER = _table_model()


def _params(seed=0, echo=0.0):
  """Ids 2… at every position but the last, where only EOS can be drawn."""
  table = np.random.default_rng(seed).normal(size=(LENGTH, VOCAB)) * 1.5
  table[:, :2] = -1e9
  table[-1] = -1e9
  table[-1, 1] = 0.0
  return {"table": jnp.float32(table), "echo": jnp.float32(echo)}


def _spelled(*ids):
  """A model that answers `ids`, then EOS, always."""
  table = np.full((LENGTH, VOCAB), -1e9, np.float32)
  for position in range(LENGTH):
    table[position, ids[position] if position < len(ids) else 1] = 0.0
  return {"table": jnp.asarray(table), "echo": jnp.float32(0.0)}


class _Row(NamedTuple):
  inputs: np.ndarray
  targets: np.ndarray
  prompt: str
  reference: str


class _Vocabulary:
  """Ids as digits; EOS ends the text."""

  pad_id = 0
  eos_ids = (1,)

  def decode(self, ids):
    ids = list(ids)
    ids = ids[: ids.index(1)] if 1 in ids else ids
    return "".join(str(i) for i in ids if i)


class _Cache:
  """Rows of one input id each; the reference is this id."""

  def __init__(self, num_rows=5, has_targets=True):
    self.info = {"has_targets": has_targets}
    self.vocabulary = _Vocabulary()
    self.postprocess = lambda text, example=None, is_target=False: text[:1]
    self.calls = []
    self.metric_fns = [self._accuracy]
    self._rows = [
      _Row(
        np.array([2 + i % 6, 1], np.int32),
        np.array([2 + i % 6, 1], np.int32),
        f"prompt {i}",
        str(2 + i % 6),
      )
      for i in range(num_rows)
    ]

  def __len__(self):
    return len(self._rows)

  def read(self, indices):
    return [self._rows[i] for i in indices]

  def _accuracy(self, targets, predictions):
    self.calls.append((targets, predictions))
    equal = [t == p for t, p in zip(targets, predictions, strict=True)]
    return {"accuracy": 100.0 * sum(equal) / len(equal)}


def _evaluation(cache=None, decoding=GREEDY, **kwargs):
  kwargs = {"batch_size": 2, "bootstrap": 0, "score_teacher": False, **kwargs}
  return Evaluation(
    "toy",
    kwargs.pop("split", "test"),
    _Cache() if cache is None else cache,
    {"inputs": WIDTH, "targets": LENGTH},
    decoding,
    **kwargs,
  )


def _evaluate(params, evaluation, seed=0, step=0, teacher=None, **kwargs):
  """`teacher` are the parameters of TEACHER."""
  roles = {"student": Model(MODEL, params)}
  if teacher is not None:
    roles["teacher"] = Model(TEACHER, teacher)
  return evaluate.evaluate(evaluation, roles, seed=seed, step=step, **kwargs)


def test_metric_functions_get_every_row_once_and_no_filler():
  cache = _Cache(num_rows=5)  # batches of 2: the last has a filler row
  values = _evaluate(_spelled(3, 4), _evaluation(cache))
  assert cache.calls == [(["2", "3", "4", "5", "6"], ["3"] * 5)]
  assert values == {
    "eval/toy/accuracy": 20.0,
    "eval/toy/length": 3.0,
    "eval/toy/truncation_rate": 0.0,
  }


def test_each_row_is_scored_against_its_own_answer():
  values = _evaluate(_params(echo=1e8), _evaluation())
  assert values["eval/toy/accuracy"] == 100.0


def test_num_examples_takes_the_first_rows():
  cache = _Cache(num_rows=5)
  _evaluate(_spelled(3), _evaluation(cache, num_examples=3))
  assert cache.calls[0][0] == ["2", "3", "4"]


def test_score_does_not_depend_on_the_batch_size():
  runs = [
    _evaluate(
      _params(), _evaluation(decoding=SamplingParams(), batch_size=size)
    )
    for size in (1, 2, 5, 8)
  ]
  assert all(run == runs[0] for run in runs)


def test_answer_without_eos_counts_as_truncated():
  values = _evaluate(_spelled(3, 4, 5, 6), _evaluation())
  assert values["eval/toy/truncation_rate"] == 1.0
  assert values["eval/toy/length"] == LENGTH


def test_predictions_file_holds_prompt_reference_and_text(tmp_path):
  evaluation = _evaluation(split="test[:9]", label="greedy")
  _evaluate(_spelled(3, 4), evaluation, step=20, predictions_dir=str(tmp_path))
  assert os.listdir(tmp_path) == ["toy-test_9_-greedy-00000020.jsonl"]
  with open(tmp_path / "toy-test_9_-greedy-00000020.jsonl") as file:
    records = [json.loads(line) for line in file]
  assert [record["row"] for record in records] == [0, 1, 2, 3, 4]
  assert records[1] == {
    "row": 1,
    "prompt": "prompt 1",
    "reference": "3",
    "text": "34",
    "prediction": "3",
    "length": 3,
    "truncated": False,
  }


def test_label_keeps_two_decodings_of_a_task_apart():
  greedy = _evaluate(_params(), _evaluation(label="greedy"))
  sampled = _evaluate(
    _params(), _evaluation(None, SamplingParams(), label="sampled")
  )
  assert "eval/toy/accuracy_greedy" in greedy
  assert "eval/toy/accuracy_sampled" in sampled
  assert not greedy.keys() & sampled.keys()


def test_metrics_are_means_over_the_samples(tmp_path):
  cache = _Cache()
  evaluation = _evaluation(cache, SamplingParams(), num_samples=3)
  values = _evaluate(_params(), evaluation, predictions_dir=str(tmp_path))
  assert len(cache.calls) == 3
  assert len({tuple(texts) for _, texts in cache.calls}) == 3  # other draws
  hits = [
    np.mean([t == p for t, p in zip(*call, strict=True)])
    for call in cache.calls
  ]
  assert values["eval/toy/accuracy"] == pytest.approx(100 * np.mean(hits))
  (name,) = os.listdir(tmp_path)
  with open(tmp_path / name) as file:
    samples = [json.loads(line)["sample"] for line in file]
  assert samples == [0] * 5 + [1] * 5 + [2] * 5


def test_same_seed_and_step_repeat_the_draws_and_others_do_not():
  def texts(seed, step):
    cache = _Cache(num_rows=8)
    _evaluate(_params(), _evaluation(cache, SamplingParams()), seed, step)
    return cache.calls[0][1]

  assert texts(0, 10) == texts(0, 10)
  assert texts(0, 10) != texts(0, 20)
  assert texts(0, 10) != texts(1, 10)


def test_distances_equal_the_sum_of_the_tables_divergences():
  student, teacher = _params(0), _params(1)
  values = _evaluate(student, _evaluation(), teacher=teacher)
  # Positions are independent and all answers end at the last one, so the
  # expectation over sequences is exact: the sum of the divergences by position.
  q = _softmax(np.asarray(student["table"], np.float64))
  p = _softmax(np.asarray(teacher["table"], np.float64))
  expected = {"forward": _kl(p, q), "reverse": _kl(q, p)}
  for direction, total in expected.items():
    name = f"eval/toy/{direction}_kl"
    assert values[name] == pytest.approx(total, rel=1e-5)
    assert values[f"{name}_per_token"] == pytest.approx(total / LENGTH, 1e-5)


def test_forward_kl_is_taken_on_teacher_text_and_reverse_on_student_text():
  # The teacher stops at once and the student never before the last position,
  # so the tokens per sequence tell who wrote.
  student, teacher = _params(0), _params(0)
  table = np.array(teacher["table"])
  table[0] = -1e9
  table[0, 1] = 0.0
  values = _evaluate(
    student,
    _evaluation(),
    teacher={**teacher, "table": jnp.asarray(table)},
  )
  per_token = values["eval/toy/forward_kl_per_token"]
  assert per_token == pytest.approx(values["eval/toy/forward_kl"])  # 1 token
  ratio = (
    values["eval/toy/reverse_kl"] / values["eval/toy/reverse_kl_per_token"]
  )
  assert ratio == pytest.approx(LENGTH)


@pytest.fixture
def writers(monkeypatch):
  """Who was asked to write a batch, in order."""
  asked = []
  generate = evaluate.generate

  def counting(model, *args, **kwargs):
    asked.append("teacher" if model is TEACHER else "student")
    return generate(model, *args, **kwargs)

  monkeypatch.setattr(evaluate, "generate", counting)
  return asked


def test_teacher_writes_once_for_all_steps(writers):
  evaluation = _evaluation(batch_size=5)
  kwargs = {"teacher": _params(1)}
  first = _evaluate(_params(0), evaluation, step=10, **kwargs)
  assert writers.count("teacher") == 1
  second = _evaluate(_params(0), evaluation, step=20, **kwargs)
  assert writers.count("teacher") == 1
  assert first["eval/toy/forward_kl"] == second["eval/toy/forward_kl"]
  # Other parameters are another teacher.
  kwargs["teacher"] = _params(2)
  third = _evaluate(_params(0), evaluation, step=30, **kwargs)
  assert writers.count("teacher") == 2
  assert third["eval/toy/forward_kl"] != first["eval/toy/forward_kl"]


def test_teacher_is_scored_as_the_student_is_and_once(writers):
  kwargs = {"teacher": _spelled(3)}
  evaluation = _evaluation(
    score_teacher=True, distance=False, batch_size=5, bootstrap=20
  )
  first = _evaluate(_spelled(4, 4), evaluation, step=10, **kwargs)
  alone = _evaluate(_spelled(3), _evaluation(bootstrap=20))
  for name in ("accuracy", "length", "truncation_rate"):
    for end in ("", "_ci_low", "_ci_high"):
      teacher = first[f"eval/toy/teacher_{name}{end}"]
      assert teacher == alone[f"eval/toy/{name}{end}"]
  assert first["eval/toy/length"] == 3.0
  assert first["eval/toy/teacher_length"] == 2.0
  assert writers.count("teacher") == 1
  second = _evaluate(_spelled(5), evaluation, step=20, **kwargs)
  assert writers.count("teacher") == 1
  assert second["eval/toy/teacher_length"] == 2.0


def test_teacher_is_decoded_as_the_evaluation_says(writers):
  cache = _Cache()
  evaluation = _evaluation(
    cache,
    SamplingParams(),
    num_samples=3,
    label="t1",
    score_teacher=True,
    distance=False,
    batch_size=5,
  )
  kwargs = {"teacher": _params(1)}
  values = _evaluate(_params(1), evaluation, **kwargs)
  assert writers == ["student"] * 3 + ["teacher"] * 3
  by_student, by_teacher = cache.calls[:3], cache.calls[3:]
  # The same model, other draws: six lists of texts, all different.
  assert len({tuple(texts) for _, texts in cache.calls}) == 6
  hits = [
    np.mean([t == p for t, p in zip(*call, strict=True)]) for call in by_teacher
  ]
  assert values["eval/toy/teacher_accuracy_t1"] == 100 * np.mean(hits)
  assert len(by_student) == 3


def test_teacher_is_left_out_where_not_asked_for(writers):
  kwargs = {"teacher": _params(1)}
  values = _evaluate(_params(), _evaluation(distance=False), **kwargs)
  assert writers.count("teacher") == 0
  assert not any("teacher" in name for name in values)


def test_a_search_answers_with_the_best_of_its_beams(tmp_path):
  """EOS is likely at once, but what is longer is better by its penalty."""
  params = _params(2)
  table = np.array(params["table"])
  table[:, 1] = table[:, 2:].max(-1) + 0.5
  params["table"] = jnp.asarray(table)
  evaluation = _evaluation(decoding=BeamSearch(3, 2.0), label="beam3")
  values = _evaluate(params, evaluation, predictions_dir=str(tmp_path))
  (file,) = tmp_path.iterdir()
  assert file.name == "toy-test-beam3-00000000.jsonl"
  records = [json.loads(line) for line in file.read_text().splitlines()]
  for row, record in enumerate(records):
    beams = toy_model.search(
      MODEL,
      params,
      np.array([[2 + row % 6, 1, 0]], np.int32),
      np.array([row], np.int32),
      num_beams=3,
      alpha=2.0,
      max_length=LENGTH,
    )
    ids = beams.tokens[0, 0, : beams.lengths[0, 0] - 1]
    assert record["text"] == "".join(map(str, ids.tolist()))
    assert record["length"] == beams.lengths[0, 0]
  greedy = _evaluate(params, _evaluation())
  assert greedy["eval/toy/length"] == 1
  assert values["eval/toy/length_beam3"] > 1


def test_a_search_does_not_depend_on_the_batch_size_nor_the_seed():
  params = _params(echo=1.0)
  runs = [
    _evaluate(
      params, _evaluation(decoding=BeamSearch(3), batch_size=size), seed=size
    )
    for size in (1, 2, 8)
  ]
  assert all(run == runs[0] for run in runs)


def test_distances_are_of_drawn_sequences_whatever_the_decoding(writers):
  kwargs = {"teacher": _params(1)}
  by_search = _evaluate(
    _params(0),
    _evaluation(decoding=BeamSearch(2), score_teacher=True),
    **kwargs,
  )
  assert set(writers) == {"teacher", "student"}  # for the distances alone
  greedily = _evaluate(_params(0), _evaluation(), **kwargs)
  for name in ("forward_kl", "reverse_kl"):
    assert by_search[f"eval/toy/{name}"] == greedily[f"eval/toy/{name}"]
  alone = _evaluate(_params(1), _evaluation(decoding=BeamSearch(2)))
  for name in ("accuracy", "length"):
    own = alone[f"eval/toy/{name}"]
    assert by_search[f"eval/toy/teacher_{name}"] == own


def test_an_altered_copy_measures_on_its_own_rows():
  # The teacher's sequences depend on row ids and number of rows; those of the
  # whole split must not serve for a part of it.
  kwargs = {"teacher": _params(1, echo=9.0)}
  whole = _evaluation()
  _evaluate(_params(0), whole, **kwargs)
  part = dataclasses.replace(whole, num_examples=1)
  copied = _evaluate(_params(0), part, **kwargs)
  fresh = _evaluate(_params(0), _evaluation(num_examples=1), **kwargs)
  assert copied == fresh


def test_long_evaluation_shows_every_phase_in_prompts(capsys, monkeypatch):
  monkeypatch.setattr(evaluate, "_QUIET_SECONDS", 0.0)
  kwargs = {"teacher": _params(1)}
  _evaluate(_params(), _evaluation(), **kwargs)
  lines = capsys.readouterr().err.splitlines()
  names = ["answers", "text of the teacher", "text of the student"]
  names += ["forward KL", "reverse KL"]
  assert [line.split(" · ")[0] for line in lines] == [
    f"toy test, {name}: 5/5" for name in names
  ]
  assert all(re.search(r"prompts?/s|s/prompt", line) for line in lines)


def test_short_evaluation_shows_nothing(capsys):
  _evaluate(_params(), _evaluation())
  assert capsys.readouterr().err == ""


def test_device_works_on_the_next_batch_while_one_is_read():
  started = []

  def dispatch():
    for number in range(4):
      started.append(number)
      yield number

  seen = [(n, len(started)) for n in prefetch(dispatch())]
  assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]


def test_split_without_references_has_lengths_and_no_metric():
  cache = _Cache(has_targets=False)
  values = _evaluate(_spelled(3), _evaluation(cache))
  assert sorted(values) == ["eval/toy/length", "eval/toy/truncation_rate"]
  assert cache.calls == []


def test_evaluation_leaves_parameters_as_they_were():
  params, teacher = _params(0), _params(1)
  before = jax.tree.map(np.array, (params, teacher))
  evaluation = _evaluation(
    None, SamplingParams(), bootstrap=9, score_teacher=True
  )
  _evaluate(params, evaluation, teacher=teacher)
  jax.tree.map(np.testing.assert_array_equal, before, (params, teacher))


def test_every_number_has_its_interval_and_contains_it():
  cache = _Cache(num_rows=40)
  evaluation = _evaluation(
    cache, SamplingParams(), bootstrap=50, label="t1", score_teacher=True
  )
  kwargs = {"teacher": _params(1)}
  values = _evaluate(_params(echo=2.0), evaluation, **kwargs)
  names = {n for n in values if not n.endswith(("_ci_low", "_ci_high"))}
  assert names == {
    f"eval/toy/{name}"
    for name in (
      "accuracy_t1",
      "length_t1",
      "truncation_rate_t1",
      "teacher_accuracy_t1",
      "teacher_length_t1",
      "teacher_truncation_rate_t1",
      "forward_kl",
      "forward_kl_per_token",
      "reverse_kl",
      "reverse_kl_per_token",
    )
  }
  assert len(values) == 3 * len(names)
  for name in names:
    low, high = values[f"{name}_ci_low"], values[f"{name}_ci_high"]
    assert low <= values[name] <= high, name
  wide = ("accuracy_t1", "teacher_accuracy_t1", "forward_kl", "reverse_kl")
  for name in wide:
    name = f"eval/toy/{name}"
    assert values[f"{name}_ci_low"] < values[f"{name}_ci_high"], name


def test_interval_of_the_kl_is_that_of_the_mean_over_prompts():
  # Ten rows of each of six prompts; the first position differs, by the prompt.
  evaluation = _evaluation(_Cache(num_rows=60), bootstrap=2000, batch_size=5)
  kwargs = {"teacher": _params(0, echo=0.0)}
  values = _evaluate(_params(0, echo=3.0), evaluation, **kwargs)
  name = "eval/toy/reverse_kl"
  half = (values[f"{name}_ci_high"] - values[f"{name}_ci_low"]) / 2
  q = _softmax(_first_logits(_params(0), 3.0))  # [6, V], one row a prompt
  p = _softmax(_first_logits(_params(0), 0.0))
  each = np.array([_kl(row, p[i]) for i, row in enumerate(q)])
  assert values[name] == pytest.approx(each.mean(), rel=1e-4)
  expected = 1.96 * each.std() / np.sqrt(60)
  assert half == pytest.approx(expected, rel=0.1)


def test_task_with_several_splits_has_the_split_in_its_names(tmp_path):
  evaluation = _evaluation(split="test[:9]", name_split=True)
  values = _evaluate(_spelled(3), evaluation, predictions_dir=str(tmp_path))
  assert "eval/toy-test[:9]/accuracy" in values
  assert os.listdir(tmp_path) == ["toy-test_9_-00000000.jsonl"]


def test_answers_are_handed_on_with_their_tokens():
  seen = []
  _evaluate(_spelled(3, 4), _evaluation(num_examples=3), on_answers=seen.append)
  ((records,),) = seen
  assert [r["tokens"].tolist() for r in records] == [[3, 4, 1]] * 3


def test_predictions_that_do_not_fit_on_the_disk_are_one_line(
  tmp_path, monkeypatch
):
  def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(predictions.os, "replace", full)
  message = "cannot write predictions to .*; make room there .No space left"
  with pytest.raises(UserError, match=message):
    _evaluate(_spelled(3), _evaluation(), predictions_dir=str(tmp_path))


def test_answer_to_a_row_depends_on_neither_batch_nor_number_of_examples():
  def texts(**kwargs):
    seen = []
    evaluation = _evaluation(_Cache(num_rows=9), SamplingParams(), **kwargs)
    _evaluate(_params(), evaluation, on_answers=seen.append)
    return [record["text"] for record in seen[0][0]]

  whole = texts(batch_size=8)
  assert len(set(whole)) > 3
  assert texts(batch_size=2) == texts(batch_size=5) == whole
  assert texts(num_examples=4, batch_size=5) == whole[:4]


def test_evaluation_draws_from_its_own_stream_alone(monkeypatch):
  roles = []
  stream = keys.stream

  def recorded(seed, step, role):
    roles.append(role)
    return stream(seed, step, role)

  monkeypatch.setattr(keys, "stream", recorded)
  np.random.seed(0)
  random.seed(0)
  before = np.random.get_state()[1].tolist(), random.getstate()
  _evaluate(
    _params(),
    _evaluation(None, SamplingParams(), bootstrap=20, score_teacher=True),
    teacher=_params(1),
  )
  assert set(roles) == {keys.Role.EVALUATION}
  assert (np.random.get_state()[1].tolist(), random.getstate()) == before


@pytest.mark.parametrize(
  ("kwargs", "message"),
  [
    ({"bootstrap": -1}, "bootstrap is -1; expected a number of resamples"),
    ({"batch_size": 0}, "batch_size is 0; expected 1 or more"),
    ({"num_examples": 0}, "num_examples is 0; expected 1 or more"),
    ({"num_samples": 2}, "2 answers to each prompt greedily are all the same"),
    (
      {"num_samples": 2, "decoding": BeamSearch()},
      "2 answers to each prompt by a search with 4 beams, alpha 0.6 are all",
    ),
    ({"decoding": BeamSearch(0)}, "beam size is 0; expected 1 or more"),
    ({"cache": _Cache(0)}, "split 'test' has no rows"),
    ({"decoding": SamplingParams(temperature=-1.0)}, "temperature"),
  ],
)
def test_impossible_evaluation_is_refused(kwargs, message):
  with pytest.raises(UserError, match=message):
    _evaluation(**kwargs)


def test_prompt_longer_than_the_lengths_is_refused_not_cut():
  cache = _Cache()
  cache._rows[3] = cache._rows[3]._replace(inputs=np.arange(2, 6))
  with pytest.raises(UserError, match="split 'test': row 3 has 4 input"):
    _evaluate(_spelled(3), _evaluation(cache))


def _first_logits(params, echo):
  """[6, V] of the first position, for each of the six prompts of the cache."""
  table = np.asarray(params["table"], np.float64)[0]
  return table + echo * np.eye(VOCAB)[[2 + i for i in range(6)]]


def _softmax(logits):
  weights = np.exp(logits - logits.max(-1, keepdims=True))
  return weights / weights.sum(-1, keepdims=True)


def _kl(p, q):
  inside = p > 0
  ratio = np.log(np.where(inside, p, 1) / np.where(inside, q, 1))
  return float(np.sum(np.where(inside, p * ratio, 0.0)))
