"""Evaluations of several splits: names, labels, what is measured once."""

import dataclasses

import pytest

from gkd.config import configuration
from gkd.config import evaluations
from gkd.config import records
from gkd.data.cache import Row
from gkd.sampling.strategies import BeamSearch
from gkd.text import metrics
from gkd.types import UserError

DATA = records.DataConfig(
  task="a", split="test", lengths={"inputs": 4, "targets": 4}, vocabulary="x"
)


class _Cache:
  """As much of a cache as is looked at before anything is read."""

  vocabulary = postprocess = teacher_prompts = None
  metric_fns = ()
  path = "folder"
  with_target, without_target = range(3), ""

  def __init__(self, task, split, longest=4, metrics=()):
    self.info = {
      "postprocess": None,
      "metrics": metrics,
      "task": task,
      "split": split,
      "longest": {"inputs": longest, "targets": 4},
      "vocabulary": {"sha256": "0", "size": 9},
    }

  def __len__(self):
    return 3


def make(*caches, **kwargs):
  described = records.EvalConfig(data=DATA, batch_size=2, **kwargs)
  return evaluations.make_evaluations(described, caches)


def test_the_split_is_named_where_a_task_has_several():
  made = make(
    _Cache("a", "test"), _Cache("b", "test"), _Cache("a", "train[:9]")
  )
  parts = [evaluation.metric_part for evaluation in made]
  assert parts == ["a-test", "b", "a-train[:9]"]


def test_distance_is_measured_once_a_split_and_settings_reach_all():
  made = make(
    _Cache("a", "test"),
    _Cache("b", "test"),
    temperatures=(0.0, 0.7),
    num_samples=3,
    bootstrap=7,
    teacher=False,
  )
  assert [evaluation.sequence_kl for evaluation in made] == [True, False] * 2
  assert [evaluation.label for evaluation in made] == ["", "t0.7"] * 2
  assert [evaluation.num_samples for evaluation in made] == [1, 3] * 2
  assert {(e.bootstrap, e.score_teacher) for e in made} == {(7, False)}


def test_splits_whose_files_would_have_one_name_are_refused():
  message = r"a/train\[1%:\] has the same name as a/train\[:1%\]"
  with pytest.raises(UserError, match=message):
    make(_Cache("a", "train[:1%]"), _Cache("a", "train[1%:]"))


def test_rows_without_a_target_are_counted_at_the_start(caplog):
  cache, prompts = _Cache("a", "test"), _Cache("b", "test")
  cache.without_target = prompts.without_target = "2 of 3 rows have no target"
  prompts.with_target = []
  make(cache, prompts)
  assert [record.getMessage() for record in caplog.records] == [
    "EVAL_SPLITS: a/test: 2 of 3 rows have no target; the task's metrics are of"
    " the others"
  ]


def test_prompts_of_any_split_must_fit():
  with pytest.raises(UserError, match="inputs length 4 is too short for the"):
    make(_Cache("a", "test"), _Cache("b", "test", longest=5))


def test_a_beam_search_is_one_evaluation_more_or_the_only_one():
  made = make(_Cache("a", "test"), beam_size=4, beam_alpha=0.5)
  assert [evaluation.label for evaluation in made] == ["", "beam4"]
  assert [evaluation.sequence_kl for evaluation in made] == [True, False]
  assert made[1].decoding == BeamSearch(4, 0.5)
  (alone,) = make(_Cache("a", "test"), beam_size=2, temperatures=())
  assert (alone.label, alone.sequence_kl) == ("beam2", True)
  # Several answers leave the search alone.
  both = {"beam_size": 4, "temperatures": (0.5,), "num_samples": 3}
  made = make(_Cache("a", "test"), **both)
  assert [evaluation.num_samples for evaluation in made] == [3, 1]


def test_more_beams_than_ids_are_refused():
  """Not when the first evaluation is compiled."""
  assert make(_Cache("a", "test"), beam_size=8)
  with pytest.raises(
    UserError, match=r"beam size is 9, but .*; give at most 8"
  ):
    make(_Cache("a", "test"), beam_size=9)


def test_references_without_a_word_for_the_metric_are_warned_of(caplog):
  cache = _Cache("a", "test")
  cache.metric_fns = [metrics.rouge, metrics.rouge_char, metrics.accuracy]
  references = ["a word", "в 2020 году", ["我今天去了学校。", "!"]]
  cache.read = lambda indices: [
    Row((), (), "", references[index]) for index in indices
  ]
  make(cache)
  (warning,) = [record.getMessage() for record in caplog.records]
  assert warning.startswith(
    "EVAL_SPLITS: a/test: metric rouge finds no words in 2 of 3 references, the"
    " first is row 1 (counted from 0), 'в 2020 году': "
  )
  assert warning.endswith("such as rouge_char")


def test_a_given_cache_may_name_functions_of_named_modules_alone():
  configuration.load(["test/sft.gin"], [])

  def check(module, *names, cache="/somewhere"):
    data = dataclasses.replace(DATA, module=module, cache=cache)
    given = _Cache("a", "t", 4, names)
    assert evaluations.make_evaluations(records.EvalConfig(data=data), [given])

  for name in ("evil:call", "seqio:evil.x:qa:predictions/0/f1"):
    with pytest.raises(UserError, match=f"{name}.* add --gin.TASK_MODULE=evil"):
      check("own.tasks", name)
    check("own.tasks", name, cache="")  # made by this user of this task
  check(None, "gkd.text.metrics:x")
  check(
    "own.tasks", "own.metrics:f1", "seqio:own.tasks:x", "gkd.text.metrics:x"
  )


def test_the_module_has_an_effect_where_a_given_cache_has_functions_of_it(
  monkeypatch, tmp_path
):
  def is_idle(module, cache=tmp_path):
    data = dataclasses.replace(DATA, module=module, cache=str(cache))
    ((names, _),) = records.idle_in_caches(None, [data])
    return "TASK_MODULE" in names

  given = _Cache("a", "t", 4, ["own.x:f1", "seqio:other.x:qa:f", "gkd.x:f"])
  monkeypatch.setattr(records, "TokenCache", lambda path: given)
  modules = ("own", "other.y", "o", None, "gkd")
  assert list(map(is_idle, modules)) == [False, False, True, True, True]
  assert not is_idle("o", tmp_path / "not made yet")  # of a job of a grid
