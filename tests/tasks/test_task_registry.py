"""Every registered task: rows, texts, metrics, and what a user does wrong."""

import importlib

import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from gkd.data.builder.build_cache import find_or_build
from gkd.data.builder.lookup import CacheSpec
from gkd.data.cache import TokenCache
from gkd.tasks import arithmetic
from gkd.tasks import benchmarks
from gkd.tasks import summarization
from gkd.tasks import translation
from gkd.text import numbers
from gkd.text.chain_addition import ChainAddition
from gkd.text.vocabulary import SentencePieceVocabulary
from gkd.types import UserError
from tests.tasks.conftest import CHARACTER
from tests.tasks.conftest import FAMILIES

pytestmark = pytest.mark.usefixtures("registered")


def test_registering_twice_replaces(rows_dir, pieces, tmp_path):
  translation.register(tmp_path, pieces)
  with pytest.raises(UserError, match="data_dir"):
    _rows("tatoeba_ende", "train")
  translation.register(rows_dir, pieces)
  assert len(_rows("tatoeba_ende", "train")) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_functions_can_be_named_and_imported(family):
  for name in family.NAMES:
    task = seqio.get_mixture_or_task(name)
    for function in [task.postprocessor, *task.predict_metric_fns]:
      module = importlib.import_module(function.__module__)
      assert module.__name__.startswith("gkd.text.")
      assert getattr(module, function.__name__) is function


def test_generated_rows_are_those_of_the_generator():
  rows = _rows("tiny_chains", "test")
  expected = ChainAddition().problems("test", 20)
  assert _prompts("tiny_chains", "test") == [p.inputs for p in expected]
  first = rows[0]["targets"].tolist()
  assert first == [*CHARACTER.encode(expected[0].targets), 1]
  task = seqio.get_mixture_or_task("tiny_chains")
  answer = task.postprocess_fn(expected[0].targets, is_target=True)
  assert answer == expected[0].answer


def test_gsm8k_validation_is_held_out_of_train():
  train, validation, test = (
    set(_prompts("gsm8k", s)) for s in ("train", "validation", "test")
  )
  assert not train & validation
  assert len(train | validation) == len(test) == 200
  assert 2 <= len(validation) <= 30


def test_solutions_are_plain_sentences(pieces):
  row = _rows("gsm8k", "test")[4]
  text = "It is 4+1 = 5. The answer is 5."
  assert _text(row["targets_pretokenized"]) == text
  assert row["targets"].tolist() == [*pieces.encode(text), 1]
  (row,) = _rows("svamp", "test")
  assert _text(row["targets_pretokenized"]) == "The answer is 51."


def test_four_exemplars_stand_before_a_question():
  shots = " ".join(f"Q: {i} + 1? A: {i + 1}." for i in range(4))
  (row,) = _rows("svamp_4shot", "test")
  prompt = f"{shots} Q: Take 25 from 76. What? A:"
  assert _text(row["inputs_pretokenized"]) == prompt
  assert _text(row["targets_pretokenized"]) == "The answer is 51."
  questions = _prompts("gsm8k", "validation")
  assert _prompts("gsm8k_4shot", "validation") == [
    f"{shots} Q: {question} A:" for question in questions
  ]


def test_multiple_choice_has_letters_as_the_exemplars():
  (row,) = _rows("aqua", "test")
  question = "What is 1 + 1? Answer Choices: (a) 1 (b) 2"
  assert _text(row["inputs_pretokenized"]) == question
  solution = "1 + 1 = 2. ANS:B. The answer is (b)."
  assert _text(row["targets_pretokenized"]) == solution
  (prompt,) = _prompts("aqua_4shot", "test")
  assert prompt.endswith(f"A: 4. Q: {question} A:")


def test_benchmarks_of_many_tasks_are_asked_directly_after_examples():
  (prompt,) = _prompts("mmlu", "test")
  question = "Q: Where?\n(A) here\n(B) there\nA:"
  assert prompt == (
    "The following are multiple choice questions (with answers) about human"
    f" aging.\n\n{question} (B)\n\n{question}"
  )
  before = "Sort.\n\nQ: Which?\nOptions:\n(B) b\nA: (B)\n\nQ: A?\nA: yes"
  assert {*_prompts("bbh", "test")} == {
    f"{before}\n\nQ: Which {number}?\nA:" for number in ("three", "five")
  }
  rows = _rows("bbh", "test")
  post = seqio.get_mixture_or_task("bbh").postprocess_fn
  targets = [post("(A)", example=row, is_target=True) for row in rows]
  assert targets == [{"task": "sorting", "answer": "(A)"}] * 2


def test_first_rows_of_a_benchmark_are_of_all_tasks(data_dir, pieces):
  benchmarks.register(data_dir, pieces)
  for name, number in (("mmlu", 57), ("bbh", 23)):
    rows = seqio.get_mixture_or_task(name).source.examples("test")
    names = [row["task"] for row in rows]
    assert len({*names}) == number
    assert len({*names[: 3 * number]}) > 0.9 * number


def test_tatoeba_train_is_shuffled_the_same_way_each_time():
  splits = ("train", "train", "validation")
  orders = [_prompts("tatoeba_ende", split) for split in splits]
  assert orders[0] == orders[1] != orders[2]
  assert sorted(orders[0]) == sorted(orders[2])
  assert orders[2][0] == "translate English to German: I see."


def test_references_reach_the_metric_as_a_list():
  row = _rows("tatoeba_ende", "validation")[1]
  task = seqio.get_mixture_or_task("tatoeba_ende")
  found = task.postprocess_fn("Tom wohnt hier.", example=row, is_target=True)
  assert found == ["Tom wohnt hier.", "Tom lebt hier."]


@pytest.mark.parametrize(
  ("name", "prefix", "inputs", "targets"),
  [
    ("wmt14_ende", translation.PREFIX, "en", "de"),
    ("xsum", summarization.PREFIX, "document", "summary"),
  ],
)
def test_tfds_tasks_have_t5s_prefix(name, prefix, inputs, targets):
  with tfds.testing.mock_data(num_examples=3):
    source = seqio.get_mixture_or_task(name).source
    raw = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())
    rows = _rows(name, "train")
  assert len(rows) == len(raw) == 3
  for row, example in zip(rows, raw, strict=True):
    text = prefix + _text(example[inputs])
    assert _text(row["inputs_pretokenized"]) == text
    assert row["targets_pretokenized"] == example[targets]
    assert row["inputs"][-1] == row["targets"][-1] == 1


def test_natural_instructions_ask_by_definition_and_input():
  with tfds.testing.mock_data(num_examples=2):
    source = seqio.get_mixture_or_task("natural_instructions").source
    raw = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())
    rows = _rows("natural_instructions", "train")
  for row, example in zip(rows, raw, strict=True):
    definition, text = _text(example["definition"]), _text(example["input"])
    assert _text(row["inputs_pretokenized"]) == (
      f"Definition: {definition} Input: {text} Output:"
    )
    assert row["targets_pretokenized"] == example["output"]


@pytest.mark.parametrize(
  "split", ["train[:90%]", "train[6:]+validation[:1]", "all"]
)
def test_slices_of_tfds_tasks_reach_tfds_as_they_are(split, pieces, tmp_path):
  requested = []

  def as_dataset(self, split, **kwargs):
    requested.append(split)
    rows = {"en": ["one", "two"], "de": ["eins", "zwei"]}
    return tf.data.Dataset.from_tensor_slices(rows)

  # TFDS's own mock gives the same rows whatever the slice is.
  with tfds.testing.mock_data(as_dataset_fn=as_dataset):
    path = _build("wmt14_ende", split, tmp_path, pieces)
  assert requested == [split]
  cache = TokenCache(path)
  assert cache.info["split"] == split
  assert [row.reference for row in cache.read(range(2))] == ["eins", "zwei"]


@pytest.mark.parametrize(
  ("module", "name", "split", "message"),
  [
    ("translation", "wmt14_ende", "dev[:50%]", r"no split .*dev.*'train'"),
    ("translation", "wmt14_ende", "train[:50%]+dev", r"no split .*dev.*'tr"),
    ("arithmetic", "gsm8k", "train[:90%]", "slices and sums are for tasks"),
    ("arithmetic", "gsm8k", "train+validation", "slices and sums are for"),
  ],
)
def test_splits_that_cannot_be_read_are_refused(
  module, name, split, message, pieces, tmp_path
):
  with pytest.raises(UserError, match=message):
    _build(name, split, tmp_path, pieces, module)


def test_real_gsm8k_survives_the_t5_vocabulary(data_dir):
  path = data_dir / "vocab" / "t5_spiece.model"
  vocabulary = SentencePieceVocabulary(path, extra_ids=100)
  arithmetic.register(data_dir, vocabulary)
  for split, number in (("train", 6950), ("validation", 523), ("test", 1319)):
    rows = list(arithmetic._gsm8k(data_dir, split))
    assert abs(len(rows) - number) <= 40
    unknown = 0
    for row in rows:
      ids = vocabulary.encode(row["targets"])
      answer = numbers.extract_answer(vocabulary.decode(ids))
      assert answer == numbers.extract_answer(row["targets"]) is not None
      unknown += vocabulary.unk_id in ids
    assert unknown <= 0.002 * number


@pytest.mark.parametrize(
  ("name", "split", "number"),
  [
    ("svamp", "test", 1000),
    ("gsm8k_4shot", "test", 1319),
    ("aqua", "validation", 254),
    ("aqua_4shot", "test", 254),
    ("mmlu", "test", 1140),
    ("bbh", "test", 6511),
    ("tatoeba_ende", "test", 2000),
    ("flores200_ende", "test", 1012),
    ("scitldr", "test", 618),
  ],
)
def test_real_rows_load(name, split, number, data_dir, pieces):
  for family in FAMILIES:
    family.register(data_dir, pieces)
  source = seqio.get_mixture_or_task(name).source
  rows = list(source.get_dataset(split, shuffle=False).as_numpy_iterator())
  assert len(rows) == number
  assert all(row["inputs"] and row["targets"] for row in rows)


def _build(name, split, folder, pieces, module="translation"):
  spec = CacheSpec(
    task=name,
    split=split,
    cache_dir=folder,
    lengths={"inputs": 64, "targets": 64},
    task_module=f"gkd.tasks.{module}",
    vocabulary=pieces,
  )
  return find_or_build(spec)


def _rows(name, split):
  task = seqio.get_mixture_or_task(name)
  dataset = task.get_dataset(None, split, shuffle=False)
  return list(dataset.as_numpy_iterator())


def _prompts(name, split):
  return [_text(row["inputs_pretokenized"]) for row in _rows(name, split)]


def _text(value):
  return value.decode("utf-8")
