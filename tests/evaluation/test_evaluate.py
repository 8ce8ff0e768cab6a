"""Evaluation by generation, on models whose answers are known by hand."""

import dataclasses
import errno
import json
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gkd import files
from gkd import keys
from gkd.evaluation import job
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.types import UserError
from tests.evaluation import table_model
from tests.evaluation.table_model import Cache
from tests.evaluation.table_model import kl
from tests.evaluation.table_model import make_evaluation
from tests.evaluation.table_model import make_params
from tests.evaluation.table_model import run
from tests.evaluation.table_model import softmax
from tests.evaluation.table_model import spelled
from tests.sampling import toy_model


def test_every_row_is_scored_once_with_its_length_and_no_filler():
  cache = Cache(num_rows=5)  # batches of 2: the last has a filler row
  values = run(spelled(3, 4), make_evaluation(cache))
  assert cache.calls == [(["2", "3", "4", "5", "6"], ["3"] * 5)]
  assert values == {
    "eval/toy/accuracy": 20.0,
    "eval/toy/length": 3.0,
    "eval/toy/truncation_rate": 0.0,
  }
  without_eos = run(spelled(3, 4, 5, 6), make_evaluation())
  assert without_eos["eval/toy/truncation_rate"] == 1.0
  assert without_eos["eval/toy/length"] == table_model.LENGTH


def test_num_examples_takes_the_first_rows_whose_tokens_are_handed_on():
  cache, seen = Cache(num_rows=5), []
  evaluation = make_evaluation(cache, num_examples=3)
  run(spelled(3, 4), evaluation, on_answers=seen.append)
  assert cache.calls[0][0] == ["2", "3", "4"]
  ((records,),) = seen
  assert [r["tokens"].tolist() for r in records] == [[3, 4, 1]] * 3


@pytest.mark.parametrize("decoding", [SamplingParams(), BeamSearch(3)])
def test_an_answer_depends_on_neither_batch_nor_number_of_examples(decoding):
  def outcome(**kwargs):
    seen = []
    evaluation = make_evaluation(Cache(num_rows=9), decoding, **kwargs)
    values = run(make_params(echo=1.0), evaluation, on_answers=seen.append)
    return values, [record["text"] for record in seen[0][0]]

  values, texts = outcome(batch_size=8)
  assert len(set(texts)) > 2
  for size in (1, 2, 5):
    assert outcome(batch_size=size) == (values, texts)
  assert outcome(num_examples=4, batch_size=5)[1] == texts[:4]


def only_file(folder):
  """Name and records of the file of predictions in a folder."""
  (file,) = folder.iterdir()
  return file.name, [json.loads(line) for line in file.open()]


@pytest.mark.parametrize("name_split", [False, True])
def test_predictions_file_holds_prompt_reference_and_text(tmp_path, name_split):
  evaluation = make_evaluation(
    split="test[:9]", label="greedy", name_split=name_split
  )
  folder = str(tmp_path)
  values = run(spelled(3, 4), evaluation, step=20, predictions_dir=folder)
  name = "toy-test[:9]" if name_split else "toy"
  assert f"eval/{name}/accuracy_greedy" in values
  name, records = only_file(tmp_path)
  assert name == "toy-test_9_-greedy-00000020.jsonl"
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


def mean_score(targets, scores):
  assert targets == ["2", "3", "4"]
  return {"score": float(np.mean(scores))}


def test_metrics_of_scores_get_the_log_probabilities_of_targets(tmp_path):
  cache = Cache(num_rows=3)
  cache.info["longest"] = {"targets": 2}
  cache.metric_fns = [mean_score]
  student, teacher = make_params(0), make_params(1)
  for params in (student, teacher):
    params["table"] = params["table"].at[1, 1].set(0.5)
  evaluation = make_evaluation(cache, score_teacher=True, sequence_kl=False)
  folder = str(tmp_path)
  values = run(student, evaluation, teacher=teacher, predictions_dir=folder)
  by_row = {}
  for prefix, params in (("", student), ("teacher_", teacher)):
    p = softmax(np.asarray(params["table"], np.float64))
    by_row[prefix] = [np.log(p[0, n] * p[1, 1]) for n in (2, 3, 4)]
    expected = pytest.approx(np.mean(by_row[prefix]), rel=1e-5)
    assert values[f"eval/toy/{prefix}score"] == expected
  _, records = only_file(tmp_path)
  found = [record["score"] for record in records]
  assert found == pytest.approx(by_row[""], rel=1e-5)


def accuracy(calls):
  """Mean over some calls of the metric function, in %."""
  hits = [np.mean([t == p for t, p in zip(*c, strict=True)]) for c in calls]
  return pytest.approx(100 * np.mean(hits))


def test_metrics_are_means_over_the_samples(tmp_path):
  cache = Cache()
  evaluation = make_evaluation(cache, SamplingParams(), num_samples=3)
  values = run(make_params(), evaluation, predictions_dir=str(tmp_path))
  assert len(cache.calls) == 3
  assert len({tuple(texts) for _, texts in cache.calls}) == 3  # other draws
  assert values["eval/toy/accuracy"] == accuracy(cache.calls)
  _, records = only_file(tmp_path)
  samples = [record["sample"] for record in records]
  assert samples == [0] * 5 + [1] * 5 + [2] * 5


def test_same_seed_and_step_repeat_the_draws_and_others_do_not():
  def texts(seed, step):
    cache = Cache(num_rows=8)
    run(make_params(), make_evaluation(cache, SamplingParams()), seed, step)
    return cache.calls[0][1]

  assert texts(0, 10) == texts(0, 10)
  assert texts(0, 10) != texts(0, 20)
  assert texts(0, 10) != texts(1, 10)


def test_kls_equal_the_sum_of_the_tables_divergences():
  student, teacher = make_params(0), make_params(1)
  values = run(student, make_evaluation(), teacher=teacher)
  # Positions are independent and all answers end at the last one, so the
  # expectation over sequences is exact: the sum of the divergences by position.
  q = softmax(np.asarray(student["table"], np.float64))
  p = softmax(np.asarray(teacher["table"], np.float64))
  expected = {"forward": kl(p, q), "reverse": kl(q, p)}
  for direction, total in expected.items():
    name = f"eval/toy/{direction}_kl"
    assert values[name] == pytest.approx(total, rel=1e-5)
    assert values[f"{name}_per_token"] == pytest.approx(
      total / table_model.LENGTH, 1e-5
    )


def test_forward_kl_is_taken_on_teacher_text_and_reverse_on_student_text():
  # The teacher stops at once and the student never before the last position,
  # so the tokens per sequence tell who wrote.
  values = run(make_params(0), make_evaluation(), teacher=spelled())
  forward, reverse = "eval/toy/forward_kl", "eval/toy/reverse_kl"
  assert values[f"{forward}_per_token"] == pytest.approx(values[forward])
  ratio = values[reverse] / values[f"{reverse}_per_token"]
  assert ratio == pytest.approx(table_model.LENGTH)


@pytest.fixture
def writers(monkeypatch):
  """The models that generated a batch, in order."""
  roles = []
  generate = job.generate

  def counting(model, *args, **kwargs):
    roles.append("teacher" if model.lm is table_model.TEACHER else "student")
    return generate(model, *args, **kwargs)

  monkeypatch.setattr(job, "generate", counting)
  return roles


def test_teacher_writes_once_for_all_steps(writers):
  evaluation = make_evaluation(batch_size=5)
  teacher = make_params(1)
  # Other parameters are another teacher.
  runs = ((10, teacher, 1), (20, teacher, 1), (30, make_params(2), 2))
  kls = []
  for step, teacher, num_written in runs:
    values = run(make_params(0), evaluation, step=step, teacher=teacher)
    kls.append(values["eval/toy/forward_kl"])
    assert writers.count("teacher") == num_written
  assert kls[0] == kls[1] != kls[2]


def test_teacher_is_scored_as_the_student_is_and_once(writers):
  teacher = spelled(3)
  evaluation = make_evaluation(
    score_teacher=True, sequence_kl=False, batch_size=5, bootstrap=20
  )
  without = dataclasses.replace(evaluation, score_teacher=False)
  values = run(spelled(4, 4), without, teacher=teacher)
  assert not writers.count("teacher")
  assert not any("teacher" in name for name in values)
  first = run(spelled(4, 4), evaluation, step=10, teacher=teacher)
  alone = run(spelled(3), make_evaluation(bootstrap=20))
  for name in ("accuracy", "length", "truncation_rate"):
    for end in ("", "_ci_low", "_ci_high"):
      value = first[f"eval/toy/teacher_{name}{end}"]
      assert value == alone[f"eval/toy/{name}{end}"]
  assert first["eval/toy/length"] == 3.0
  assert writers.count("teacher") == 1
  second = run(spelled(5), evaluation, step=20, teacher=teacher)
  assert writers.count("teacher") == 1
  assert second["eval/toy/teacher_length"] == 2.0


def test_teacher_is_decoded_as_the_evaluation_says(writers):
  cache = Cache()
  evaluation = make_evaluation(
    cache,
    SamplingParams(),
    num_samples=3,
    label="t1",
    score_teacher=True,
    sequence_kl=False,
    batch_size=5,
  )
  values = run(make_params(1), evaluation, teacher=make_params(1))
  assert writers == ["student"] * 3 + ["teacher"] * 3
  # The same model, other draws: six lists of texts, all different.
  assert len({tuple(texts) for _, texts in cache.calls}) == 6
  assert values["eval/toy/teacher_accuracy_t1"] == accuracy(cache.calls[3:])


def test_a_search_answers_with_the_best_of_its_beams(tmp_path):
  """EOS is likely at once, but what is longer is better by its penalty."""
  params = make_params(2)
  table = np.array(params["table"])
  table[:, 1] = table[:, 2:].max(-1) + 0.5
  params["table"] = jnp.asarray(table)
  evaluation = make_evaluation(decoding=BeamSearch(3, 2.0), label="beam3")
  values = run(params, evaluation, predictions_dir=str(tmp_path))
  name, records = only_file(tmp_path)
  assert name == "toy-test-beam3-00000000.jsonl"
  beams = toy_model.search(
    table_model.MODEL,
    params,
    np.int32([[int(record["reference"]), 1, 0] for record in records]),
    np.arange(5),
    num_beams=3,
    alpha=2.0,
    max_length=table_model.LENGTH,
  )
  for place, record in enumerate(records):
    length = beams.lengths[place, 0]
    ids = beams.tokens[place, 0, : length - 1].tolist()
    text = "".join(map(str, ids))
    assert (record["text"], record["length"]) == (text, length)
  greedy = run(params, make_evaluation())
  assert greedy["eval/toy/length"] == 1
  assert values["eval/toy/length_beam3"] > 1


def test_kls_are_of_drawn_sequences_whatever_the_decoding(writers):
  teacher = make_params(1)
  evaluation = make_evaluation(decoding=BeamSearch(2), score_teacher=True)
  by_search = run(make_params(0), evaluation, teacher=teacher)
  greedily = run(make_params(0), make_evaluation(), teacher=teacher)
  for name in ("forward_kl", "reverse_kl"):
    assert by_search[f"eval/toy/{name}"] == greedily[f"eval/toy/{name}"]
  alone = run(make_params(1), make_evaluation(decoding=BeamSearch(2)))
  for name in ("accuracy", "length"):
    own = alone[f"eval/toy/{name}"]
    assert by_search[f"eval/toy/teacher_{name}"] == own


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("role", ["student", "teacher"])
@pytest.mark.parametrize(
  "decoding", [SamplingParams(0.0), SamplingParams(), BeamSearch(2)]
)
def test_a_model_that_is_not_finite_has_no_scores(
  tmp_path, decoding, role, bad
):
  """And where it is the student, no predictions either."""
  broken = make_params()
  broken["table"] = broken["table"].at[1, 3].set(bad)
  student, teacher = broken, None
  if role == "teacher":
    student, teacher = make_params(), broken
  evaluation = make_evaluation(decoding=decoding)
  message = f"evaluation of toy, split 'test': the {role}'s logits are not fin"
  with pytest.raises(FloatingPointError, match=message):
    run(student, evaluation, teacher=teacher, predictions_dir=str(tmp_path))
  assert role == "teacher" or not list(tmp_path.iterdir())


def test_an_evaluation_without_memory_names_its_macros(monkeypatch):
  monkeypatch.setattr(job, "generate", lambda *_, **__: jnp.zeros(1 << 50))
  message = r"memory is out \(Out of memory .*\); lower EVAL_BATCH_SIZE"
  with pytest.raises(UserError, match=message):
    run(make_params(), make_evaluation())


def test_an_altered_copy_measures_on_its_own_rows():
  # The teacher's sequences depend on row ids and number of rows; those of the
  # whole split must not serve for a part of it.
  teacher = make_params(1, echo=9.0)
  whole = make_evaluation()
  run(make_params(0), whole, teacher=teacher)
  part = dataclasses.replace(whole, num_examples=2)
  copied = run(make_params(0), part, teacher=teacher)
  fresh = make_evaluation(num_examples=2)
  assert copied == run(make_params(0), fresh, teacher=teacher)


def test_only_a_long_evaluation_shows_every_phase_in_prompts(
  capsys, monkeypatch
):
  run(make_params(), make_evaluation())
  assert capsys.readouterr().err == ""
  monkeypatch.setattr(job, "_QUIET_SECONDS", 0.0)
  run(make_params(), make_evaluation(), teacher=make_params(1))
  lines = capsys.readouterr().err.splitlines()
  names = ["answers"]
  for text in ("text of the teacher", "text of the student"):
    names += [text, f"student and teacher on {text}"]
  assert [line.split(" · ")[0] for line in lines] == [
    f"toy test, {name}: 5/5" for name in names
  ]
  assert all(re.search(r"prompts?/s|s/prompt", line) for line in lines)


def test_every_number_has_its_interval_and_contains_it():
  evaluation = make_evaluation(
    Cache(num_rows=40),
    SamplingParams(),
    bootstrap=50,
    label="t1",
    score_teacher=True,
  )
  values = run(make_params(echo=2.0), evaluation, teacher=make_params(1))
  own = [f"{n}_t1" for n in ("accuracy", "length", "truncation_rate")]
  names = own + [f"teacher_{n}" for n in own]
  distances = ["forward_kl", "forward_kl_per_token"]
  distances += ["reverse_kl", "reverse_kl_per_token"]
  distances += [
    f"{share}_on_{writer}_text"
    for writer in ("teacher", "own")
    for share in ("agreement", "acceptance")
  ]
  distances.append("length_ratio")
  ends = ("", "_ci_low", "_ci_high")
  # The ends follow their value, the standard error of a distance follows them.
  expected = [name + end for name in names for end in ends]
  expected += [name + end for name in distances for end in (*ends, "_se")]
  assert list(values) == [f"eval/toy/{name}" for name in expected]
  for name in names + distances:
    value, low, high = (values[f"eval/toy/{name}{end}"] for end in ends)
    assert low <= value <= high, name
    wide = "accuracy" in name or name.endswith("_kl")
    assert low < high or not wide, name


def test_interval_of_the_kl_is_that_of_the_mean_over_prompts():
  # Ten rows of each of six prompts; the first position differs, by the prompt.
  evaluation = make_evaluation(Cache(num_rows=60), bootstrap=2000, batch_size=5)
  teacher = make_params(0, echo=0.0)
  values = run(make_params(0, echo=3.0), evaluation, teacher=teacher)
  name = "eval/toy/reverse_kl"
  half = (values[f"{name}_ci_high"] - values[f"{name}_ci_low"]) / 2
  first = np.asarray(make_params(0)["table"], np.float64)[0]
  prompts = np.eye(table_model.VOCAB)[2:8]
  q, p = (softmax(first + echo * prompts) for echo in (3.0, 0.0))
  each = np.array([kl(row, p[i]) for i, row in enumerate(q)])
  assert values[name] == pytest.approx(each.mean(), rel=1e-4)
  expected = 1.96 * each.std() / np.sqrt(60)
  assert half == pytest.approx(expected, rel=0.1)
  error = values[f"{name}_se"]
  assert error == pytest.approx(each.std() / np.sqrt(59), rel=1e-4)


def test_predictions_that_do_not_fit_on_the_disk_are_one_line(
  tmp_path, monkeypatch
):
  def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(files.os, "replace", full)
  message = "cannot write predictions to .*: No space left.*; free some space"
  with pytest.raises(UserError, match=message):
    run(spelled(3), make_evaluation(), predictions_dir=str(tmp_path))


def test_evaluation_draws_from_its_own_stream_and_changes_no_parameter(
  monkeypatch,
):
  roles = []
  stream = keys.stream

  def recorded(seed, step, role):
    roles.append(role)
    return stream(seed, step, role)

  monkeypatch.setattr(keys, "stream", recorded)
  np.random.seed(0)
  random.seed(0)
  state = np.random.get_state()[1].tolist(), random.getstate()
  params, teacher = make_params(0), make_params(1)
  before = jax.tree.map(np.array, (params, teacher))
  evaluation = make_evaluation(
    None, SamplingParams(), bootstrap=20, score_teacher=True
  )
  run(params, evaluation, teacher=teacher)
  assert set(roles) == {keys.Role.EVALUATION}
  assert (np.random.get_state()[1].tolist(), random.getstate()) == state
  jax.tree.map(np.testing.assert_array_equal, before, (params, teacher))


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
    ({"decoding": BeamSearch(0)}, "beam size is 0; expected a whole"),
    ({"cache": Cache(0)}, "split 'test' has no rows"),
    ({"decoding": SamplingParams(temperature=-1.0)}, "temperature"),
  ],
)
def test_impossible_evaluation_is_refused(kwargs, message):
  with pytest.raises(UserError, match=message):
    make_evaluation(**kwargs)


def test_prompt_longer_than_the_lengths_is_refused_not_cut():
  cache = Cache()
  cache._rows[3] = cache._rows[3]._replace(inputs=np.arange(2, 6))
  with pytest.raises(UserError, match=r"split 'test': row 3 .* has 4 input"):
    run(spelled(3), make_evaluation(cache))
