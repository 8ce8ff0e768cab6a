"""Records of a configuration: what they refuse, and what has no effect."""

import dataclasses

import pytest

from gkd.config import command_records
from gkd.config import model_spec
from gkd.config import records
from gkd.config.teacher_prompts import TeacherPrompts
from gkd.sampling.params import SamplingParams
from gkd.sampling.strategies import BeamSearch
from gkd.text.data_files import DataFiles
from gkd.types import UserError

HUGE = 10**23
DATA = records.DataConfig(
  task="gsm8k",
  split="test",
  module="gkd.tasks.arithmetic",
  lengths={"inputs": 4, "targets": 4},
  cache="/here",
)


def evaluation(**kwargs):
  return records.EvalConfig(data=DATA, **kwargs)


def sampling(**kwargs):
  role = model_spec.Role(model=None, checkpoint="y")
  fields = {"output": "x", "student": role, "data": DATA, **kwargs}
  return command_records.SampleConfig(**fields)


@pytest.mark.parametrize(
  ("entry", "expected"),
  [
    ("svamp/test", (DATA.module, "svamp", "test", "")),
    ("x.y:svamp/test[:1%]", ("x.y", "svamp", "test[:1%]", "")),
    ("a/train+test[3:]", (DATA.module, "a", "train+test[3:]", "")),
    ("/caches/a", ("", "", "", "/caches/a")),
    ("~/caches/a", ("", "", "", "~/caches/a")),
    ("../a", ("", "", "", "../a")),
  ],
)
def test_an_entry_of_eval_splits_names_a_split_or_a_cache(entry, expected):
  first, second = evaluation(eval_splits=(entry,)).splits
  assert first == DATA
  assert second.lengths == DATA.lengths
  named = (second.module, second.task, second.split, second.cache)
  assert named == expected


@pytest.mark.parametrize("entry", ["svamp", "a/", "a/b/c", "a b/c", "x:", ""])
def test_an_entry_that_names_nothing_is_refused(entry):
  message = r"EVAL_SPLITS has .*; expected 'task/split', 'module:task/split' or"
  with pytest.raises(UserError, match=message):
    evaluation(eval_splits=(entry,))


def test_a_seed_is_a_positive_number_of_32_bits_with_a_sign():
  for value in (0, 2**31 - 1):
    assert sampling(seed=value).seed == value
  for value in (-1, 2**31):
    message = rf"SEED is {value}; give 0 to 2147483647"
    with pytest.raises(UserError, match=message):
      sampling(seed=value)


def test_one_evaluation_for_each_temperature_and_one_for_the_search():
  def strategies(temperatures, beam_size, beam_alpha, num_samples):
    return evaluation(
      temperatures=temperatures,
      beam_size=beam_size,
      beam_alpha=beam_alpha,
      num_samples=num_samples,
    ).strategies

  greedy = SamplingParams(temperature=0.0)
  assert strategies((0.0, 0.7), 4, 0.6, 2) == [
    greedy,
    SamplingParams(temperature=0.7),
    BeamSearch(4, 0.6),
  ]
  assert strategies((0.0,), 0, 0.6, 1) == [greedy]
  assert strategies((), 2, 0.0, 1) == [BeamSearch(2, 0.0)]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"temperatures": ()}, "EVAL_TEMPERATURES is empty and EVAL_BEAM_SIZE 0"),
    ({"temperatures": (-1.0,)}, "of EVAL_TEMPERATURES is -1.0; exp"),
    ({"temperatures": (0.5, 0.5)}, "give each temperature once"),
    ({"num_samples": 2}, "EVAL_SAMPLES is 2 but greedy answers"),
    (
      {"temperatures": (), "beam_size": 4, "num_samples": 2},
      "EVAL_SAMPLES is 2 but the answers are all the same",
    ),
    ({"beam_size": -1}, "EVAL_BEAM_SIZE is -1; expected a whole"),
    ({"beam_size": 2.5}, "EVAL_BEAM_SIZE is 2.5; expected a whole"),
    ({"beam_size": True}, "EVAL_BEAM_SIZE is True; expected a whole"),
    (
      {"beam_size": 4, "beam_alpha": -0.5},
      r"EVAL_BEAM_ALPHA is -0.5; expected 0 \(no length",
    ),
    (
      {"beam_size": 4, "beam_alpha": float("inf")},
      "EVAL_BEAM_ALPHA is inf;",
    ),
    ({"beam_size": 4, "beam_alpha": "x"}, "EVAL_BEAM_ALPHA is 'x'; expected 0"),
    ({"batch_size": 0}, "EVAL_BATCH_SIZE is 0; give 1 to 65,536"),
    ({"batch_size": HUGE}, f"EVAL_BATCH_SIZE is {HUGE}; give 1 to 65,536"),
    ({"num_samples": HUGE}, f"EVAL_SAMPLES is {HUGE}; give 1 to 1,048,576"),
    ({"bootstrap": HUGE}, f"EVAL_BOOTSTRAP is {HUGE}; give 0 to 1,048,576"),
    ({"chunk_size": 0}, "EVAL_CHUNK_SIZE is 0; give at least 1"),
    ({"bootstrap": -1}, "EVAL_BOOTSTRAP is -1; give 0 to 1,048,576"),
    ({"eval_splits": ("a/b", "a/b")}, "EVAL_SPLITS is .*; give each split"),
  ],
)
def test_what_cannot_be_evaluated_is_refused(fields, message):
  with pytest.raises(UserError, match=message):
    evaluation(**fields)


def test_completions_are_drawn_unless_there_is_a_beam_size():
  drawn = SamplingParams(temperature=0.5)
  assert sampling(decoding=drawn, num_samples=3).strategy is drawn
  search = sampling(decoding=drawn, beam_size=4, beam_alpha=0.0, num_samples=3)
  assert search.strategy == BeamSearch(4, 0.0)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (
      {"decoding": SamplingParams(0.0), "num_samples": 2},
      "NUM_SAMPLES is 2 but greedy completions",
    ),
    (
      {"beam_size": 2, "num_samples": 3},
      "NUM_SAMPLES is 3 but BEAM_SIZE 2 finds at most 2 completions",
    ),
    ({"beam_size": -1}, "beam size is -1; expected a whole"),
    ({"shard_prompts": 0}, "SHARD_PROMPTS is 0; give at least 1"),
    ({"num_samples": HUGE}, f"NUM_SAMPLES is {HUGE}; give 1 to 1,048,576"),
    ({"batch_size": 10**6}, "BATCH_SIZE is 1000000; give 1 to 65,536"),
    ({"decoding": SamplingParams(top_p=0.0)}, "decoding top_p is 0.0"),
  ],
)
def test_what_cannot_be_sampled_is_refused(fields, message):
  with pytest.raises(UserError, match=message):
    sampling(**fields)


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    (
      {"beam_size": 4},
      ["SAMPLING_TEMPERATURE", "SAMPLING_TOP_K", "SAMPLING_TOP_P"],
    ),
    (
      {"decoding": SamplingParams(0.0)},
      ["BEAM_ALPHA", "SAMPLING_TOP_K", "SAMPLING_TOP_P"],
    ),
    ({"decoding": SamplingParams(0.7)}, ["BEAM_ALPHA"]),
  ],
)
def test_values_of_another_strategy_have_no_effect(fields, expected):
  data = dataclasses.replace(DATA, cache="")
  idle = sampling(data=data, **fields).idle()
  assert [name for names, _ in idle for name in names] == expected


def test_only_a_teacher_or_a_search_gives_some_values_an_effect():
  def idle(config, *roles):
    listed = config.idle(["student", *roles])
    return [name for names, _ in listed for name in names]

  data = dataclasses.replace(DATA, cache="")
  search = records.EvalConfig(data=data, beam_size=4)
  assert idle(search, "teacher") == []
  of_teacher = ["EVAL_TEACHER", "TEACHER_TASK", "TEACHER_INPUTS"]
  of_teacher.append("EVAL_TEACHER_CACHE")
  assert idle(search, "judge") == of_teacher
  distances = ["EVAL_CHUNK_SIZE", "EVAL_DISTANCES"]
  assert idle(search) == [*of_teacher, *distances]
  assert idle(records.EvalConfig(data=data), "teacher") == ["EVAL_BEAM_ALPHA"]


def test_teachers_prompts_are_one_other_text_of_the_same_rows():
  def data(**prompts):
    fields = {"inputs": "question", "targets": "answer"}
    return records.DataConfig(
      task="sums",
      split="train",
      lengths={"inputs": 8, "targets": 4, "teacher_inputs": 16},
      own=DataFiles(files="sums.csv", fields=fields),
      teacher_prompts=TeacherPrompts(**prompts),
    )

  other = data(inputs="{question} {answer}").of_teacher
  assert other.lengths == {"inputs": 16, "targets": 4}
  assert other.own.columns["inputs"] == "{question} {answer}"
  assert data(task={"sums": "solved"}).of_teacher.task == "solved"
  assert data().of_teacher is None is other.of_teacher
  with pytest.raises(UserError, match="without 'sums'"):
    _ = data(task={"others": "solved"}).of_teacher
  with pytest.raises(UserError, match="TEACHER_TASK and TEACHER_CACHE are gi"):
    data(task="solved", cache="folder")
